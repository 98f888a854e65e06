"""Logistic regression with an L2 penalty at many C, for every label and fold at once.

The objective is scikit-learn's: ``C · Σ sample_weight · loss + ½ ‖w‖²``, the intercept unpenalised; one weight vector
for `binary`, one a label for `multilabel`, multinomial for `multiclass` and `ordinal` (with two classes as well).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import numpy as np
import torch
from torch import Tensor

from mt.errors import InputError, unknown
from mt.probe.solver.basis import Basis, build_basis
from mt.probe.solver.batches import Grid, solve
from mt.probe.solver.checks import ClassWeight, check_folds, refuse_constant_labels
from mt.probe.solver.continuation import Paths
from mt.probe.solver.lbfgs import Fit
from mt.probe.solver.paths import FoldedPath, LogisticPath, probabilities
from mt.probe.solver.request import Request

__all__ = ["FoldedPath", "LogisticPath", "fit_logistic", "fit_path_folds", "probabilities"]

DTYPES = {"float32": torch.float32, "float64": torch.float64}
T = TypeVar("T")


def fit_logistic(
    X: np.ndarray, y: np.ndarray, Cs: Sequence[float] | np.ndarray, *, task: str,
    sample_weight: np.ndarray | None = None, class_weight: ClassWeight = None, tol: float = 1e-5, max_iter: int = 1000,
    device: str = "auto", dtype: str = "float32", n_classes: int | None = None, memory: int | None = None,
) -> LogisticPath:  # fmt: skip
    """Fit every C (and label) together.

    ``X`` (rows, dim), any real type, may be memory-mapped or strided; ``y`` class numbers, or (rows, labels) of 0/1.
    Iteration stops at an estimated relative objective gap of ``tol``.  ``dtype`` is that of the centred features and
    the products with them, and of their eigenbasis where that only scales; all else is float64.  ``n_classes`` declares
    classes beyond those present, which get probability 0; ``memory`` is the bytes that problems solved at once may
    take.

    Raises FitError for labels of one class only, outside the task or of another length, for NaN, and for C <= 0.
    Warns ConvergenceWarning with the numbers.
    """
    job = path_job(
        X, y, Cs, task=task, n_classes=n_classes, sample_weight=sample_weight, class_weight=class_weight, tol=tol,
        max_iter=max_iter, device=device, dtype=dtype, memory=memory,
    )  # fmt: skip
    return job.run()


def fit_path_folds(
    X: np.ndarray, y: np.ndarray, Cs: Sequence[float] | np.ndarray, fold: np.ndarray, **options: Any
) -> FoldedPath:
    """Fit every C on the rows outside each fold and predict that fold; what is returned refits all rows at one C.

    ``fold`` (rows,) numbers the folds from 0.  One basis serves all; it uses all rows and no label.  Each fold's fits
    see the labels of their own rows alone.  A label with one class in a fit's rows predicts its smoothed base rate.
    The options are those of fit_logistic.
    """
    return folds_job(X, y, Cs, fold, **options).run()


def path_job(
    X: np.ndarray, y: np.ndarray, Cs: Sequence[float] | np.ndarray, *, dtype: str = "float32",
    memory: int | None = None, **options: Any,
) -> BatchedJob[LogisticPath]:  # fmt: skip
    """Return what fit_logistic does as a job, to be solved with others; all but NaN is checked now."""
    request = _request(X, y, Cs, **options)
    if request.task == "multilabel":
        refuse_constant_labels(request.targets[request.sample_weight > 0].cpu().numpy())
    precision = _dtype(dtype)

    def basis() -> Basis:
        return build_basis(request.X, dtype=precision, device=request.device)

    return BatchedJob(request, basis, request.whole(), memory, lambda fits: fits.path(0))


def folds_job(
    X: np.ndarray, y: np.ndarray, Cs: Sequence[float] | np.ndarray, fold: np.ndarray, *, dtype: str = "float32",
    memory: int | None = None, **options: Any,
) -> BatchedJob[FoldedPath]:  # fmt: skip
    """Return what fit_path_folds does as a job, to be solved with others; all but NaN is checked now."""
    request, precision = _request(X, y, Cs, **options), _dtype(dtype)
    number = check_folds(fold, len(request.X))
    # Fold by fold: so the rows that a fit leaves out lie together, and its products leave them out too.
    order = np.argsort(number, kind="stable")

    def basis() -> Basis:
        return build_basis(request.X, dtype=precision, device=request.device, order=order)

    def folded(fits: _Fits) -> FoldedPath:
        oof = np.empty((len(request.Cs), len(number), request.outputs), dtype=np.float32)
        for k in range(len(fits.weights)):
            first, last = np.searchsorted(number[order], [k, k + 1])
            oof[:, order[first:last]] = fits.logits(k, slice(first, last))
        # On the features, since a refit may rotate the basis.
        found_in, (coef, intercept) = fits.basis, fits.basis.to_features(fits.weights.mean(0).to(request.device))

        def refit(C: float) -> BatchedJob[LogisticPath]:
            nearest = int(np.abs(np.log(request.Cs / C)).argmin())
            start = coef[nearest], intercept[nearest]
            return BatchedJob(
                request.at([C]), lambda: found_in, request.whole(), memory, lambda refitted: refitted.path(0), start
            )

        return FoldedPath(oof, (fits.gap <= request.tol).numpy(), refit)

    return BatchedJob(request, basis, request.without_each(number), memory, folded)


@dataclass(frozen=True)
class BatchedJob(Generic[T]):
    """Fits of one draw that wait to be solved: each column of ``members`` (rows, folds) at every C of the request.

    ``outcome`` makes of the solutions what was asked for.  ``start`` holds coefficients and intercepts to start from.
    """

    request: Request
    basis: Callable[[], Basis]
    members: Tensor
    memory: int | None
    outcome: Callable[[_Fits], T]
    start: tuple[Tensor, Tensor] | None = None

    def run(self) -> T:
        """Solve it alone."""
        outcome: T = solve_jobs([self])[0]
        return outcome


def solve_jobs(jobs: Sequence[BatchedJob[Any]]) -> list[Any]:
    """Return the jobs' outcomes, the small ones of one shape solved together as far as memory allows.

    All their features are held at once, centred.
    """
    grids = [_grid(job) for job in jobs]
    if len({id(grid.basis) for grid in grids}) < len(grids):
        return [job.run() for job in jobs]  # one may rotate the basis of another
    solved = solve(grids)
    return [job.outcome(_Fits.of(job, grid, fit)) for job, grid, fit in zip(jobs, grids, solved, strict=True)]


def _grid(job: BatchedJob[Any]) -> Grid:
    """Return the problems of a job in the basis of its features."""
    request, basis, paths = job.request, job.basis(), Paths()
    groups = request.groups(job.members).ordered(basis.order)
    if job.start is not None:
        start = basis.to_weights(*job.start)
        paths.add(list(range(groups.count)), request.Cs[:1], start.reshape(groups.count, groups.outputs, -1))
    return Grid(basis, groups, request.Cs, paths, request.tol, request.max_iter, job.memory)


def _request(
    X: np.ndarray, y: np.ndarray, Cs: Sequence[float] | np.ndarray, *, task: str, n_classes: int | None = None,
    sample_weight: np.ndarray | None = None, class_weight: ClassWeight = None, tol: float = 1e-5, max_iter: int = 1000,
    device: str = "auto",
) -> Request:  # fmt: skip
    return Request.check(
        X, y, Cs, task=task, n_classes=n_classes, sample_weight=sample_weight, class_weight=class_weight,
        tol=tol, max_iter=max_iter, device=torch_device(device),
    )  # fmt: skip


def _dtype(name: str) -> torch.dtype:
    if name not in DTYPES:
        raise unknown("dtype", name, DTYPES, see="help(mt.fit_logistic)")
    return DTYPES[name]


def torch_device(name: str) -> torch.device:
    """Return the device of that name; "auto" is the first CUDA device, or the CPU.

    Raises InputError for an unknown device, and for one without float64 (Apple's mps).
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        torch.zeros(1, dtype=torch.float64, device=name)
    except (RuntimeError, TypeError, AssertionError) as reason:
        raise InputError(
            f"Logistic regression cannot run on device '{name}': it needs float64 there. Take --device cpu"
        ) from reason
    return torch.device(name)


@dataclass(frozen=True)
class _Fits:
    """Solutions: weights (folds, Cs, outputs, columns); gap and n_iter (folds, Cs), the largest of the labels."""

    request: Request
    basis: Basis
    weights: Tensor
    gap: Tensor
    n_iter: Tensor

    @classmethod
    def of(cls, job: BatchedJob[Any], grid: Grid, fits: Fit) -> _Fits:
        request, groups = job.request, grid.groups
        by_label = (job.members.shape[1], request.targets.shape[1], len(request.Cs))
        weights = fits.weights.reshape(*by_label, groups.outputs, -1).transpose(1, 2).flatten(2, 3)
        gap, n_iter = fits.gap.reshape(by_label), fits.n_iter.reshape(by_label)
        return cls(request, grid.basis, weights, gap.amax(1), n_iter.amax(1))

    def logits(self, k: int, rows: slice) -> np.ndarray:
        """Return fold k's logits (Cs, rows, outputs) of some rows of the basis."""
        chosen, weights = self.basis.design[rows], self.weights[k]
        flat = chosen @ weights.flatten(0, 1).to(chosen).T
        logits: np.ndarray = flat.reshape(len(chosen), *weights.shape[:2]).transpose(0, 1).cpu().numpy()
        return logits

    def path(self, k: int) -> LogisticPath:
        """Return fold k's solutions as coefficients on the features."""
        coef, intercept = self.basis.to_features(self.weights[k].to(self.request.device))
        return self.request.path(
            coef, intercept, gap=self.gap[k].numpy(), n_iter=self.n_iter[k].numpy(),
            converged=(self.gap[k] <= self.request.tol).numpy(),
        )  # fmt: skip
