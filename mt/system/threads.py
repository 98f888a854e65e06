"""How many threads to use: one place that counts cores."""

from __future__ import annotations

import os


def cores() -> int:
    """Return how many cores this process may use: those of its affinity (taskset, Slurm) if the system has one."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def decoders() -> int:
    """Return how many threads decode images: one per core, 16 at most."""
    return min(16, cores())
