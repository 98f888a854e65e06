"""Fits along C with scikit-learn or cuML: each fold, label and C takes a call of its own."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from mt.errors import FitError, InputError
from mt.probe.solver.fits import CheckedRequest, FoldedPath, LogisticPath
from mt.probe.solver.request import LogisticRequest, check_dtype, check_folds

# scikit-learn stops on the largest entry of the gradient of the mean loss.
REFERENCE_TOL = 1e-8


def solve_paths(requests: Sequence[LogisticRequest], solver: str) -> list[LogisticPath]:
    """Fit all rows of each request at every C."""
    paths = []
    for request in requests:
        checked = _checked(request, solver)
        checked.refuse_constant_labels()
        paths.append(_path(checked, _fit_rows(checked, checked.all_rows(), solver)))
    return paths


def solve_refits(requests: Sequence[LogisticRequest], solver: str) -> list[LogisticPath]:
    """Fit all rows of each request; a label with one class predicts its smoothed base rate."""
    every = [_checked(request, solver) for request in requests]
    return [_path(checked, _fit_rows(checked, checked.all_rows(), solver)) for checked in every]


def solve_folds(requests: Sequence[LogisticRequest], folds: Sequence[np.ndarray], solver: str) -> list[FoldedPath]:
    """Fit the rows of each request outside each of its folds at every C and predict the fold."""
    return [_out_of_fold(request, fold, solver) for request, fold in zip(requests, folds, strict=True)]


def _out_of_fold(request: LogisticRequest, fold: np.ndarray, solver: str) -> FoldedPath:
    checked = _checked(request, solver)
    number = check_folds(fold, len(checked.X))
    oof = np.empty((len(checked.Cs), len(checked.X), checked.outputs), dtype=np.float32)
    members, converged = checked.all_but_each(number), []
    for k in range(members.shape[1]):
        fitted = _fit_rows(checked, members[:, k : k + 1], solver)
        held_out = np.asarray(checked.X[number == k], dtype=np.float64)
        oof[:, number == k] = held_out @ fitted.coef.transpose(0, 2, 1) + fitted.intercept[:, None]
        converged.append(fitted.converged)
    return FoldedPath(oof, np.stack(converged))


def _checked(request: LogisticRequest, solver: str) -> CheckedRequest:
    """Check a request.  Its dtype is ignored: these solvers compute in float64, on their own device.

    Raises InputError if the request names another device, and FitError for features that are not finite.
    """
    if request.device != "auto" and torch.device(request.device).type != ("cuda" if solver == "cuml" else "cpu"):
        raise InputError(f"Solver '{solver}' does not run on '{request.device}'. Take --solver torch, or --device auto")
    check_dtype(request.dtype)
    checked = CheckedRequest.of(request, torch.device("cpu"))
    if isinstance(checked.X, np.ndarray) and not np.isfinite(checked.X).all():
        raise FitError("Features must be finite, found NaN or infinity.")
    return checked


@dataclass(frozen=True)
class OneFit:
    """Coefficients (outputs, dim), intercepts (outputs,), iterations, and whether they stayed below the limit."""

    coef: np.ndarray
    intercept: np.ndarray
    n_iter: int
    converged: bool


def _fit_sklearn(X: np.ndarray, y: np.ndarray, weight: np.ndarray, C: float, max_iter: int) -> OneFit:
    """Fit scikit-learn's lbfgs from zero.

    lbfgs warns if float64 allows no further decrease; that counts as converged.
    """
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    model = LogisticRegression(C=C, tol=REFERENCE_TOL, max_iter=max_iter)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        model.fit(X, y, sample_weight=weight)
    n_iter = int(model.n_iter_.max())
    return OneFit(model.coef_, model.intercept_, n_iter, n_iter < max_iter)


def _fit_cuml(X: np.ndarray, y: np.ndarray, weight: np.ndarray, C: float, max_iter: int) -> OneFit:
    """Fit cuML's quasi-Newton solver in float64.  Its own scaling of C follows scikit-learn's."""
    from cuml.linear_model import LogisticRegression

    model = LogisticRegression(C=C, tol=REFERENCE_TOL, max_iter=max_iter, output_type="numpy")
    model.fit(X, y, sample_weight=weight)
    n_iter = int(np.max(model.n_iter_))
    return OneFit(np.asarray(model.coef_), np.asarray(model.intercept_).reshape(-1), n_iter, n_iter < max_iter)


# features (rows, dim), class numbers (rows,), row weights (rows,), C, max_iter  ->  the fit; binary has one output.
FIT_ONE: dict[str, Callable[[np.ndarray, np.ndarray, np.ndarray, float, int], OneFit]] = {
    "sklearn": _fit_sklearn,
    "cuml": _fit_cuml,
}


@dataclass(frozen=True)
class _RowsFit:
    """The fits of one set of rows: coef (Cs, outputs, dim), intercept (Cs, outputs), n_iter and converged (Cs,)."""

    coef: np.ndarray
    intercept: np.ndarray
    n_iter: np.ndarray
    converged: np.ndarray


def _fit_rows(request: CheckedRequest, members: Tensor, solver: str) -> _RowsFit:
    """Fit one set of rows, every label at every C; classes without rows get intercept -inf."""
    features = np.asarray(request.X, dtype=np.float64)
    fits, shape = request.fits(members), (len(request.Cs), request.outputs)
    coef, intercept = np.zeros((*shape, features.shape[1])), np.full(shape, -np.inf)
    n_iter, converged = np.zeros(len(request.Cs), dtype=np.int64), np.ones(len(request.Cs), dtype=bool)
    for label in range(fits.count):
        classes, weight = fits.classes(label).cpu().numpy(), fits.weights(label).cpu().numpy()
        rows = weight > 0
        present, number = np.unique(classes[rows], return_inverse=True)
        outputs = present if fits.softmax else np.array([label])
        if len(present) < 2:
            # One class only: softmax gives it probability 1; a label gets its smoothed base rate, ½ without rows.
            ones = int(classes[rows].sum())
            intercept[:, outputs] = 0 if fits.softmax else np.log((ones + 1) / (len(number) - ones + 1))
            continue
        for c, penalty in enumerate(request.Cs):
            # Two classes: the softmax with weights ±w/2 has the penalty ¼‖w‖², half of that on one weight vector w.
            both = fits.softmax and len(present) == 2
            C = float(2 * penalty if both else penalty)
            one = FIT_ONE[solver](features[rows], number, weight[rows], C, request.max_iter)
            coef[c, outputs] = one.coef * [[-0.5], [0.5]] if both else one.coef
            intercept[c, outputs] = one.intercept * [-0.5, 0.5] if both else one.intercept
            n_iter[c], converged[c] = max(n_iter[c], one.n_iter), converged[c] and one.converged
    return _RowsFit(coef, intercept, n_iter, converged)


def _path(request: CheckedRequest, fitted: _RowsFit) -> LogisticPath:
    return request.path(
        torch.from_numpy(fitted.coef),
        torch.from_numpy(fitted.intercept),
        gap=np.full(len(fitted.coef), np.nan),
        n_iter=fitted.n_iter,
        converged=fitted.converged,
    )
