"""The client: HTTP to the server, from other people's environments. Standard library only, Python 3.8+."""
