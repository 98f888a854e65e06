"""Measurements, not tests: each script measures both sides in one run and prints their ratio.

`python -m benchmarks` runs all of them, `python -m benchmarks.NAME` one.
"""
