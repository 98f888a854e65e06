"""The solver as a scikit-learn classifier."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from numbers import Integral
from typing import Any, Literal

import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.model_selection import check_cv
from sklearn.utils import check_random_state
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, validate_data

from mt.errors import FitError
from mt.probe.solver.api import solve_folds, solve_paths, solve_refits
from mt.probe.solver.fits import probabilities
from mt.probe.solver.request import LogisticRequest, get_solver


class LogisticProbe(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """Logistic regression with an L2 penalty: scikit-learn's objective, with every C and fold solved at once.

    Parameters
    ----------
    C : one inverse penalty, or several.  Of several, cross-validation chooses the one with the lowest pooled
        out-of-fold log loss, in a tie the smallest.  If a class has fewer than two rows (groups), C is 1.
    cv : the number of stratified folds, reduced to the rows (groups) of the rarest class if it has fewer; or a
        scikit-learn splitter, or (train, test) pairs, that test every row once.
    random_state : the seed of the folds, or a RandomState; None draws other folds at every call.
    class_weight : None, "balanced", or a mapping from class to weight.
    solver : "torch", "sklearn" or "cuml".
    tol : estimated relative objective gap at which the solver stops.  With the default, an integer ``sample_weight``
        gives the coefficients of repeated rows to 1e-7.  1e-5 is enough for predictions, takes half as many iterations,
        and suits dtype="float32".
    max_iter, device, dtype : as in fit_logistic.

    Attributes
    ----------
    coef_ (1 or classes, dim), intercept_, classes_, n_features_in_, feature_names_in_ : as in LogisticRegression.
    C_ : the C that was given or chosen.
    log_loss_ : one mean out-of-fold log loss per C, ascending; None without cross-validation.
    n_iter_ : (1,) iterations.
    converged_ : whether the fit with C_ reached tol.
    """

    def __init__(
        self,
        C: float | Sequence[float] = 1.0,
        *,
        cv: Any = 5,
        random_state: Any = 0,
        class_weight: Mapping[Any, float] | Literal["balanced"] | None = None,
        solver: str = "torch",
        tol: float = 1e-17,
        max_iter: int = 1000,
        device: str = "auto",
        dtype: str = "float64",
    ) -> None:
        self.C = C
        self.cv = cv
        self.random_state = random_state
        self.class_weight = class_weight
        self.solver = solver
        self.tol = tol
        self.max_iter = max_iter
        self.device = device
        self.dtype = dtype

    def fit(
        self, X: Any, y: Any, sample_weight: np.ndarray | None = None, *, groups: Sequence[object] | None = None
    ) -> LogisticProbe:
        """Fit on features (rows, dim) and labels (rows,); the folds keep the rows of a group together.

        sample_weight: (rows,) the weight of each row.  groups: the group of each row.
        Raises ValueError for data that scikit-learn refuses, and FitError if ``cv`` does not test every row once.
        """
        X, y = validate_data(self, X, y, dtype=[np.float64, np.float32, np.float16])
        check_classification_targets(y)
        self.classes_, number = np.unique(y, return_inverse=True)
        Cs = np.unique(np.atleast_1d(np.asarray(self.C, dtype=np.float64)))
        task = "binary" if len(self.classes_) <= 2 else "multiclass"
        if sample_weight is not None:
            sample_weight = np.asarray(sample_weight, dtype=np.float64)
        request = LogisticRequest(
            X,
            number,
            Cs,
            task=task,
            sample_weight=sample_weight,
            class_weight=self._class_weight(),
            tol=self.tol,
            max_iter=self.max_iter,
            device=self.device,
            dtype=self.dtype,
        )
        solver = get_solver(self.solver)
        fold = self._folds(X, number, groups) if len(Cs) > 1 else None
        self.log_loss_ = None
        if fold is not None:
            folded = solve_folds([request], [fold], solver)
            self.log_loss_ = [_log_loss(logits, number, task, sample_weight) for logits in folded[0].oof]
            [path] = solve_refits([request.at(Cs[int(np.argmin(self.log_loss_))])], folded, solver)
        else:
            [path] = solve_paths([request if len(Cs) == 1 else request.at(1.0)], solver)
        self.C_ = float(path.Cs[0])
        self.coef_, self.intercept_ = path.coef[0], path.intercept[0]
        self.n_iter_ = np.maximum(path.n_iter, 1)
        self.converged_ = bool(path.converged[0])
        return self

    def decision_function(self, X: Any) -> np.ndarray:
        """Return logits of features (rows, dim): (rows,) for two classes, else (rows, classes)."""
        check_is_fitted(self)
        X = validate_data(self, X, reset=False, dtype=[np.float64, np.float32, np.float16])
        logits: np.ndarray = np.asarray(X, dtype=np.float64) @ self.coef_.T + self.intercept_
        return logits[:, 0] if len(self.classes_) == 2 else logits

    def predict_proba(self, X: Any) -> np.ndarray:
        """Return probabilities (rows, classes) of features (rows, dim), columns in the order of `classes_`."""
        logits = self.decision_function(X)
        if logits.ndim == 2:
            return probabilities(logits, "multiclass")
        present = probabilities(logits[:, None], "binary")
        return np.column_stack([1 - present, present])

    def predict(self, X: Any) -> np.ndarray:
        """Return the most probable class (rows,) of features (rows, dim)."""
        logits = self.decision_function(X)
        chosen = logits.argmax(1) if logits.ndim == 2 else (logits > 0).astype(np.intp)
        classes: np.ndarray = self.classes_[chosen]
        return classes

    def _class_weight(self) -> dict[int, float] | Literal["balanced"] | None:
        """Return the class weights by class number; classes without rows are omitted."""
        if not isinstance(self.class_weight, Mapping):
            return self.class_weight
        return {i: self.class_weight[c] for i, c in enumerate(self.classes_.tolist()) if c in self.class_weight}

    def _folds(self, X: np.ndarray, number: np.ndarray, groups: Sequence[object] | None) -> np.ndarray | None:
        """Return the fold of each row (rows,); None if a class has too few rows or groups to hold any out."""
        if not isinstance(self.cv, Integral):
            splits = check_cv(self.cv, number, classifier=True).split(X, number, groups)
            return _numbered([test for _, test in splits], len(number))
        from mt.probe.budgets.draw import folds

        seed, classes = self.random_state, len(self.classes_)
        if not isinstance(seed, Integral):
            seed = check_random_state(seed).randint(np.iinfo(np.int32).max)
        task = "binary" if classes <= 2 else "multiclass"
        return folds(number, task=task, n_classes=max(2, classes), k=int(self.cv), groups=groups, seed=int(seed))


def _numbered(tests: list[np.ndarray], rows: int) -> np.ndarray:
    """Return the number of the test set (rows,) that each row is in.  Raises FitError unless it is in exactly one."""
    times, fold = np.zeros(rows, dtype=np.int64), np.zeros(rows, dtype=np.int64)
    for number, test in enumerate(tests):
        times[test] += 1
        fold[test] = number
    if (times != 1).any():
        row = int(np.flatnonzero(times != 1)[0])
        raise FitError(f"cv must test every row once; it tests row {row} {times[row]} times. Use cv=5, or KFold.")
    return fold


def _log_loss(logits: np.ndarray, number: np.ndarray, task: str, sample_weight: np.ndarray | None) -> float:
    """Return the mean log loss of logits (rows, outputs); a class that a fold lacked costs -log(eps)."""
    p = probabilities(logits.astype(np.float64), task)
    own = np.where(number == 1, p, 1 - p) if task == "binary" else p[np.arange(len(number)), number]
    return float(np.average(-np.log(np.maximum(own, np.finfo(np.float64).eps)), weights=sample_weight))
