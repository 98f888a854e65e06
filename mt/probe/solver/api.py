"""Logistic regression with an L2 penalty at many C, for every label and fold at once.

The objective is scikit-learn's: ``C · Σ sample_weight · loss + ½ ‖w‖²``, the intercept unpenalised; one weight vector
for `binary`, one per label for `multilabel`, multinomial for `multiclass` and `ordinal` (with two classes as well).

The problems of one call (every fit of every request at every C) are solved in batches that fit in memory.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from mt.probe.solver import reference
from mt.probe.solver.basis import Basis, build_basis
from mt.probe.solver.fits import (
    CheckedRequest,
    Continuation,
    FoldedPath,
    LogisticPath,
    RefitStart,
)
from mt.probe.solver.lbfgs import HISTORY, Minima
from mt.probe.solver.request import (
    SOLVERS,
    ClassWeight,
    LogisticRequest,
    Solver,
    check_dtype,
    check_features,
    check_folds,
    check_penalties,
    is_streamed,
)
from mt.probe.solver.rounds import PenalisedProblems, begin, finish, problems_of
from mt.system.device import pick_device, tf32

# Bytes that the problems solved at once may take by default, or a quarter of the design's if that is more.
MEMORY = 512 << 20
# Solve draws together only if their problems fit in 16 MiB: above that, memory traffic dominates.
SHARED = 16 << 20
# And only if a problem has fewer coefficients than this: torch sums those of a larger problem on several threads, which
# rounds differently.
LONG = 1 << 14
# Live copies of a batch's logits and of its weights during one iteration, for the memory budget.
LOGIT_COPIES = 8
WEIGHT_COPIES = 2 * HISTORY + 8
# A wave of C starts from the solutions of the waves before it.  It has about this many outputs: products with fewer
# take as long.
WIDE = 72
# In a small design a wave has more outputs, this number divided by the entries of the design, so that each operation is
# long enough.
SMALL = 30_000_000


def fit_logistic(
    X: np.ndarray,
    y: np.ndarray,
    Cs: Sequence[float] | np.ndarray,
    *,
    task: str,
    sample_weight: np.ndarray | None = None,
    class_weight: ClassWeight = None,
    tol: float = 1e-5,
    max_iter: int = 1000,
    device: str = "auto",
    dtype: str = "float32",
    n_classes: int | None = None,
    memory: int | None = None,
) -> LogisticPath:
    """Fit logistic regression at every C, for all labels together, and return the coefficients of each C.

    ``X`` (rows, dim) of any real type may be memory-mapped or strided.  ``y`` holds class numbers (rows,) or, for
    multilabel, 0 and 1 (rows, labels), and -1 for a label that is not known, whose fit omits the row.
    ``sample_weight`` (rows,) and ``class_weight``, a mapping from class number to weight or "balanced", multiply the
    losses of rows.  Iteration stops at an estimated relative objective gap of ``tol``, or after ``max_iter`` steps.
    ``dtype`` is the precision of the centred features, of products with them, and of their eigenbasis if it only scales
    the problems; all else is float64.  ``n_classes`` declares classes beyond those present, which get probability 0.
    ``memory`` is how many bytes the problems solved at once may take.

    Raises FitError for labels of one class only, outside the task or of another length, for NaN, and for C <= 0;
    InputError for an unknown task, device or dtype.  Warns ConvergenceWarning for fits that stop before ``tol``.
    """
    request = LogisticRequest(
        X,
        y,
        Cs,
        task=task,
        n_classes=n_classes,
        sample_weight=sample_weight,
        class_weight=class_weight,
        tol=tol,
        max_iter=max_iter,
        device=device,
        dtype=dtype,
        memory=memory,
    )
    return solve_paths([request])[0]


@tf32(allowed=False)
def solve_paths(requests: Sequence[LogisticRequest], solver: Solver = SOLVERS["torch"]) -> list[LogisticPath]:
    """Fit all rows of each request at every C; small requests of one shape are solved together, to the same numbers.

    The centred features of all requests are in memory at once.
    """
    if not solver.batched:
        return reference.solve_paths(requests, solver.name)
    draws = []
    for request in requests:
        checked = _checked(request)
        checked.refuse_constant_labels()
        draws.append(_Asked(checked, _basis(request, checked), checked.all_rows(), request.memory))
    return [solutions.path(0) for solutions in _solve(draws)]


@tf32(allowed=False)
def solve_folds(
    requests: Sequence[LogisticRequest], folds: Sequence[np.ndarray], solver: Solver = SOLVERS["torch"]
) -> list[FoldedPath]:
    """Fit the rows of each request outside each of its folds at every C and predict the fold, solved as in solve_paths.

    ``folds`` holds for each request the number of every row's fold (rows,), from 0.  One basis serves all folds of a
    request; it uses all rows and no label.  Each fold's fits see the labels of their own rows alone.  A label with one
    class in a fit's rows predicts its smoothed base rate.
    """
    if not solver.batched:
        return reference.solve_folds(requests, folds, solver.name)
    draws, numbers, orders = [], [], []
    for request, fold in zip(requests, folds, strict=True):
        checked = _checked(request)
        number = check_folds(fold, len(checked.X))
        # Sorted by fold, the rows that a fit omits lie together, and its products omit them too.
        order = np.argsort(number, kind="stable")
        draws.append(_Asked(checked, _basis(request, checked, order), checked.all_but_each(number), request.memory))
        numbers.append(number)
        orders.append(order)
    return [found.out_of_fold(*rows) for found, *rows in zip(_solve(draws), numbers, orders, strict=True)]


@tf32(allowed=False)
def solve_refits(
    requests: Sequence[LogisticRequest], folded: Sequence[FoldedPath], solver: Solver = SOLVERS["torch"]
) -> list[LogisticPath]:
    """Fit all rows of each request at its single C, starting from its folds' solutions; solved as in solve_paths.

    A label with one class predicts its smoothed base rate, as it does in folds.
    """
    if not solver.batched:
        return reference.solve_refits(requests, solver.name)
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
    """Fits many subsets of one request's rows in the basis of all rows, which uses no label."""

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

    ``memory`` is how many bytes the problems solved at once may take; None for the larger of MEMORY and a quarter of
    the design.  ``start`` (outputs, columns) are the weights that all fits start from; None for the base rates.
    """

    request: CheckedRequest
    basis: Basis
    members: Tensor
    memory: int | None
    start: Tensor | None = None


def _checked(request: LogisticRequest) -> CheckedRequest:
    check_dtype(request.dtype)
    return CheckedRequest.of(
        request, pick_device(request.device, float64=True, values=math.prod(check_features(request.X).shape))
    )


def _basis(request: LogisticRequest, checked: CheckedRequest, order: np.ndarray | None = None) -> Basis:
    how = {"dtype": getattr(torch, request.dtype), "device": checked.device}
    if isinstance(checked.X, np.ndarray):
        return build_basis(checked.X, order=order, **how)
    from mt.probe.solver.streaming import stream_basis

    return stream_basis(checked.X, **how)


@dataclass(frozen=True)
class _Solutions:
    """Solutions: weights (folds, Cs, outputs, columns); gap and n_iter (folds, Cs), the largest of the labels."""

    request: CheckedRequest
    basis: Basis
    weights: Tensor
    gap: Tensor
    n_iter: Tensor

    def path(self, k: int) -> LogisticPath:
        """Return fold k's solutions as coefficients on the features."""
        coef, intercept = self.basis.to_features(self.weights[k].to(self.request.device))
        return self.request.path(
            coef,
            intercept,
            gap=self.gap[k].numpy(),
            n_iter=self.n_iter[k].numpy(),
            converged=(self.gap[k] <= self.request.tol).numpy(),
        )

    def out_of_fold(self, number: np.ndarray, order: np.ndarray) -> FoldedPath:
        """Return each fold's logits of the rows that it omits; the basis holds the rows in this order."""
        request = self.request
        shape = len(request.Cs), len(number), request.outputs
        design = self.basis.design
        if is_streamed(request.X) and not isinstance(design, Tensor):
            oof = request.X.empty(shape)
            design.fill_held_out(oof, self.weights, number)
        else:
            oof = np.empty(shape, dtype=np.float32)
            for k in range(len(self.weights)):
                first, last = np.searchsorted(number[order], [k, k + 1])
                oof[:, order[first:last]] = self.logits(k, slice(first, last))
        coef, intercept = self.basis.to_features(self.weights.mean(0).to(request.device))
        start = RefitStart(self.basis, request.Cs, coef, intercept)
        return FoldedPath(oof, (self.gap <= request.tol).numpy(), start)

    def logits(self, k: int, rows: slice) -> np.ndarray:
        """Return fold k's logits (Cs, rows, outputs) of some rows of a basis in memory."""
        assert isinstance(self.basis.design, Tensor)
        chosen, weights = self.basis.design[rows], self.weights[k]
        flat = chosen @ weights.flatten(0, 1).to(chosen).T
        logits: np.ndarray = flat.reshape(len(chosen), *weights.shape[:2]).transpose(0, 1).cpu().numpy()
        return logits


