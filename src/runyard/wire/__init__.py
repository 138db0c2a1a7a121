"""What both halves share: ids, states, messages, paths, settings, error codes. Standard library only, Python 3.8+.

Modules here are on the path of every command, so they avoid slow imports (typing, dataclasses, re, http.client).
"""
