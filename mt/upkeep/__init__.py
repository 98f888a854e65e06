"""Upkeep of a cache: older feature files gain content hashes, and persons are forgotten."""
