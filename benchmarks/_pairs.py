"""Times of two things that take turns, so that their ratio holds although the machine's speed changes."""

from __future__ import annotations

import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path


def seconds(work: Callable[[], object]) -> float:
    """Return how long one call takes."""
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def paired(ours: Callable[[], object], theirs: Callable[[], object], *, rounds: int) -> tuple[float, float, float]:
    """Run A B A B ... and return the medians of A's seconds, B's seconds and the pairwise ratio B / A.

    A ratio above 1 means that A, ours, is faster.
    """
    times = [(seconds(ours), seconds(theirs)) for _ in range(rounds)]
    mine, other = zip(*times, strict=True)
    return statistics.median(mine), statistics.median(other), statistics.median(b / a for a, b in times)


def row(what: str, ratio: float, *, reach: str, note: str = "") -> None:
    """Print one line of a table: what was compared, the measured ratio, what it must reach."""
    print(f"  {what:<62} {ratio:8.2f}   must reach {reach:<8} {note}", flush=True)


def machine() -> str:
    """Return the processor's name and core count."""
    import os

    name = platform.processor() or platform.machine()
    if (info := Path("/proc/cpuinfo")).exists():
        models = [line.split(":")[1].strip() for line in info.read_text().splitlines() if "model name" in line]
        name = models[0] if models else name
    return f"{name}, {os.cpu_count()} cores"
