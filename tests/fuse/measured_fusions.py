"""Print the peak memory of fits on several models above what their process held before, as JSON (Linux).

python -m tests.fuse.measured_fusions '[["dvme", 2000, [256, 128], 3]]'
"""

from __future__ import annotations

import json
import sys
from types import SimpleNamespace
from typing import Any

import numpy as np

from mt.fuse.aligned import AlignedFeatures
from mt.fuse.fuser import Fuser
from mt.probe.protocols import Fitting, get_protocol
from mt.types import LabelledRows
from tests.probe.memory.measured_peaks import made, peak_of


def main() -> None:
    """Measure each case: method, rows, columns of each model, classes.  As many rows are tested as are fitted."""
    cases = json.loads(sys.argv[1])
    for method in dict.fromkeys(method for method, *_ in cases):
        fused(method, joined(110, [8, 8], 3))()  # libraries are loaded, and threads started
    print(json.dumps([peak_of(fused(method, joined(rows, dims, classes))) for method, rows, dims, classes in cases]))


def joined(rows: int, dims: list[int], classes: int) -> Any:
    """Return features of several models on the same rows, as they are opened."""
    X, y = tuple(made(rows, dim, classes)[0] for dim in dims), np.arange(rows) % classes
    ids = [str(row) for row in range(rows)]
    cases = LabelledRows(None, y, None, ids)
    train = SimpleNamespace(task="multiclass", class_names=[str(k) for k in range(classes)])
    return AlignedFeatures(SimpleNamespace(train=train, pool=cases, cases=cases, n_classes=classes), X, X)  # type: ignore[arg-type]


def fused(method: str, features: Any) -> Any:
    """Return what fits a method on all rows."""
    fuser = Fuser(Fitting(get_protocol("default")), None, None, {})  # type: ignore[arg-type]
    question: Any = SimpleNamespace(method=method, seed=0, pair=SimpleNamespace(model="a + b"))
    fit = fuser._concat if method in ("concat", "blend") else fuser._dvme
    return lambda: fit(question, features, np.arange(len(features.first.pool)))


if __name__ == "__main__":
    main()
