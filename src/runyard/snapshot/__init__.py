"""Frozen code: git trees in the yard's own repository, links to data."""
