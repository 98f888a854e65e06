"""The solver as a scikit-learn classifier."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, validate_data

from mt.probe.solver.paths import probabilities
from mt.probe.solver.registry import get_solver
from mt.probe.solver.request import LogisticRequest

# scikit-learn's estimator checks that LogisticProbe is known to fail, with the reason of each.
EXPECTED_FAILED_CHECKS = {
    "check_sample_weight_equivalence_on_dense_data": (
        "a weight of 2 and a repeated row have one optimum, but iterations stop at an objective gap: coefficients "
        "agree to about the root of tol, not to rounding"
    ),
}


class LogisticProbe(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """Logistic regression with an L2 penalty: scikit-learn's objective, every C and fold solved at once.

    Parameters
    ----------
    C : one inverse penalty, or several of which cross-validation chooses by pooled out-of-fold log loss, ties to the
        smaller; with fewer than two rows (groups) of a class, C = 1 is taken.
    cv : the number of folds, stratified, at most the rows (groups) of the rarest class.
    seed : of the folds.
    class_weight : None, "balanced", or a mapping from class to weight.
    solver : "torch", "sklearn" or "cuml"; tol, max_iter, device, dtype: as in fit_logistic.

    Attributes
    ----------
    coef_ (1 or classes, dim), intercept_, classes_, n_features_in_, feature_names_in_ : as in LogisticRegression.
    C_ : the C that was given or chosen;  log_loss_ : a mean out-of-fold log loss a C, or None.
    n_iter_ : (1,) iterations;  converged_ : whether the fit with C_ reached tol.
    """

    def __init__(
        self, C: float | Sequence[float] = 1.0, *, cv: int = 5, seed: int = 0,
        class_weight: Mapping[Any, float] | Literal["balanced"] | None = None, solver: str = "torch",
        tol: float = 1e-5, max_iter: int = 1000, device: str = "auto", dtype: str = "float64",
    ) -> None:  # fmt: skip
        self.C = C
        self.cv = cv
        self.seed = seed
        self.class_weight = class_weight
        self.solver = solver
        self.tol = tol
        self.max_iter = max_iter
        self.device = device
        self.dtype = dtype

    def fit(
        self, X: Any, y: Any, sample_weight: np.ndarray | None = None, *, groups: Sequence[object] | None = None
    ) -> LogisticProbe:
        """Fit on features (rows, dim) and labels (rows,); ``groups`` are kept together by the folds."""
        X, y = validate_data(self, X, y, dtype=[np.float64, np.float32, np.float16])
        check_classification_targets(y)
        self.classes_, number = np.unique(y, return_inverse=True)
        Cs = np.unique(np.atleast_1d(np.asarray(self.C, dtype=np.float64)))
        task = "binary" if len(self.classes_) <= 2 else "multiclass"
        request = LogisticRequest(
            X, number, Cs, task=task, sample_weight=sample_weight, class_weight=self._class_weight(), tol=self.tol,
            max_iter=self.max_iter, device=self.device, dtype=self.dtype,
        )  # fmt: skip
        solver = get_solver(self.solver)
        fold = self._folds(number, groups) if len(Cs) > 1 else None
        self.log_loss_ = None
        if fold is not None:
            folded = solver.folds([request], [fold])
            self.log_loss_ = [_log_loss(logits, number, task) for logits in folded[0].oof]
            [path] = solver.refits([request.at(Cs[int(np.argmin(self.log_loss_))])], folded)
        else:
            [path] = solver.paths([request if len(Cs) == 1 else request.at(1.0)])
        self.C_ = float(path.Cs[0])
        self.coef_, self.intercept_ = path.coef[0], path.intercept[0]
        self.n_iter_ = np.maximum(path.n_iter, 1)
        self.converged_ = bool(path.converged[0])
        return self

    def decision_function(self, X: Any) -> np.ndarray:
        """Return logits: (rows,) for two classes, else (rows, classes)."""
        check_is_fitted(self)
        X = validate_data(self, X, reset=False, dtype=[np.float64, np.float32, np.float16])
        logits: np.ndarray = np.asarray(X, dtype=np.float64) @ self.coef_.T + self.intercept_
        return logits[:, 0] if len(self.classes_) == 2 else logits

    def predict_proba(self, X: Any) -> np.ndarray:
        """Return probabilities (rows, classes)."""
        logits = self.decision_function(X)
        if logits.ndim == 2:
            return probabilities(logits, "multiclass")
        present = probabilities(logits[:, None], "binary")
        return np.column_stack([1 - present, present])

    def predict(self, X: Any) -> np.ndarray:
        """Return the most probable class of each row."""
        logits = self.decision_function(X)
        chosen = logits.argmax(1) if logits.ndim == 2 else (logits > 0).astype(np.intp)
        classes: np.ndarray = self.classes_[chosen]
        return classes

    def _class_weight(self) -> dict[int, float] | Literal["balanced"] | None:
        """Return the class weights by class number; classes that the labels lack are left out."""
        if not isinstance(self.class_weight, Mapping):
            return self.class_weight
        return {i: self.class_weight[c] for i, c in enumerate(self.classes_.tolist()) if c in self.class_weight}

    def _folds(self, number: np.ndarray, groups: Sequence[object] | None) -> np.ndarray | None:
        from mt.probe.budgets.draw import folds

        classes = len(self.classes_)
        task = "binary" if classes <= 2 else "multiclass"
        return folds(number, task=task, n_classes=max(2, classes), k=self.cv, groups=groups, seed=self.seed)


def _log_loss(logits: np.ndarray, number: np.ndarray, task: str) -> float:
    """Return the mean log loss of logits (rows, outputs); a class that a fold lacked costs -log(eps)."""
    p = probabilities(logits.astype(np.float64), task)
    own = np.where(number == 1, p, 1 - p) if task == "binary" else p[np.arange(len(number)), number]
    return float(-np.log(np.maximum(own, np.finfo(np.float64).eps)).mean())
