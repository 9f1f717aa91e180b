"""Measured figures, each beside its peer in one run: ``python -m benchmarks.NAME [--json] [--save]``."""
