"""Metrics, their intervals over cases and draws, and paired comparisons."""
