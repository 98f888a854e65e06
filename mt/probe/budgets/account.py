"""A draw: the rows whose labels a probe may look at, and an account of what it got."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mt.errors import InputError
from mt.stratification import Ints, unit_counts
from mt.types import TASKS

UNITS = ("row", "group")


@dataclass(frozen=True)
class Draw:
    """One random budget, identified by (fraction or shots, seed).

    `rows` are row numbers of the training split, in the order they were drawn.  `realised` says what the draw got:
    its `unit` and the `n_units` drawn, `n_rows`, `n_groups` (None without groups), `rows` and `groups` a class (a
    label's positives in multilabel), the classes `forced` (proportion alone would have left them out), the classes
    `missing` and the multilabel labels that are `constant`, as class numbers; whether it got `everything`; and whether
    a draw file `listed` it.
    """

    rows: Ints
    fraction: float | None
    shots: int | None
    seed: int
    realised: dict[str, Any]


def class_matrix(labels: ArrayLike, *, task: str, n_classes: int) -> Ints:
    """Return (n, n_classes) zeros and ones: which classes (multilabel: labels) each row holds.

    Raises InputError on an unknown task, a wrong shape or a label outside the task.
    """
    if task not in TASKS:
        raise InputError(f"No task '{task}'. Expected one of: {', '.join(TASKS)}")
    table = np.asarray(labels)
    highest = 1 if task == "multilabel" else n_classes - 1
    expected = f"(rows, {n_classes})" if task == "multilabel" else "(rows,)"
    if table.ndim != (2 if task == "multilabel" else 1) or (task == "multilabel" and table.shape[1] != n_classes):
        raise InputError(f"{task} labels have the shape {expected}, found {table.shape}")
    if len(table) == 0:
        raise InputError("there is no row to draw from")
    if table.min() < 0 or table.max() > highest:
        raise InputError(f"{task} labels lie in 0 ... {highest}, found {table.min()} ... {table.max()}")
    if task == "multilabel":
        return np.asarray(table, dtype=np.int64)
    return np.asarray(table[:, None] == np.arange(n_classes), dtype=np.int64)


def account(
    matrix: Ints, rows: Ints, groups: NDArray[Any] | None, *, task: str, unit: str, forced: list[int]
) -> dict[str, Any]:
    """Return what `rows` hold, as `Draw.realised` describes; `matrix` is (n, n_classes), of all rows."""
    held = matrix[rows]
    per_class = held.sum(axis=0)
    constant = (per_class == 0) | (per_class == len(rows))
    per_class_groups = n_groups = None
    if groups is not None:
        counts, _ = unit_counts(held, groups[rows].tolist())
        n_groups, per_class_groups = len(counts), (counts > 0).sum(axis=0).tolist()
    return {
        "unit": unit,
        "n_units": n_groups if unit == "group" else len(rows),
        "n_rows": len(rows),
        "n_groups": n_groups,
        "rows": per_class.tolist(),
        "groups": per_class_groups,
        "forced": forced,
        "missing": np.flatnonzero(per_class == 0).tolist(),
        "constant": np.flatnonzero(constant).tolist() if task == "multilabel" else [],
        "everything": len(rows) == len(matrix),
    }
