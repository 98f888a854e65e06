"""Probing features that are read from their file in every pass, against probing the same features in memory.

    python -m benchmarks.solver_stream                 # 200,000 x 512, binary
    python -m benchmarks.solver_stream 50000 512 multiclass
    python -m benchmarks.solver_stream 500000 1536 --protocol clip --repeats 2

Both fit one protocol (`default`: 13 C, up to 5 folds, the refit) on one mapped file of float16 in the page cache.
They run in one process, one after the other.  The rate is rows per CPU second of that process.
"""

from __future__ import annotations

import argparse
import resource
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from benchmarks._pairs import machine, row
from benchmarks._spectra import features, labels
from mt.probe.protocols import Fitted, Fitting, get_protocol
from mt.probe.run import fit_probe
from mt.probe.solver.row_source import StreamedRows, Traffic
from mt.types import LabelledRows

T = TypeVar("T")
GOAL = ">= 0.6"
MEMORY = 512 << 20
CLASSES = 10


def main(rows: int, dim: int, task: str, protocol: str, repeats: int) -> None:
    """Print the ratio of the two rates, and the largest difference between the probabilities of the two fits."""
    print(f"  {machine()}; {rows:,} x {dim}, float16, {task}, protocol {protocol}")
    fitting = Fitting(get_protocol(protocol)).on(task, 2 if task == "binary" else CLASSES)
    with tempfile.TemporaryDirectory() as folder:
        X, y = write(Path(folder) / "rows", rows, dim, task)
        few = X[:600].astype(np.float16)
        for warm in (few, StreamedRows(few, MEMORY, Traffic())):
            fit(warm, y[:600], fitting)
        for _ in range(repeats):
            compare(X, y, fitting)


def compare(X: np.ndarray, y: np.ndarray, fitting: Fitting) -> None:
    """Fit rows that are read, then the same in memory, and print what both took."""
    traffic = Traffic()
    streamed, slow = timed(lambda: fit(StreamedRows(X, MEMORY, traffic), y, fitting))
    print(f"  streamed: {slow:.1f} CPU s, {traffic}; peak {peak():.2f} GiB", flush=True)
    held, quick = timed(lambda: fit(X, y, fitting))
    print(f"  in memory: {quick:.1f} CPU s; peak {peak():.2f} GiB")
    apart = np.abs(streamed.probe.probabilities(X[:4096]) - held.probe.probabilities(X[:4096])).max()
    same = "the same C" if streamed.settings == held.settings else f"{streamed.settings}, {held.settings}"
    row("rate, streamed / in memory", quick / slow, reach=GOAL, note=f"{same}; probabilities {apart:.0e} apart")


def write(path: Path, rows: int, dim: int, task: str) -> tuple[np.ndarray, np.ndarray]:
    """Write features of a power-law spectrum, one block at a time; return the mapped rows (rows, dim) and labels."""
    block = min(rows, 8_192)
    X, factors = features(block, dim)
    y = labels(factors, task, CLASSES if task == "multiclass" else 1)
    rng = np.random.default_rng(0)
    whole = np.memmap(path, dtype=np.float16, mode="w+", shape=(rows, dim))
    target = np.empty(rows, dtype=np.int64)
    for start in range(0, rows, block):
        taken = slice(start, min(start + block, rows))
        size = taken.stop - start
        # New rows of the same spectrum: random mixtures of two rows that share a label.
        first, second = np.arange(size), rng.permutation(size)
        second = np.where(y[first] == y[second], second, first)
        whole[taken], target[taken] = (X[first] + X[second]) / 2, y[first]
    whole.flush()
    return np.memmap(path, dtype=np.float16, mode="r", shape=(rows, dim)), target


def fit(X: Any, y: np.ndarray, fitting: Fitting) -> Fitted:
    """Fit the probe on a matrix, or on `StreamedRows`."""
    return fit_probe(LabelledRows(X, y), fitting, seed=0)


def timed(work: Callable[[], T]) -> tuple[T, float]:
    began = time.process_time()
    done = work()
    return done, time.process_time() - began


def peak() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1 << (30 if sys.platform == "darwin" else 20))


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("rows", type=int, nargs="?", default=200_000)
    parser.add_argument("dim", type=int, nargs="?", default=512)
    parser.add_argument("task", nargs="?", default="binary")
    parser.add_argument("--protocol", default="default")
    parser.add_argument("--repeats", type=int, default=1)
    asked = parser.parse_args()
    main(asked.rows, asked.dim, asked.task, asked.protocol, asked.repeats)