def _solve(draws: Sequence[_Asked]) -> list[_Solutions]:
    """Solve the draws, as many problems at once as memory allows.  No two draws have the same basis.

    A label with one class in its rows is not fitted: it predicts its smoothed base rate.  A class without rows gets
    intercept -inf.
    """
    solving = [_Solving(draw) for draw in draws]
    for some in _together(solving):
        tol, max_iter = some[0].request.tol, some[0].request.max_iter
        for step in zip(*(one.steps for one in some), strict=True):
            problems, starts = zip(*(one.problems(at) for one, at in zip(some, step, strict=True)), strict=True)
            found = begin(problems, starts, tol=tol, max_iter=max_iter)
            for one, at, minima in zip(some, step, found, strict=True):
                one.add(at, minima)
        for one in some:
            one.finish()
    return [one.solutions() for one in solving]


def _together(solving: Sequence[_Solving]) -> Iterator[list[_Solving]]:
    """Yield lists of draws that take the same steps and are small enough to be solved together."""
    by_shape: dict[tuple[object, ...], list[_Solving]] = {}
    for one in solving:
        by_shape.setdefault(one.shape, []).append(one)
    for alike in by_shape.values():
        some: list[_Solving] = []
        for one in alike:
            if some and sum(other.bytes for other in (*some, one)) > one.shared:
                yield some
                some = []
            some.append(one)
        yield some


