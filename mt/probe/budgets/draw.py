"""Label budgets: which rows a probe may look at, how they are divided into folds, and how settings are chosen on them.

A draw is a prefix of one seeded order, so that the 1 % draw of a seed lies inside its 10 % draw, and 5 shots inside 10.
Draws, folds and splits are stratified by class; for several labels, and for groups, by iterative stratification
(`mt.stratification`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from numpy.typing import ArrayLike, NDArray

from mt.errors import InputError
from mt.probe.protocols import Fitting
from mt.probe.questions import Budget, Question, budgets, seeds_of
from mt.stratification import Ints, iterative_order, label_matrix, stratified_order, stratified_parts, unit_counts
from mt.types import MISSING, TASKS, Array, CaseFeatures, Groups, LabelledRows, sortable

REVISION = 1  # of the order that draws are prefixes of; raised whenever it changes
Asked = tuple[Budget, int, Any]  # budget, seed, identity of how its rows are drawn
UNITS = ("row", "group")


@dataclass(frozen=True)
class Draw:
    """One random budget, identified by (fraction or shots, seed).

    `rows` are row numbers of the training split, in the order they were drawn.  `realised` says what the draw got: its
    `unit` and the `n_units` drawn, `n_rows`, `n_groups` (None without groups), `rows` and `groups` per class (the
    positives of each label in multilabel), the classes `forced` (proportion alone would have omitted them), the classes
    `missing` and the multilabel labels that are `constant`, as class numbers; whether it got `everything`; whether a
    draw file `listed` it; and its `draw`, "random" (rows) or "random-groups", if no label was looked at.
    """

    rows: Ints
    fraction: float | None
    shots: int | None
    seed: int
    realised: dict[str, Any]


def draw(
    labels: ArrayLike,
    *,
    task: str,
    n_classes: int,
    fraction: float | None = None,
    shots: int | None = None,
    seed: int = 0,
    groups: Groups | None = None,
    unit: str = "row",
) -> Draw:
    """Return the draw of one seed: a fraction of the units, or `shots` units of every class.

    labels: (n,) class numbers, or (n, n_classes) for multilabel: 0, 1, or -1 if not known, which is neither positive
    nor negative.  groups: the group of each row.  Units are rows or, with `unit="group"`, groups: a fraction then is a
    fraction of the groups, and a shot is a group that holds the class.
    A fraction is rounded to whole units and takes at least one unit of every class that occurs, since the first unit of
    each class is moved to the front of the order.  In multilabel a shot of a label is a positive, and `shots` rows
    without any label are added.  A draw of all units does not depend on the seed, and is recorded under seed 0.

    Raises InputError for labels outside the task, a budget that cannot be drawn, or unless exactly one of fraction and
    shots is given.
    """
    matrix = class_matrix(labels, task=task, n_classes=n_classes)
    check_budget(fraction, shots, groups, unit)
    group_of_row = None if groups is None else sortable(groups)
    counts, unit_of_row = unit_counts(_strata(labels, matrix), groups if unit == "group" else None)
    order = _order(counts, seed, by_row=task != "multilabel" and unit == "row")
    held = counts[order] > 0
    if fraction is not None:
        places, forced = _fraction_places(held[:, :n_classes], fraction)
    else:
        places, forced = _shot_places(held, shots or 0), []
    if len(places) == len(order):
        rows, seed, forced = np.arange(len(matrix)), 0, []
    else:
        rows = rows_of_units(order[places], unit_of_row)
    realised = account(labels, matrix, rows, group_of_row, task=task, unit=unit, forced=forced)
    return Draw(rows, fraction, shots, seed, realised)


def folds(
    labels: ArrayLike, *, task: str, n_classes: int, k: int = 5, groups: Groups | None = None, seed: int = 0
) -> Ints | None:
    """Return the fold number of each row of a draw (n,), or None if fewer than two folds are possible.

    labels, groups: as in `draw`.  There are min(k, units of the rarest class) folds; a unit is a group, or a row
    without groups.  Classes absent from the draw do not count.  In multilabel each label is a problem of its own: its
    rarest class is the smaller of the units with a positive and those with a negative row.  Labels with fewer than two
    of either do not count, since no fold can test them.  Raises InputError for labels outside the task.
    """
    matrix = class_matrix(labels, task=task, n_classes=n_classes)
    counts, _ = unit_counts(matrix, groups)
    rarest = (counts > 0).sum(axis=0)
    if task == "multilabel":
        negatives, _ = unit_counts(_negatives(labels), groups)
        rarest = np.minimum(rarest, (negatives > 0).sum(axis=0))
        testable = rarest >= 2
    else:
        testable = rarest >= 1
    n_folds = min(k, int(rarest[testable].min(initial=k))) if testable.any() else 0
    if n_folds < 2:
        return None
    return stratified_parts(labels, groups, [1 / n_folds] * n_folds, seed)


def stratified_split(
    labels: ArrayLike,
    *,
    task: str,
    n_classes: int,
    fractions: Mapping[str, float],
    groups: Groups | None = None,
    seed: int = 0,
) -> dict[str, Ints]:
    """Return the row numbers, ascending, of each named part; no group is in two parts.

    fractions: the share of the rows by name.  Raises InputError for labels outside the task.
    """
    class_matrix(labels, task=task, n_classes=n_classes)
    part = stratified_parts(labels, groups, list(fractions.values()), seed)
    return {name: np.flatnonzero(part == number) for number, name in enumerate(fractions)}


def check_budget(fraction: float | None, shots: int | None, groups: Groups | None, unit: str) -> None:
    """Raise InputError for a budget that cannot be drawn."""
    if (fraction is None) == (shots is None):
        raise InputError("a budget is either a fraction or a number of shots: give exactly one of them")
    if fraction is not None and not 0 < fraction <= 1:
        raise InputError(f"a fraction lies in (0, 1], found {fraction}")
    if shots is not None and shots < 1:
        raise InputError(f"shots are at least 1 per class, found {shots}")
    if unit not in UNITS:
        raise InputError(f"No budget unit '{unit}'. Expected one of: {', '.join(UNITS)}")
    if unit == "group" and groups is None:
        raise InputError("a budget in groups needs the group of each row, and this dataset declares none")


def _strata(labels: ArrayLike, matrix: Ints) -> Ints:
    """Return the columns to stratify by: the classes, and in multilabel a last one for rows without any label."""
    return matrix if np.asarray(labels).ndim == 1 else label_matrix(labels)


def _order(counts: Ints, seed: int, *, by_row: bool) -> Ints:
    return stratified_order(counts.argmax(axis=1), seed) if by_row else iterative_order(counts, seed)


def _fraction_places(held: NDArray[np.bool_], fraction: float) -> tuple[Ints, list[int]]:
    """Return the positions in the order that a fraction takes, and the classes that only forcing includes.

    `held` is (n_units, n_classes), in the order.  The first unit of each class is moved to the front, so that a prefix
    holds all classes; one that is too short for that is lengthened.
    """
    size = max(1, int(np.floor(fraction * len(held) + 0.5)))
    present = np.flatnonzero(held.any(axis=0))
    first = held[:, present].argmax(axis=0)
    front = np.unique(first)
    behind = np.setdiff1d(np.arange(len(held)), front)
    places = np.concatenate([front, behind[: max(0, size - len(front))]])
    return places, present[first >= size].tolist()


def _shot_places(held: NDArray[np.bool_], shots: int) -> Ints:
    """Return the positions in the order of the first `shots` units of every class."""
    return np.flatnonzero((held & (np.cumsum(held, axis=0) <= shots)).any(axis=1))


def rows_of_units(units: Ints, unit_of_row: Ints) -> Ints:
    """Return the rows of `units`, unit after unit, ascending inside a unit."""
    rank = np.full(int(unit_of_row.max()) + 1, len(units))
    rank[units] = np.arange(len(units))
    rank_of_row = rank[unit_of_row]
    by_rank = np.argsort(rank_of_row, kind="stable")
    return by_rank[: int((rank_of_row < len(units)).sum())]


def class_matrix(labels: ArrayLike, *, task: str, n_classes: int) -> Ints:
    """Return (n, n_classes) zeros and ones: which classes (multilabel: labels) each row holds.

    A multilabel entry that is MISSING counts as 0.  Raises InputError for an unknown task, a wrong shape, no rows, NaN,
    or a label outside the task.
    """
    if task not in TASKS:
        raise InputError(f"No task '{task}'. Expected one of: {', '.join(TASKS)}")
    table = np.asarray(labels)
    lowest, highest = (MISSING, 1) if task == "multilabel" else (0, n_classes - 1)
    expected = f"(rows, {n_classes})" if task == "multilabel" else "(rows,)"
    if table.ndim != (2 if task == "multilabel" else 1) or (task == "multilabel" and table.shape[1] != n_classes):
        raise InputError(f"{task} labels have the shape {expected}, found {table.shape}")
    if len(table) == 0:
        raise InputError("there is no row to draw from")
    if table.dtype.kind not in "biuf":
        raise InputError(f"{task} labels are whole numbers from 0 to {highest}, found {table.ravel()[0]!r}")
    if table.dtype.kind == "f" and (missing := int(np.isnan(table).any(axis=tuple(range(1, table.ndim))).sum())):
        raise InputError(f"{missing} of {len(table)} rows have a NaN label: remove the rows without a label")
    wrong = (table < lowest) | (table > highest) | (table != np.floor(table))
    if wrong.any():
        found = ", ".join(f"{value:g}" for value in np.unique(table[wrong])[:3].astype(np.float64))
        raise InputError(f"{task} labels are whole numbers from 0 to {highest}, found {found}")
    if task == "multilabel":
        return np.asarray(table > 0, dtype=np.int64)
    return np.asarray(table[:, None] == np.arange(n_classes), dtype=np.int64)


def _negatives(labels: ArrayLike) -> Ints:
    """Return (n, L) ones where a row is known not to hold a label of a multilabel task."""
    return np.asarray(np.asarray(labels) == 0, dtype=np.int64)


def account(
    labels: ArrayLike,
    matrix: Ints,
    rows: Ints,
    groups: NDArray[Any] | None,
    *,
    task: str,
    unit: str,
    forced: list[int],
) -> dict[str, Any]:
    """Return what `rows` hold, as `Draw.realised` describes; `labels` and `matrix`, (n, n_classes), are of all rows."""
    held = matrix[rows]
    per_class = held.sum(axis=0)
    constant = np.zeros(0, dtype=bool)
    if task == "multilabel":
        constant = (per_class == 0) | (_negatives(labels)[rows].sum(axis=0) == 0)
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
        "constant": np.flatnonzero(constant).tolist(),
        "everything": len(rows) == len(matrix),
    }


class DrawSource:
    """Draws as prefixes of our seeded orders, stratified by class."""

    def __init__(self) -> None:
        self._whole: dict[tuple[str, str, str, str, Budget], int] = {}

    def asked(self, fractions: Sequence[float], shots: Sequence[int], seeds: int) -> list[Asked]:
        """Return every draw of the budgets: budget, seed, and what, with the data, identifies its rows.

        Raises InputError for fewer than 1 seed, or a budget that cannot be drawn.
        """
        if seeds < 1:
            raise InputError(f"--seeds must be at least 1, got {seeds}.")
        here = {"order": REVISION}
        return [(budget, seed, here) for budget in budgets(fractions, shots) for seed in seeds_of(budget, seeds)]

    def repeats(self, question: Question, realised: Mapping[str, Any]) -> bool:
        """Return whether a question's draw took every row, as an earlier question's on the same budget did.

        There is only one such draw, whatever its seed.
        """
        if not realised.get("everything"):
            return False
        pair = question.pair
        asked = pair.dataset, pair.test_dataset, pair.model, question.method, question.budget
        return self._whole.setdefault(asked, question.seed) != question.seed

    def draw(self, train: CaseFeatures, budget: Budget, seed: int) -> Draw:
        """Return the rows of one draw from a train split."""
        return draw(
            train.labels,
            task=train.task,
            n_classes=len(train.class_names),
            fraction=budget.fraction,
            shots=budget.shots,
            seed=seed,
            groups=train.groups,
            unit=train.manifest["budget_unit"],
        )


# Selection: which rows of a budget are held out, and candidates' scores on them ---------------------------------------

Floats = npt.NDArray[np.float64]
_REPEAT = 1_000_003  # distance between the seeds of repeats, larger than that of any two draws' seeds


def carve(budget: LabelledRows[Array], fitting: Fitting, seed: int) -> Array | None:
    """Return the fold of every row, -1 for rows that are never held out; None if there are too few labels to hold out.

    Folds and hold-outs are stratified and keep groups together.
    """
    source = fitting.protocol.validation
    names: dict[str, Any] = {"task": fitting.task, "n_classes": fitting.n_classes, "groups": budget.groups}
    if source.kind == "none":
        return None
    if source.kind == "folds":
        return folds(budget.y, k=source.folds, seed=seed, **names)
    if folds(budget.y, k=2, seed=seed, **names) is None:
        return None
    shares = {"fit": 1 - source.fraction, "held": source.fraction}
    parts = stratified_split(budget.y, fractions=shares, seed=seed if source.seed is None else source.seed, **names)
    if not len(parts["held"]) or len(np.unique(budget.y[parts["fit"]])) < 2:
        return None  # with few groups, one part may get all of them, or all but one class
    fold = np.full(len(budget.y), -1)
    fold[parts["held"]] = 0
    return fold


def carves(budget: LabelledRows[Array], fitting: Fitting, seed: int) -> list[Array]:
    """Return the folds of every repeat, the first those of `carve`; there are several only if rows are few."""
    validation = fitting.protocol.validation
    few = not fitting.multilabel and len(budget.y) < validation.few * len(np.unique(budget.y))
    seeds = [seed + _REPEAT * repeat for repeat in range(validation.repeats if few else 1)]
    return [fold for one in seeds if (fold := carve(budget, fitting, one)) is not None]


def teachable(y: Array, fold: Array, *, multilabel: bool) -> npt.NDArray[np.bool_]:
    """Return which held-out entries (n,) or (n, L) can be scored: those whose class the fold's fitting labels hold.

    In multilabel, the fitting labels must hold both values of a label, and the entry itself must be known.  A fold
    without a class predicts 0 for it at every setting, so such rows would only add noise to the choice.
    """
    known = np.zeros(y.shape, dtype=bool)
    for number in np.unique(fold[fold >= 0]):
        held = fold == number
        fitting = y[~held]
        if multilabel:
            both = (fitting == 0).any(axis=0) & (fitting == 1).any(axis=0)
            known[held] = both & (y[held] != MISSING)
        else:
            known[held] = np.isin(y[held], fitting)
    return known


def log_loss(logits: Array, y: Array, known: Array, *, multilabel: bool) -> Floats:
    """Return the mean log loss of each candidate: logits (C, n, outputs) -> (C,), over the known entries.

    One output for two classes is the log-odds of class 1; several are a softmax, or one sigmoid per label.
    """
    losses = np.empty(len(logits))
    for number, candidate in enumerate(logits):
        z = np.asarray(candidate, dtype=np.float64)
        if multilabel:
            loss = np.logaddexp(0, z) - y * z
        elif z.shape[1] == 1:
            loss = np.logaddexp(0, z[:, 0]) - y * z[:, 0]
        else:
            top = z.max(axis=1)
            loss = top + np.log(np.exp(z - top[:, None]).sum(axis=1)) - z[np.arange(len(y)), y]
        losses[number] = loss[known].mean() if known.any() else np.nan
    return losses


def agreement(votes: Array, y: Array, metric: str, n_outputs: int) -> Floats:
    """Return accuracy, balanced accuracy or macro F1 of each candidate: votes (C, n) of classes -> (C,)."""
    if metric == "accuracy":
        return np.asarray((votes == y).mean(axis=1))
    scores = np.empty(len(votes))
    for number, vote in enumerate(votes):
        counts = np.bincount(y * n_outputs + vote, minlength=n_outputs**2).reshape(n_outputs, n_outputs)
        right, true, said = np.diag(counts), counts.sum(axis=1), counts.sum(axis=0)
        if metric == "balanced_accuracy":
            scores[number] = (right[true > 0] / true[true > 0]).mean()
        else:
            there = (true + said) > 0
            scores[number] = (2 * right[there] / (true + said)[there]).mean()
    return scores


def votes_of(logits: Array) -> Array:
    """Return the predicted class of each candidate and row: logits (C, n, outputs) -> (C, n)."""
    return np.asarray((logits[..., 0] > 0) if logits.shape[-1] == 1 else logits.argmax(axis=-1)).astype(np.int64)


def candidate_scores(logits: Array, y: Array, known: Array, metric: str, n_outputs: int, *, multilabel: bool) -> Floats:
    """Return one score per candidate, greater is better, over the known entries."""
    if metric == "log_loss":
        return -log_loss(logits, y, known, multilabel=multilabel)
    return agreement(votes_of(logits)[:, known], y[known], metric, n_outputs)


def best(scores: Floats, ties: str = "smaller") -> int:
    """Return the number of the best score; in a tie the first or, with ties "larger", the last."""
    known = np.where(np.isfinite(scores), scores, -np.inf)
    return int(np.argmax(known)) if ties == "smaller" else len(known) - 1 - int(np.argmax(known[::-1]))
