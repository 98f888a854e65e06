"""Differences of a score between two sets of test cases of the same fits: subgroups, internal and external tests."""
