"""Fifths of a budget to choose on: stratified, groups kept together, enough of them to hold out 30 cases."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from mt.fuse.end_to_end.warm_start import Budget
from mt.probe.budgets.draw import stratified_split

Rows = npt.NDArray[np.int64]
FIFTHS = 5
ENOUGH = 30  # cases held out


def held_out(budget: Budget, *, task: str, n_classes: int, seed: int) -> list[tuple[Rows, Rows]]:
    """Return for each fifth the rows to fit and the rows to choose on; empty if no fifth can be used.

    A fifth cannot be used if it, or the rest, holds only one class.
    """
    parts = stratified_split(
        budget.y,
        task=task,
        n_classes=n_classes,
        fractions={str(fifth): 1 / FIFTHS for fifth in range(FIFTHS)},
        groups=None if budget.groups is None else list(budget.groups),
        seed=seed,
    )
    found: list[tuple[Rows, Rows]] = []
    for held in parts.values():
        rest = np.setdiff1d(np.arange(len(budget.y)), held)
        if all(len(np.unique(budget.y[rows], axis=0)) > 1 for rows in (rest, held)):
            found.append((rest, held))
        if sum(len(rows) for _, rows in found) >= ENOUGH:
            break
    return found
