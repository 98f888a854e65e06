"""What a fit along C returns, whichever solver found it, and where the next fits along C start."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

if TYPE_CHECKING:
    from mt.probe.solver.basis import Basis

PREDICT_ROWS = 8192


@dataclass(frozen=True)
class LogisticPath:
    """Solutions along C.  ``coef`` (Cs, outputs, dim) and ``intercept`` (Cs, outputs) are float64.

    A class without rows has intercept -inf: its probability is 0.  ``converged`` and ``n_iter`` (Cs,) are over all
    labels.  ``objective`` is scikit-learn's, in float64; ``gap`` the estimated relative distance to its minimum (NaN
    if the solver does not report it).
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
    """Out-of-fold logits ``oof`` (Cs, rows, outputs), float32; ``fold_converged`` is (folds, Cs).

    ``start`` is where a refit on all rows starts; None for a solver that starts from zero.
    """

    oof: np.ndarray
    fold_converged: np.ndarray
    start: RefitStart | None = None


@dataclass(frozen=True)
class RefitStart:
    """The folds' mean solutions: coef (Cs, outputs, dim) and intercept (Cs, outputs) on the features, and their basis.

    They are on the features since a refit may rotate the basis.
    """

    basis: Basis
    Cs: np.ndarray
    coef: Tensor
    intercept: Tensor

    def at(self, C: float) -> Tensor:
        """Return the weights in the basis (outputs, columns) of the solution whose C is nearest."""
        nearest = int(np.abs(np.log(self.Cs / C)).argmin())
        return self.basis.to_weights(self.coef[nearest], self.intercept[nearest])


class Continuation:
    """The latest two solutions of each path along C, from which its next fit starts."""

    def __init__(self) -> None:
        self.latest: dict[int, list[tuple[float, Tensor]]] = {}

    def add(self, paths: list[int], Cs: np.ndarray, weights: Tensor) -> None:
        """Remember solutions (problems, outputs, columns) of these paths at these C."""
        finite = torch.nan_to_num(weights, neginf=0.0)  # the intercept of a class without rows
        for path, C, solution in zip(paths, np.broadcast_to(Cs, len(paths)), finite, strict=True):
            self.latest[path] = [*self.latest.get(path, []), (float(np.log(C)), solution)][-2:]

    def towards(self, paths: list[int], Cs: np.ndarray, otherwise: Tensor) -> Tensor:
        """Return starts at these C: each path's latest two solutions extrapolated in log C, at most one step ahead.

        ``otherwise`` holds the starts (problems, outputs, columns) of paths without solutions.  Ten labels of which
        some separate take a third fewer iterations from there than from the latest solutions.
        """
        start = otherwise.clone()
        for problem, (path, C) in enumerate(zip(paths, Cs, strict=True)):
            if path in self.latest:
                (before, first), (now, last) = self.latest[path][0], self.latest[path][-1]
                ahead = (np.log(C) - now) / (now - before) if now > before else 0.0
                start[problem] = last + min(ahead, 1.0) * (last - first)
        return start


def probabilities(logits: np.ndarray, task: str) -> np.ndarray:
    """Turn logits (rows, outputs) into probabilities: (rows,) for binary, else (rows, outputs)."""
    from scipy.special import expit, softmax

    if task == "binary":
        return np.asarray(expit(logits[:, 0]))
    return np.asarray(expit(logits) if task == "multilabel" else softmax(logits, axis=1))
