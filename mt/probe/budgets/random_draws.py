"""Draws that look at no label, as if rows or patients were chosen at random for labelling: `--draw random`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from mt.errors import InputError
from mt.probe.budgets.draw import Asked, Draw, DrawSource, account, check_budget, class_matrix, rows_of_units
from mt.probe.budgets.draw_file import DrawFile
from mt.probe.questions import Budget
from mt.stratification import Ints
from mt.types import CaseFeatures, Groups, sortable

RANDOM_REVISION = 1  # of the order that random draws are prefixes of; raised whenever it changes
RULES = ("random", "random-groups")


def random_draw(
    labels: ArrayLike,
    *,
    task: str,
    n_classes: int,
    fraction: float,
    seed: int = 0,
    groups: Groups | None = None,
    unit: str = "row",
) -> Draw:
    """Return a prefix of a seeded random order of rows, or of groups with `unit="group"`.

    labels, groups: as in `draw`; labels only fill `realised`, which says if a class is missing.  A fraction is rounded
    to whole units and takes at least one.  A draw of all units is the same for every seed, and recorded under seed 0.

    Raises InputError for labels outside the task, a fraction outside (0, 1], and `unit="group"` without groups.
    """
    matrix = class_matrix(labels, task=task, n_classes=n_classes)
    check_budget(fraction, None, groups, unit)
    group_of_row = None if groups is None else sortable(groups)
    unit_of_row = np.arange(len(matrix)) if unit == "row" else _numbered(group_of_row)
    n_units = int(unit_of_row.max()) + 1
    order = np.argsort(np.random.default_rng(seed).random(n_units), kind="stable")
    size = max(1, int(np.floor(fraction * n_units + 0.5)))
    if size == n_units:
        rows, seed = np.arange(len(matrix)), 0
    else:
        rows = rows_of_units(order[:size], unit_of_row)
    realised = account(labels, matrix, rows, group_of_row, task=task, unit=unit, forced=[])
    return Draw(rows, fraction, None, seed, {**realised, "draw": RULES[unit == "group"]})


def _numbered(groups: Any) -> Ints:
    return np.unique(groups, return_inverse=True)[1].astype(np.int64)


class RandomDraws(DrawSource):
    """Draws as prefixes of random orders: of the dataset's budget unit, or of groups with the rule "random-groups"."""

    def __init__(self, rule: str) -> None:
        super().__init__()
        self.rule = rule

    def asked(self, fractions: Sequence[float], shots: Sequence[int], seeds: int) -> list[Asked]:
        """Return every draw of the budgets.  Raises InputError for shots, which count labels per class."""
        if shots:
            raise InputError(
                f"--shots counts labels per class, but --draw {self.rule} looks at no label. Use --fraction instead."
            )
        here = {"order": RANDOM_REVISION, "rule": self.rule}
        return [(budget, seed, here) for budget, seed, _ in super().asked(fractions, shots, seeds)]

    def draw(self, train: CaseFeatures, budget: Budget, seed: int) -> Draw:
        """Return the rows of one draw.  Raises InputError if groups are drawn and the dataset has none."""
        unit = "group" if self.rule == "random-groups" else str(train.manifest["budget_unit"])
        if unit == "group" and train.groups is None:
            raise InputError(
                f"--draw {self.rule} draws patients (or slides), but '{train.dataset}' has none. Draw rows: "
                "--draw random"
            )
        return random_draw(
            train.labels,
            task=train.task,
            n_classes=len(train.class_names),
            fraction=budget.fraction or 1.0,
            seed=seed,
            groups=train.groups,
            unit=unit,
        )


def draw_source(rule: str, draw_file: Path | None) -> DrawSource:
    """Return the draws that a file lists, if it exists, or our own: stratified or random.

    Raises InputError for a rule together with a file that lists the draws already.
    """
    if draw_file and draw_file.exists():
        if rule != "stratified":
            raise InputError(f"{draw_file} lists the draws already. Remove --draw {rule}, or name a new file.")
        return DrawFile(draw_file)
    return DrawSource() if rule == "stratified" else RandomDraws(rule)
