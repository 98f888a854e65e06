"""Logistic regression with an L2 penalty at many C, for every label and fold at once.

The objective is scikit-learn's: ``C · Σ sample_weight · loss + ½ ‖w‖²``, the intercept unpenalised; one weight vector
for `binary`, one per label for `multilabel`, multinomial for `multiclass` and `ordinal` (with two classes as well).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from mt.probe.solver.basis import Basis, build_basis
from mt.probe.solver.batches import PenaltyGrid, solve
from mt.probe.solver.fits import CheckedRequest
from mt.probe.solver.lbfgs import Minima
from mt.probe.solver.paths import Continuation, FoldedPath, LogisticPath, RefitStart
from mt.probe.solver.request import ClassWeight, LogisticRequest, check_dtype, check_folds, check_penalties
from mt.system.device import pick_device, tf32


def fit_logistic(
    X: np.ndarray, y: np.ndarray, Cs: Sequence[float] | np.ndarray, *, task: str,
    sample_weight: np.ndarray | None = None, class_weight: ClassWeight = None, tol: float = 1e-5, max_iter: int = 1000,
    device: str = "auto", dtype: str = "float32", n_classes: int | None = None, memory: int | None = None,
) -> LogisticPath:  # fmt: skip
    """Fit every C (and label) together.

    ``X`` (rows, dim), any real type, may be memory-mapped or strided; ``y`` class numbers, or (rows, labels) of 0/1,
    and -1 where a label is not known: its fit is of the other rows.
    Iteration stops at an estimated relative objective gap of ``tol``.  ``dtype`` is that of the centred features and
    the products with them, and of their eigenbasis where that only scales; all else is float64.  ``n_classes`` declares
    classes beyond those present, which get probability 0; ``memory`` is the bytes that problems solved at once may
    take.

    Raises FitError for labels of one class only, outside the task or of another length, for NaN, and for C <= 0.
    Warns ConvergenceWarning with the numbers.
    """
    request = LogisticRequest(
        X, y, Cs, task=task, n_classes=n_classes, sample_weight=sample_weight, class_weight=class_weight, tol=tol,
        max_iter=max_iter, device=device, dtype=dtype, memory=memory,
    )  # fmt: skip
    return solve_paths([request])[0]


@tf32(allowed=False)
def solve_paths(requests: Sequence[LogisticRequest]) -> list[LogisticPath]:
    """Fit all rows of each request at every C; small requests of one shape are solved together, to the same numbers.

    All their features are held at once, centred.
    """
    draws = []
    for request in requests:
        checked = _checked(request)
        checked.refuse_constant_labels()
        draws.append(_Asked(checked, _basis(request, checked), checked.all_rows(), request.memory))
    return [solutions.path(0) for solutions in _solve(draws)]


@tf32(allowed=False)
def solve_folds(requests: Sequence[LogisticRequest], folds: Sequence[np.ndarray]) -> list[FoldedPath]:
    """Fit the rows of each request outside each of its folds at every C and predict the fold, solved as in solve_paths.

    ``folds`` holds for each request the number of every row's fold (rows,), from 0.  One basis serves all folds of a
    request; it uses all rows and no label.  Each fold's fits see the labels of their own rows alone.  A label with one
    class in a fit's rows predicts its smoothed base rate.
    """
    draws, numbers, orders = [], [], []
    for request, fold in zip(requests, folds, strict=True):
        checked = _checked(request)
        number = check_folds(fold, len(checked.X))
        # Fold by fold: so the rows that a fit omits lie together, and its products omit them too.
        order = np.argsort(number, kind="stable")
        draws.append(_Asked(checked, _basis(request, checked, order), checked.all_but_each(number), request.memory))
        numbers.append(number)
        orders.append(order)
    return [found.out_of_fold(*rows) for found, *rows in zip(_solve(draws), numbers, orders, strict=True)]


@tf32(allowed=False)
def solve_refits(requests: Sequence[LogisticRequest], folded: Sequence[FoldedPath]) -> list[LogisticPath]:
    """Fit all rows of each request at its one C, started from its folds' solutions; solved as in solve_paths.

    A label with one class predicts its smoothed base rate, as it does in folds.
    """
    bases = [id(path.start.basis) for path in folded if path.start is not None]
    if len(set(bases)) < len(bases):
        # A fit may rotate the basis that another starts in.
        return [solve_refits([request], [path])[0] for request, path in zip(requests, folded, strict=True)]
    draws = []
    for request, path in zip(requests, folded, strict=True):
        checked, basis, weights = _checked(request), None, None
        if path.start is not None:
            basis, weights = path.start.basis, path.start.at(float(checked.Cs[0]))
        draws.append(_Asked(checked, basis or _basis(request, checked), checked.all_rows(), request.memory, weights))
    return [solutions.path(0) for solutions in _solve(draws)]


class SubsetSolver:
    """Fits many subsets of one request's rows, all in one basis: that of all rows, which uses no label."""

    def __init__(self, request: LogisticRequest) -> None:
        self._checked, self._memory = _checked(request), request.memory
        self._basis = _basis(request, self._checked)

    @tf32(allowed=False)
    def solve(self, members: np.ndarray, Cs: Sequence[float] | np.ndarray) -> SubsetFits:
        """Fit each subset, a column of ``members`` (rows, subsets) of bool, at every C.

        A fit sees the labels of its own rows alone.  A class without rows gets intercept -inf; a label with one class
        predicts its smoothed base rate.
        """
        request = replace(self._checked, Cs=check_penalties(Cs))
        asked = _Asked(request, self._basis, torch.from_numpy(members).to(request.device), self._memory)
        (found,) = _solve([asked])
        coef, intercept = self._basis.to_features(found.weights.to(request.device))
        return SubsetFits(found, coef.cpu().numpy(), intercept.cpu().numpy())


