"""Fits along C with a solver that knows one problem at a time: every fold, label and C is its own call."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

import numpy as np
import torch
from torch import Tensor

from mt.probe.solver.paths import FoldedPath, LogisticPath
from mt.probe.solver.request import Request

T = TypeVar("T")


@dataclass(frozen=True)
class OneFit:
    """Coefficients (outputs, dim), intercepts (outputs,), iterations, and whether the solver says it converged."""

    coef: np.ndarray
    intercept: np.ndarray
    n_iter: int
    converged: bool


# features (rows, dim), class numbers (rows,), row weights (rows,), C  ->  the fit; binary has one output.
FitOne = Callable[[np.ndarray, np.ndarray, np.ndarray, float], OneFit]


@dataclass(frozen=True)
class OneJob(Generic[T]):
    """Fits that wait to be done, one after another."""

    run: Callable[[], T]


@dataclass(frozen=True)
class _Fold:
    """The fits of one set of rows: coef (Cs, outputs, dim), intercept (Cs, outputs), n_iter and converged (Cs,)."""

    coef: np.ndarray
    intercept: np.ndarray
    n_iter: np.ndarray
    converged: np.ndarray


def path_one_by_one(request: Request, fit_one: FitOne) -> LogisticPath:
    """Fit all rows at every C."""
    return _path(request, _fit_rows(request, fit_one, request.whole()))


def folds_one_by_one(request: Request, fit_one: FitOne, fold: np.ndarray) -> FoldedPath:
    """Fit the rows outside each fold at every C and predict the fold."""
    oof = np.empty((len(request.Cs), len(request.X), request.outputs), dtype=np.float32)
    members, converged = request.without_each(fold), []
    for k in range(members.shape[1]):
        fitted = _fit_rows(request, fit_one, members[:, k : k + 1])
        held_out = np.asarray(request.X[fold == k], dtype=np.float64)
        oof[:, fold == k] = held_out @ fitted.coef.transpose(0, 2, 1) + fitted.intercept[:, None]
        converged.append(fitted.converged)

    def refit(C: float) -> OneJob[LogisticPath]:
        return OneJob(lambda: path_one_by_one(request.at([C]), fit_one))

    return FoldedPath(oof, np.stack(converged), refit)


def _fit_rows(request: Request, fit_one: FitOne, members: Tensor) -> _Fold:
    """Fit one set of rows, every label at every C; classes without rows get intercept -inf."""
    features = np.asarray(request.X, dtype=np.float64)
    groups, shape = request.groups(members), (len(request.Cs), request.outputs)
    coef, intercept = np.zeros((*shape, features.shape[1])), np.full(shape, -np.inf)
    n_iter, converged = np.zeros(len(request.Cs), dtype=np.int64), np.ones(len(request.Cs), dtype=bool)
    for label in range(groups.count):
        classes, weight = groups.classes(label).cpu().numpy(), groups.weights(label).cpu().numpy()
        rows = weight > 0
        present, number = np.unique(classes[rows], return_inverse=True)
        outputs = present if groups.softmax else np.array([label])
        if len(present) == 1:
            # One class only: a certain class for softmax, the smoothed base rate for a label.
            ones = int(classes[rows].sum())
            intercept[:, outputs] = 0 if groups.softmax else np.log((ones + 1) / (len(number) - ones + 1))
            continue
        for c, penalty in enumerate(request.Cs):
            # Two classes: the softmax with weights ±w/2 has the penalty ¼‖w‖², half of that on one weight vector w.
            both = groups.softmax and len(present) == 2
            one = fit_one(features[rows], number, weight[rows], float(2 * penalty if both else penalty))
            coef[c, outputs] = one.coef * [[-0.5], [0.5]] if both else one.coef
            intercept[c, outputs] = one.intercept * [-0.5, 0.5] if both else one.intercept
            n_iter[c], converged[c] = max(n_iter[c], one.n_iter), converged[c] and one.converged
    return _Fold(coef, intercept, n_iter, converged)


def _path(request: Request, fitted: _Fold) -> LogisticPath:
    return request.path(
        torch.from_numpy(fitted.coef), torch.from_numpy(fitted.intercept),
        gap=np.full(len(fitted.coef), np.nan), n_iter=fitted.n_iter, converged=fitted.converged,
    )  # fmt: skip
