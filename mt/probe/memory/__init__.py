"""Probing within a limit of memory: what each kind of work needs, and features that are read by chunks."""
