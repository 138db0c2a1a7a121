"""Frozen values of the yard half."""
