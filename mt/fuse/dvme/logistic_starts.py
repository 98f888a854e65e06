"""The logistic regressions that networks start from: of the whole budget and of each fold, all in one basis.

In a fold everything that looks at a label looks at the fold's fitting rows alone: inner folds of them choose the
penalty, and the first inner fold is set aside to stop on.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from mt.fuse.dvme.problem import DVMEProblem, Linear
from mt.probe.budgets.draw import log_loss
from mt.probe.protocols import DEFAULT_CS
from mt.probe.solver.api import SubsetFits, SubsetSolver
from mt.probe.solver.request import LogisticRequest
from mt.types import Array

INNER_CS = DEFAULT_CS[::2]  # every other C of the protocol `default`


@dataclass(frozen=True)
class FoldStart:
    """One fold, as row numbers of the budget: those to train on, to stop on and to predict; and the start.

    stopping is empty if there are too few labels to hold any out; then a logistic start is not trained.
    """

    rows: Array
    stopping: Array
    held: Array
    start: Linear


class LogisticStarts:
    """Logistic regression on the concatenated inputs, for the whole budget and for the fitting rows of its folds."""

    def __init__(self, problem: DVMEProblem) -> None:
        self.problem = problem
        X = torch.cat(list(problem.X), dim=1).cpu().numpy()
        self._solver = SubsetSolver(
            LogisticRequest(
                X,
                problem.y,
                DEFAULT_CS,
                task=problem.task,
                n_classes=problem.n_classes,
                class_weight=problem.class_weight,
                device=str(problem.device),
            )
        )

    def whole(self, fold: Array | None) -> tuple[float, Linear]:
        """Return the C with the lowest held-out log loss and its fit on all rows; without folds, C = 1."""
        everything = np.arange(len(self.problem))
        if fold is None:
            return 1.0, self._linear(self._solve([everything], [1.0]), 0, 0, everything)
        members = [everything, *(np.flatnonzero(fold != k) for k in range(int(fold.max()) + 1))]
        fits = self._solve(members, DEFAULT_CS)
        chosen = self._best(fits, range(1, len(members)), everything, fold, DEFAULT_CS)
        return float(DEFAULT_CS[chosen]), self._linear(fits, 0, chosen, everything)

    def of_folds(self, fold: Array) -> list[FoldStart]:
        """Return the start of each fold, from its fitting rows alone."""
        fitting = [np.flatnonzero(fold != k) for k in range(int(fold.max()) + 1)]
        inner = [None if self.problem.one_class(rows) else self.problem.folds(rows) for rows in fitting]
        members: list[Array] = []
        columns = []
        for rows, number in zip(fitting, inner, strict=True):
            subsets = [rows] if number is None else [rows[number != j] for j in range(int(number.max()) + 1)]
            columns.append(range(len(members), len(members) + len(subsets)))
            members += subsets
        fits = self._solve(members, INNER_CS)
        starts = []
        for k, (rows, number, at) in enumerate(zip(fitting, inner, columns, strict=True)):
            chosen = INNER_CS.index(1.0) if number is None else self._best(fits, at, rows, number, INNER_CS)
            stopping = rows[:0] if number is None else rows[number == 0]
            start = self._linear(fits, at[0], chosen, members[at[0]])
            starts.append(FoldStart(members[at[0]], stopping, np.flatnonzero(fold == k), start))
        return starts

    def _solve(self, subsets: Sequence[Array], Cs: Sequence[float]) -> SubsetFits:
        from sklearn.exceptions import ConvergenceWarning

        members = np.zeros((len(self.problem), len(subsets)), dtype=bool)
        for column, rows in enumerate(subsets):
            members[rows, column] = True
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            return self._solver.solve(members, Cs)

    def _best(self, fits: SubsetFits, columns: Sequence[int], rows: Array, fold: Array, Cs: Sequence[float]) -> int:
        """Return the place of the C with the lowest pooled log loss on the rows that each fold's column omits."""
        known = self.problem.teachable(rows, fold)
        if not known.any():
            return list(Cs).index(1.0)
        oof = np.empty((len(Cs), len(rows), fits.coef.shape[2]), dtype=np.float32)
        for k, column in enumerate(columns):
            oof[:, fold == k] = fits.logits(column)[:, rows[fold == k]]
        return int(np.argmin(log_loss(oof, self.problem.y[rows], known, multilabel=self.problem.multilabel)))

    def _linear(self, fits: SubsetFits, column: int, c: int, rows: Array) -> Linear:
        """Return a solution; a class without rows gets the odds of half a row."""
        coef, intercept = fits.coef[column, c].copy(), fits.intercept[column, c].copy()
        absent = ~np.isfinite(intercept)
        if self.problem.task in ("multiclass", "ordinal"):
            intercept -= intercept[~absent].mean()  # a softmax leaves a constant open
        coef[absent] = 0.0
        intercept[absent] = intercept[~absent].min(initial=0.0) - np.log(2 * len(rows) + 1)
        return Linear(coef, intercept)