@dataclass(frozen=True)
class SubsetFits:
    """Solutions of each subset: coef (subsets, Cs, outputs, dim) and intercept (subsets, Cs, outputs), float64."""

    solutions: _Solutions
    coef: np.ndarray
    intercept: np.ndarray

    def logits(self, k: int) -> np.ndarray:
        """Return subset k's logits (Cs, rows, outputs) of all rows of the request, float32."""
        return self.solutions.logits(k, slice(None))


@dataclass(frozen=True)
class _Asked:
    """A request to solve in its basis: each column of ``members`` (rows, folds) at every C.

    ``start`` (outputs, columns) are the weights that all fits start from; None for the base rates.
    """

    request: CheckedRequest
    basis: Basis
    members: Tensor
    memory: int | None
    start: Tensor | None = None

    def grid(self) -> PenaltyGrid:
        """Return the fits in the basis."""
        request = self.request
        fits, continuation = request.fits(self.members).ordered(self.basis.order), Continuation()
        if self.start is not None:
            start = self.start.reshape(fits.count, fits.outputs, -1)
            continuation.add(list(range(fits.count)), request.Cs[:1], start)
        return PenaltyGrid(self.basis, fits, request.Cs, continuation, request.tol, request.max_iter, self.memory)


def _checked(request: LogisticRequest) -> CheckedRequest:
    check_dtype(request.dtype)
    return CheckedRequest.of(request, pick_device(request.device, float64=True, values=np.size(request.X)))


def _basis(request: LogisticRequest, checked: CheckedRequest, order: np.ndarray | None = None) -> Basis:
    return build_basis(checked.X, dtype=getattr(torch, request.dtype), device=checked.device, order=order)


def _solve(draws: Sequence[_Asked]) -> list[_Solutions]:
    """Solve the draws together; no two have the same basis."""
    grids = [draw.grid() for draw in draws]
    return [_Solutions.of(draw, found) for draw, found in zip(draws, solve(grids), strict=True)]


@dataclass(frozen=True)
class _Solutions:
    """Solutions: weights (folds, Cs, outputs, columns); gap and n_iter (folds, Cs), the largest of the labels."""

    request: CheckedRequest
    basis: Basis
    weights: Tensor
    gap: Tensor
    n_iter: Tensor

    @classmethod
    def of(cls, draw: _Asked, found: Minima) -> _Solutions:
        request = draw.request
        by_label = (draw.members.shape[1], request.targets.shape[1], len(request.Cs))
        weights = found.weights.reshape(*by_label, *found.weights.shape[-2:]).transpose(1, 2).flatten(2, 3)
        gap, n_iter = found.gap.reshape(by_label), found.n_iter.reshape(by_label)
        return cls(request, draw.basis, weights, gap.amax(1), n_iter.amax(1))

    def path(self, k: int) -> LogisticPath:
        """Return fold k's solutions as coefficients on the features."""
        coef, intercept = self.basis.to_features(self.weights[k].to(self.request.device))
        return self.request.path(
            coef, intercept, gap=self.gap[k].numpy(), n_iter=self.n_iter[k].numpy(),
            converged=(self.gap[k] <= self.request.tol).numpy(),
        )  # fmt: skip

    def out_of_fold(self, number: np.ndarray, order: np.ndarray) -> FoldedPath:
        """Return each fold's logits of the rows that it omits; the basis holds the rows in this order."""
        request = self.request
        oof = np.empty((len(request.Cs), len(number), request.outputs), dtype=np.float32)
        for k in range(len(self.weights)):
            first, last = np.searchsorted(number[order], [k, k + 1])
            oof[:, order[first:last]] = self.logits(k, slice(first, last))
        coef, intercept = self.basis.to_features(self.weights.mean(0).to(request.device))
        start = RefitStart(self.basis, request.Cs, coef, intercept)
        return FoldedPath(oof, (self.gap <= request.tol).numpy(), start)

    def logits(self, k: int, rows: slice) -> np.ndarray:
        """Return fold k's logits (Cs, rows, outputs) of some rows of the basis."""
        chosen, weights = self.basis.design[rows], self.weights[k]
        flat = chosen @ weights.flatten(0, 1).to(chosen).T
        logits: np.ndarray = flat.reshape(len(chosen), *weights.shape[:2]).transpose(0, 1).cpu().numpy()
        return logits
