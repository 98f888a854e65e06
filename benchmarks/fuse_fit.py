"""How long a fit of DVME takes on one draw, beside an earlier version's, in turns on the same cores.

    python benchmarks/fuse_fit.py --before FOLDER

FOLDER is a checkout of the version to compare with.  Each version runs in a process of its own, warmed up; a draw of
each size is fitted in turns, and medians are compared.  The last columns repeat our fits beside a process that keeps a
core busy.  Must reach, with two cores and three models 1,280 wide: 126 rows 8 times as fast as revision 4 of fusion,
1,000 rows twice; with one other busy process at most twice the time.
"""

from __future__ import annotations

import argparse
import importlib
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

MODELS, WIDTH, SHARED = 3, 1280, 40
SIZES = (126, 1000)


def main() -> None:
    """Print the times and their ratios."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--before", type=Path, help="A checkout of the version to compare with.")
    parser.add_argument("--rounds", type=int, default=3, help="Fits per size and version.")
    parser.add_argument("--cores", type=int, default=2, help="Threads of each version.")
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.serve:
        serve(asked.cores)
        return
    ours = Version(Path(__file__).resolve().parent.parent, asked.cores)
    before = Version(asked.before, asked.cores) if asked.before else None
    print(f"{'rows':>6} {'ours':>9} {'before':>9} {'ratio':>7} {'beside a busy process':>22} {'ratio':>7}")
    for rows in SIZES:
        mine, theirs = [], []
        for _ in range(asked.rounds):
            mine.append(ours.seconds(rows))
            theirs.append(before.seconds(rows) if before else float("nan"))
        with subprocess.Popen([sys.executable, "-c", "while True: pass"]) as busy:
            try:
                crowded = statistics.median(ours.seconds(rows) for _ in range(asked.rounds))
            finally:
                busy.kill()
        one, other = statistics.median(mine), statistics.median(theirs)
        print(
            f"{rows:6} {one:8.2f}s {other:8.2f}s {other / one:7.1f} {crowded:21.2f}s {crowded / one:7.1f}", flush=True
        )


class Version:
    """One version of the package in a process that fits draws when asked."""

    def __init__(self, folder: Path, cores: int) -> None:
        environment = {**os.environ, "PYTHONPATH": str(folder), "OMP_NUM_THREADS": str(cores)}
        self.process = subprocess.Popen(
            [sys.executable, __file__, "--serve", "--cores", str(cores)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=folder,
            env=environment,
        )

    def seconds(self, rows: int) -> float:
        """Return how long a fit on this number of rows takes there."""
        assert self.process.stdin
        assert self.process.stdout
        self.process.stdin.write(f"{rows}\n")
        self.process.stdin.flush()
        return float(self.process.stdout.readline())


def serve(cores: int) -> None:
    """Fit a draw for each number of rows on stdin, and print its seconds."""
    import torch

    from mt.fuse import fit_dvme

    torch.set_num_threads(cores)

    def fit(rows: int, width: int = WIDTH) -> None:
        X, y = draw(rows, width)
        fit_dvme(X, y, task="binary", n_classes=2)

    fit(60, 16)  # what is imported and set up once
    importlib.import_module("torch._dynamo")  # optimizers import it at their first step
    for line in sys.stdin:
        start = time.perf_counter()
        fit(int(line))
        print(time.perf_counter() - start, flush=True)


def draw(rows: int, width: int) -> tuple[list[np.ndarray], np.ndarray]:
    """Return embeddings of models that see the same cases, each with noise of its own, and labels made of them."""
    rng = np.random.default_rng(0)
    y = (rng.random(rows) < 0.5).astype(np.int64)
    cases = rng.normal(size=(rows, SHARED)) + 0.3 * y[:, None]
    X = [cases @ rng.normal(size=(SHARED, width)) + 3 * rng.normal(size=(rows, width)) for _ in range(MODELS)]
    return [x.astype(np.float32) for x in X], y


if __name__ == "__main__":
    main()
