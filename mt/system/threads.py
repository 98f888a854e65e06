"""How many threads to use: one place that counts cores."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager


def cores() -> int:
    """Return how many cores this process may use: those of its affinity (taskset, Slurm) if the system has one."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def decoders() -> int:
    """Return how many threads decode images: one per core, 16 at most."""
    return min(16, cores())


@contextmanager
def one_thread(wanted: bool) -> Iterator[None]:
    """Compute with one of torch's threads while inside, if wanted; restore their number on leaving.

    In small products threads mostly wait for each other, and for any other process on their core.
    """
    import torch

    before = torch.get_num_threads()
    if wanted:
        torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
