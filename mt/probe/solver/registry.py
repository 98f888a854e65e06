"""The solvers of logistic regression to choose from, all with one interface.

`torch` is ours; `sklearn` is the reference, fitted cold to a tight tolerance in float64, one problem at a time; `cuml`
is NVIDIA's, on a GPU.
"""

from __future__ import annotations

import importlib.util
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from mt.errors import FitError, InputError, MissingExtraError, unknown
from mt.probe.solver.api import DTYPES, folds_job, path_job, solve_jobs
from mt.probe.solver.checks import ClassWeight, check_folds, refuse_constant_labels
from mt.probe.solver.paths import FoldedPath, Job, LogisticPath
from mt.probe.solver.reference import FitOne, OneFit, OneJob, folds_one_by_one, path_one_by_one
from mt.probe.solver.request import Request

# scikit-learn stops on the largest entry of the gradient of the mean loss.
REFERENCE_TOL = 1e-8


@dataclass(frozen=True)
class Solver:
    """Fits logistic regressions along C: ``path`` makes a job of fit_logistic's work, ``folds`` of fit_path_folds'.

    ``solve`` does several jobs and returns what each gives; ``batched`` says whether that is less work than one after
    another.  ``revision`` is raised whenever the solver's numbers change; scores remember it.
    """

    name: str
    revision: int
    path: Callable[..., Job[LogisticPath]]
    folds: Callable[..., Job[FoldedPath]]
    solve: Callable[[Sequence[Any]], list[Any]]
    batched: bool


def get_solver(name: str) -> Solver:
    """Return the solver of that name.

    Raises InputError for an unknown name and MissingExtraError where it is not installed.
    """
    if name not in SOLVERS:
        raise unknown("solver", name, SOLVERS, see="mt probe --help")
    if name == "cuml" and importlib.util.find_spec("cuml") is None:
        raise MissingExtraError(
            "Solver 'cuml' needs the package cuml and an NVIDIA GPU, and cuml is not installed. "
            "Install it: pip install 'medical-transfer[gpu]', or take --solver torch"
        )
    return SOLVERS[name]


def _fit_sklearn(X: np.ndarray, y: np.ndarray, weight: np.ndarray, C: float, max_iter: int) -> OneFit:
    """Fit scikit-learn's lbfgs from zero.  Where float64 has no more to give, lbfgs says so: that is converged."""
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


def _one_by_one(name: str, fit: Callable[[np.ndarray, np.ndarray, np.ndarray, float, int], OneFit]) -> Solver:
    """Return the solver that calls ``fit`` for every fold, label and C."""

    def request(
        X: np.ndarray, y: np.ndarray, Cs: Sequence[float] | np.ndarray, *, task: str, n_classes: int | None = None,
        sample_weight: np.ndarray | None = None, class_weight: ClassWeight = None, tol: float = 1e-5,
        max_iter: int = 1000, device: str = "auto", dtype: str = "float64",
    ) -> tuple[Request, FitOne]:  # fmt: skip
        """Check a call.  The device is the solver's own and the precision float64, whatever is asked for."""
        if device != "auto" and torch.device(device).type != ("cuda" if name == "cuml" else "cpu"):
            raise InputError(f"Solver '{name}' does not run on '{device}'. Take --solver torch, or --device auto")
        if dtype not in DTYPES:
            raise unknown("dtype", dtype, DTYPES, see="help(mt.fit_logistic)")
        checked = Request.check(
            X, y, Cs, task=task, n_classes=n_classes, sample_weight=sample_weight, class_weight=class_weight,
            tol=tol, max_iter=max_iter, device=torch.device("cpu"),
        )  # fmt: skip
        if not np.isfinite(checked.X).all():
            raise FitError("Features must be finite, found NaN or infinity.")
        return checked, lambda X, y, weight, C: fit(X, y, weight, C, max_iter)

    def path(X: np.ndarray, y: np.ndarray, Cs: Sequence[float] | np.ndarray, **options: Any) -> OneJob[LogisticPath]:
        checked, fit_one = request(X, y, Cs, **options)
        if checked.task == "multilabel":
            refuse_constant_labels(checked.targets[checked.sample_weight > 0].numpy())
        return OneJob(lambda: path_one_by_one(checked, fit_one))

    def folds(
        X: np.ndarray, y: np.ndarray, Cs: Sequence[float] | np.ndarray, fold: np.ndarray, **options: Any
    ) -> OneJob[FoldedPath]:
        checked, fit_one = request(X, y, Cs, **options)
        number = check_folds(fold, len(checked.X))
        return OneJob(lambda: folds_one_by_one(checked, fit_one, number))

    return Solver(name, 1, path, folds, lambda jobs: [job.run() for job in jobs], batched=False)


SOLVERS = {
    "torch": Solver("torch", 7, path_job, folds_job, solve_jobs, batched=True),
    "sklearn": _one_by_one("sklearn", _fit_sklearn),
    "cuml": _one_by_one("cuml", _fit_cuml),
}