class _Solving:
    """The state of solving one draw: ``found`` holds the weights (fits, Cs, outputs, columns) so far, on the CPU.

    A problem is a fit number with a C number.  ``steps`` are the problems (2, problems) to begin together: waves of C
    in ascending order, each starting where the solutions so far extrapolate to.  Problems that have not converged after
    all waves are finished together, in the rotated basis.
    """

    def __init__(self, asked: _Asked) -> None:
        self.asked, self.request, self.basis = asked, asked.request, asked.basis
        self.fits = fits = self.request.fits(asked.members).ordered(self.basis.order)
        self.continuation = Continuation()
        if asked.start is not None:
            start = asked.start.reshape(fits.count, fits.outputs, -1)
            self.continuation.add(list(range(fits.count)), self.request.Cs[:1], start)
        Cs, design = self.request.Cs, self.basis.design
        rows, columns = design.shape
        self.memory = asked.memory or max(MEMORY, rows * columns * design.element_size() // 4)
        held = rows if isinstance(design, Tensor) else design.chunk_rows
        shape = fits.count, len(Cs)
        self.found = Minima(
            torch.zeros(*shape, fits.outputs, columns, dtype=torch.float64),
            torch.zeros(shape, dtype=torch.float64),
            torch.zeros(shape, dtype=torch.int64),
        )
        self.counts = torch.stack([fits.counts(i) for i in range(fits.count)]).cpu()
        constant = torch.zeros(fits.count, dtype=torch.bool) if fits.softmax else (self.counts == 0).any(1)
        self.found.weights[constant, :, :, -1] = _base_rate(self.counts[constant])
        fitted = torch.nonzero(~constant)[:, 0]
        a_problem = fits.outputs * (LOGIT_COPIES * held + WEIGHT_COPIES * columns) * design.element_size()
        self.at_once = max(1, self.memory // a_problem)
        wide = max(WIDE, SMALL // (rows * columns))
        waves = max(1, len(Cs) // -(-wide // max(1, len(fitted) * fits.outputs)))
        self.steps: list[Tensor] = []
        for wave in np.array_split(np.argsort(Cs, kind="stable"), waves):
            every = torch.stack([fitted.repeat(len(wave)), torch.from_numpy(wave).repeat_interleave(len(fitted))])
            self.steps += _parts(every, self.at_once)
        self.bytes = a_problem * max((at.shape[1] for at in self.steps), default=0)
        self.shared = min(SHARED, self.memory) if fits.outputs * columns < LONG else 0
        limits = self.request.tol, self.request.max_iter
        self.shape = fits.outputs, columns, len(self.steps), *limits, design.dtype, design.device

    def problems(self, at: Tensor) -> tuple[PenalisedProblems, Tensor]:
        """Return the problems of a step, and where they start."""
        number, penalties = at[0], self.request.Cs[at[1].numpy()]
        problems, base_rates = problems_of(self.basis, self.fits, number, penalties)
        return problems, self.continuation.towards(number.tolist(), penalties, base_rates)

    def add(self, at: Tensor, minima: Minima) -> None:
        """Store the minima of a step."""
        self.continuation.add(at[0].tolist(), self.request.Cs[at[1].numpy()], minima.weights)
        self._keep(at, minima)

    def finish(self) -> None:
        """Solve what has not converged to the tolerance."""
        found, tol, max_iter = self.found, self.request.tol, self.request.max_iter
        late = torch.nonzero(~(found.gap <= tol) & (found.n_iter < max_iter)).T
        turn = self.basis.rotate() if late.shape[1] else None
        if turn is not None:
            found = self.found = replace(found, weights=found.weights @ turn.cpu())
        for at in _parts(late, self.at_once):
            number, c = at
            problems, _ = problems_of(self.basis, self.fits, number, self.request.Cs[c.numpy()])
            device = problems.design.device
            here = found.weights[number, c].to(device), found.gap[number, c].to(device), found.n_iter[number, c]
            minima = Minima(*here)
            finish(problems, minima, tol=tol, max_iter=max_iter, memory=self.memory)
            self._keep(at, minima)
        if self.fits.softmax:
            found.weights[..., -1] += torch.where(self.counts > 0, 0.0, -torch.inf)[:, None]

    def solutions(self) -> _Solutions:
        """Return the solutions, with the labels of each fold joined."""
        request, found = self.request, self.found
        by_label = (self.asked.members.shape[1], request.targets.shape[1], len(request.Cs))
        weights = found.weights.reshape(*by_label, *found.weights.shape[-2:]).transpose(1, 2).flatten(2, 3)
        gap, n_iter = found.gap.reshape(by_label), found.n_iter.reshape(by_label)
        return _Solutions(request, self.basis, weights, gap.amax(1), n_iter.amax(1))

    def _keep(self, at: Tensor, minima: Minima) -> None:
        number, c = at
        self.found.weights[number, c], self.found.gap[number, c] = minima.weights.cpu(), minima.gap.cpu()
        self.found.n_iter[number, c] = minima.n_iter


def _parts(at: Tensor, size: int) -> tuple[Tensor, ...]:
    """Return problems (2, problems) in parts of at most ``size``."""
    return tuple(at[:, first : first + size] for first in range(0, at.shape[1], size))


def _base_rate(counts: Tensor) -> Tensor:
    """Return the constant predictors' intercepts, from the rates (count + 1) / (rows + 2), (labels, 1, 1).

    ``counts`` (labels, 2).
    """
    smoothed = counts.double() + 1
    return (smoothed[:, 1] / smoothed[:, 0]).log()[:, None, None]
