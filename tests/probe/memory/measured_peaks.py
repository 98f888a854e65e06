"""Print the peak memory of fits above what their process held before, as JSON; a process of its own (Linux).

python -m tests.probe.memory.measured_peaks '[["default", 8000, 256, 3]]'
"""

from __future__ import annotations

import ctypes
import json
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np

from mt.probe.protocols import Fitting, get_protocol
from mt.probe.run import fit_probe
from mt.types import Array, LabelledRows


def main() -> None:
    """Measure each case twice, and print the lower peak: protocol, rows, columns and classes.

    As many rows are tested as are fitted.
    """
    cases = json.loads(sys.argv[1])
    for name in dict.fromkeys(name for name, *_ in cases):
        fit(name, *made(60, 8, 3), 3)  # libraries are loaded, and threads started
    print(json.dumps([min(peak(*case), peak(*case)) for case in cases]))


def made(rows: int, dim: int, classes: int) -> tuple[Array, Array]:
    rng = np.random.default_rng(0)
    y = np.arange(rows) % classes
    X = rng.standard_normal((rows, dim), dtype=np.float32)
    X[:, :classes] += 3 * (y[:, None] == np.arange(classes))
    return X, y


def fit(name: str, X: Array, y: Array, classes: int) -> None:
    ids = [str(row) for row in range(len(X))]
    fitting = Fitting(get_protocol(name)).on("multiclass" if classes > 2 else "binary", classes)
    fit_probe(LabelledRows(X, y, None, ids), fitting, seed=0).probe.probabilities(X)


def peak(name: str, rows: int, dim: int, classes: int) -> int:
    X, y = made(rows, dim, classes)
    return peak_of(lambda: fit(name, X, y, classes))


def peak_of(work: Callable[[], object]) -> int:
    """Return the bytes that some work holds at most above what the process held before."""
    ctypes.CDLL(None).malloc_trim(0)
    before = status("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # VmHWM starts again
    work()
    return status("VmHWM") - before


def status(name: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(name))


if __name__ == "__main__":
    main()
