"""What a fit along C returns, whichever solver found it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, TypeVar

import numpy as np

PREDICT_ROWS = 8192
T = TypeVar("T", covariant=True)


class Job(Protocol[T]):
    """Fits that wait: a solver may take several jobs on together."""

    def run(self) -> T:
        """Solve it alone."""


@dataclass(frozen=True)
class LogisticPath:
    """Solutions along C.  ``coef`` (Cs, outputs, dim) and ``intercept`` (Cs, outputs) are float64.

    A class without rows has intercept -inf: its probability is 0.  ``converged`` and ``n_iter`` (Cs,) are over all
    labels.  ``objective`` is scikit-learn's, in float64; ``gap`` the estimated relative distance to its minimum (nan
    where the solver tells none).
    """

    Cs: np.ndarray
    task: str
    coef: np.ndarray
    intercept: np.ndarray
    converged: np.ndarray
    n_iter: np.ndarray
    objective: np.ndarray
    gap: np.ndarray

    def decision_function(self, X: np.ndarray, c_index: int) -> np.ndarray:
        """Return the logits (rows, outputs) at one C, float64, a bounded number of rows at a time."""
        logits = np.empty((len(X), self.coef.shape[1]))
        for start in range(0, len(X), PREDICT_ROWS):
            rows = slice(start, start + PREDICT_ROWS)
            logits[rows] = np.asarray(X[rows], dtype=np.float64) @ self.coef[c_index].T + self.intercept[c_index]
        return logits

    def predict_proba(self, X: np.ndarray, c_index: int) -> np.ndarray:
        """Return P(class 1) (rows,) for binary, else probabilities (rows, outputs)."""
        return probabilities(self.decision_function(X, c_index), self.task)


@dataclass(frozen=True)
class FoldedPath:
    """Out-of-fold logits ``oof`` (Cs, rows, outputs), float32, and what fits all rows at the C that they choose.

    ``fold_converged`` is (folds, Cs).  ``refit_job(C)`` is to be solved for the path of that C alone.
    """

    oof: np.ndarray
    fold_converged: np.ndarray
    refit_job: Callable[[float], Job[LogisticPath]]

    def refit(self, C: float) -> LogisticPath:
        """Return the path of that C alone."""
        return self.refit_job(C).run()


def probabilities(logits: np.ndarray, task: str) -> np.ndarray:
    """Turn logits (rows, outputs) into probabilities: (rows,) for binary, else (rows, outputs)."""
    from scipy.special import expit, softmax

    if task == "binary":
        return np.asarray(expit(logits[:, 0]))
    return np.asarray(expit(logits) if task == "multilabel" else softmax(logits, axis=1))
