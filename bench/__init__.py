"""Benchmarks: each prints its table, or with `--json` one object a bar."""
