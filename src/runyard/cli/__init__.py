"""The command line: one module per command group; thin, it calls the server."""
