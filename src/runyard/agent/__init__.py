"""The agent and the supervisor: they run attempts on a host. Standard library only, Python 3.8+."""
