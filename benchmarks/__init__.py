"""Measurements, not tests: each script prints ratios taken side by side in one run.

`python -m benchmarks` runs all of them, `python -m benchmarks.NAME` one.
"""
