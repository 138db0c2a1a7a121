"""Benchmarks: each module is one command, `python -m bench.NAME [--quick]`; `python -m bench` runs them all."""
