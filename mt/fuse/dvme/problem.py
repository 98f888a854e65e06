"""A budget ready to be learned, and the logistic regression on its concatenated embeddings."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from sklearn.exceptions import ConvergenceWarning

from mt.fuse.dvme.training import Linear, NetworkShape, StandardRows
from mt.probe.budgets.draw import folds
from mt.probe.methods.linear import known_outputs
from mt.probe.methods.selection import log_loss, teachable
from mt.probe.solver.api import fit_logistic, solve_folds
from mt.probe.solver.request import LogisticRequest

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class DVMEProblem:
    """A budget ready to be learned: standardised rows whose labels are numbered 0 ... outputs - 1, and their groups."""

    rows: StandardRows
    groups: Array | None
    shape: NetworkShape
    n_classes: int
    seed: int
    class_weight: Literal["balanced"] | None = None

    def take(self, rows: Array) -> DVMEProblem:
        groups = None if self.groups is None else self.groups[rows]
        return DVMEProblem(self.rows.take(rows), groups, self.shape, self.n_classes, self.seed, self.class_weight)

    @property
    def task(self) -> str:
        return self.shape.task

    @property
    def y(self) -> Array:
        return self.rows.y.cpu().numpy()

    def folds(self, k: int = 5) -> Array | None:
        groups = None if self.groups is None else self.groups.tolist()
        return folds(self.y, task=self.task, n_classes=self.n_classes, k=k, groups=groups, seed=self.seed)

    @property
    def multilabel(self) -> bool:
        return self.task == "multilabel"

    @property
    def one_class(self) -> bool:
        return not len(known_outputs(self.y, self.task, self.n_classes)[0])

    def teachable(self, fold: Array) -> Array:
        """Return which held-out entries (n,) or (n, L) say anything."""
        return teachable(self.y, fold, self.n_classes, multilabel=self.multilabel)

    def concatenated(self) -> Array:
        return torch.cat(self.rows.X, dim=1).cpu().numpy()

    def weights(self) -> torch.Tensor | None:
        """Return the weight of each class, n / (K n_k); for multilabel the negatives a positive; None if unweighted."""
        if self.class_weight is None:
            return None
        y = self.y
        if self.multilabel:
            positives = y.sum(axis=0)
            balance = (len(y) - positives) / np.maximum(positives, 1)
        else:
            counts = np.bincount(y, minlength=self.n_classes)
            balance = len(y) / (np.maximum(counts, 1) * (counts > 0).sum())
        return torch.tensor(balance, dtype=torch.float32, device=self.rows.y.device)


def choose_penalty(problem: DVMEProblem, fold: Array, Cs: Array) -> float:
    """Return the C with the lowest pooled out-of-fold log loss of logistic regression on the concatenation."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        request = LogisticRequest(
            problem.concatenated(), problem.y, Cs, task=problem.task, n_classes=problem.n_classes,
            class_weight=problem.class_weight,
        )  # fmt: skip
        [folded] = solve_folds([request], [fold])
    known = problem.teachable(fold)
    if not known.any():
        return 1.0
    return float(Cs[int(np.argmin(log_loss(folded.oof, problem.y, known, multilabel=problem.multilabel)))])


def logistic_start(problem: DVMEProblem, C: float) -> Linear:
    """Fit logistic regression on the concatenation; what these labels cannot teach gets weight 0 and a small chance.

    A class without rows gets the odds of half a row, a label that never varies its smoothed base rate.
    """
    X, y, multilabel = problem.concatenated(), problem.y, problem.multilabel
    taught, base = known_outputs(y, problem.task, problem.n_classes)
    start = Linear(np.zeros((problem.shape.n_outputs, X.shape[1])), np.zeros(problem.shape.n_outputs))
    if multilabel:
        start.intercept[:] = np.log(base / (1 - base))
    if not len(taught):
        return start
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        path = fit_logistic(
            X, y[:, taught] if multilabel else y, [C], task=problem.task,
            n_classes=None if multilabel else problem.n_classes, class_weight=problem.class_weight,
        )  # fmt: skip
    outputs = taught if multilabel else slice(None)
    start.coef[outputs], start.intercept[outputs] = path.coef[0], path.intercept[0]
    absent = ~np.isfinite(start.intercept)
    start.intercept[absent] = start.intercept[~absent].min(initial=0.0) - np.log(2 * len(y) + 1)
    return start
