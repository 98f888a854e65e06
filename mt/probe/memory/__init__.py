"""Probing within a limit of memory: features that are read chunk by chunk."""
