"""Benchmarks: `python -m benchmarks [NAME ...]`. Ratios measured side by side in one run; nothing gates on a time."""
