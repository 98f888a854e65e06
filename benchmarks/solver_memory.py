"""The solver's peak memory at PCam's size, and its time per row at 20,000 and at 160,000 rows.

    python -m benchmarks.solver_memory

Each fit runs in its own process.
"""

from __future__ import annotations

import resource
import subprocess
import sys
import time

import numpy as np

from benchmarks._pairs import machine, row
from benchmarks._spectra import features, labels

CS = np.logspace(-3, 3, 13)
DIM = 1_536
PCAM_ROWS = 262_144
GROWTH = (20_000, 160_000)


def main() -> None:
    """Print the ratio of peak memory to the feature matrix, and that of the CPU seconds per row at both sizes."""
    print(f"  {machine()}; {len(CS)} C, binary, {DIM} features, float32")
    fixed, _ = measure(100)
    peak, spent = measure(PCAM_ROWS)
    matrix = PCAM_ROWS * DIM * 4
    note = f"{peak / 2**30:.2f} GiB minus {fixed / 2**30:.2f} of the imports, {spent:.0f} CPU s"
    row(f"peak memory at {PCAM_ROWS:,} rows / feature matrix", (peak - fixed) / matrix, reach="<= 2.5", note=note)
    few, many = (measure(rows)[1] for rows in GROWTH)
    note = f"{few:.1f} and {many:.1f} CPU s"
    row("time per row, 160,000 / 20,000 rows", many / few * GROWTH[0] / GROWTH[1], reach="<= 1.2", note=note)


def measure(rows: int) -> tuple[int, float]:
    """Fit in a process of its own; return its peak bytes and CPU seconds."""
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.solver_memory", str(rows)], capture_output=True, text=True, check=True
    )
    peak, spent = done.stdout.split()
    return int(peak), float(spent)


def fit(rows: int) -> None:
    """Fit this number of rows; print peak bytes and CPU seconds.

    The features are made one block at a time, so that the peak is that of the fit.
    """
    from mt.probe.solver.api import fit_logistic

    block = min(rows, 8_192)
    X, factors = features(block, DIM)
    y = labels(factors, "binary")
    rng = np.random.default_rng(0)
    whole, target = np.empty((rows, DIM), dtype=np.float32), np.empty(rows, dtype=np.int64)
    for start in range(0, rows, block):
        taken = slice(start, min(start + block, rows))
        size = taken.stop - start
        # New rows of the same spectrum: random mixtures of two rows that share a label.
        first, second = np.arange(size), rng.permutation(size)
        second = np.where(y[first] == y[second], second, first)
        whole[taken] = (X[first] + X[second]) / 2
        target[taken] = y[first]
    del X, factors
    began = time.process_time()
    fit_logistic(whole, target, CS, task="binary")
    spent = time.process_time() - began
    unit = 1 if sys.platform == "darwin" else 1024
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit, spent)


if __name__ == "__main__":
    fit(int(sys.argv[1])) if len(sys.argv) > 1 else main()
