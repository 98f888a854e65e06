"""What a probe can show before it is run: fits, labels, test cases, expected intervals, detectable differences."""
