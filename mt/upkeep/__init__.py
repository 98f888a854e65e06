"""Keeping a cache as it should be: old feature files gain what new ones have, and persons are forgotten."""
