"""This checkout's `mt featurize` against another's, in turn, each in a process of its own.

Per run: images per second of the pass, as the command prints, and the processor time of the whole process, which other
work on the machine changes less.
"""

from __future__ import annotations

import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks._pairs import row

HERE = Path(__file__).parents[1]


def compare(what: str, words: Sequence[str], other: Path, folder: Path, *, rounds: int) -> None:
    """Print ours to the other's: throughput of the pass and processor time, the medians of alternating pairs.

    The pair's order turns each round.
    """
    pairs = []
    for number in range(rounds):
        trees = (HERE, other) if number % 2 == 0 else (other, HERE)
        found = {tree: run(tree, words, folder / "cache") for tree in trees}
        pairs.append((found[HERE], found[other]))
    speed = statistics.median(mine[0] / theirs[0] for mine, theirs in pairs)
    cpu = statistics.median(theirs[1] / mine[1] for mine, theirs in pairs)
    rates = [statistics.median(pair[one][0] for pair in pairs) for one in (0, 1)]
    row(f"{what}: ours / theirs (images per second)", speed, reach=">= 0.97", note=f"{rates[0]:.1f} of {rates[1]:.1f}")
    row(f"{what}: theirs / ours (processor time)", cpu, reach=">= 0.97")


def run(tree: Path, words: Sequence[str], cache: Path) -> tuple[float, float]:
    """Featurize with a checkout's code; return images per second and seconds of processor time."""
    user = cache.parent / ("ours" if tree == HERE else "theirs")  # what one version remembers is not for another
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(
        [sys.executable, "-m", "mt", "featurize", *words, "--cache-dir", str(cache), "--device", "cpu", "--json"],
        env=os.environ | {"PYTHONPATH": str(tree), "XDG_CACHE_HOME": str(user)},
        cwd=cache.parent,
        capture_output=True,
        text=True,
    )
    if done.returncode:
        raise SystemExit(f"{tree}: {done.stderr}")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    shutil.rmtree(cache)
    seconds = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return float(json.loads(done.stdout.splitlines()[-1])["images_per_second"]), seconds
