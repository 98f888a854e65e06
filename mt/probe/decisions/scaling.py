"""Temperature and Platt scaling, fitted on out-of-fold probabilities: calibration inside the budget.

Temperature: softmax(log p / T) for several classes, sigmoid(logit p / T) for two; one T (Guo et al., ICML 2017).
Platt: sigmoid(a + b logit p) for two classes (Platt, "Probabilistic Outputs for Support Vector Machines", 1999).
In multilabel tasks each label has its own scaling.

Both minimise the log loss against smoothed targets, which keep the solution finite if the scores separate the classes.
Of two classes they are Platt's: for a row of class k, (N_k + 1) / (N_k + 2) for its own class.  Of K > 2 classes, where
one T is fitted on all N rows, they are (N + 1) / (N + 2) for the row's own class and 1 / ((N + 2) (K - 1)) for each
other.  Platt's rule with K classes, (N_k + 1) / (N_k + K), leaves ten rows of each of ten classes a target of 0.55:
the temperature was three times too high (docs/protocols.md).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from mt.errors import InputError
from mt.probe.scores.calibration import LEAST_P, logit
from mt.types import MISSING, Array

KINDS = ("temperature", "platt")
_REVISIONS = {"multiclass": 2, "ordinal": 2}  # of tasks, else 1; raised whenever scaled probabilities change
LEAST = 2  # cases of each class (or of each value of a label); with fewer, nothing is scaled
_SLOPES = (0.05, 20.0)  # limits of 1 / T: no scaling outside is useful, and a negative slope would reverse the ranks
_STEPS = 100  # of each bisection


@dataclass(frozen=True)
class Scaled:
    """Scaling of probabilities: slope (1 / T) and intercept of the logits, one per label.

    Slope 1 and intercept 0 change nothing.
    """

    kind: str
    slope: tuple[float, ...]
    intercept: tuple[float, ...]

    def facts(self) -> dict[str, Any]:
        """Return the scaling as a JSON object, as a saved model stores it."""
        return {"kind": self.kind, "slope": list(self.slope), "intercept": list(self.intercept)}

    @classmethod
    def of(cls, facts: Mapping[str, Any]) -> Scaled:
        """Return the scaling that `facts` describe."""
        return cls(facts["kind"], tuple(facts["slope"]), tuple(facts["intercept"]))

    @property
    def fitted(self) -> bool:
        """Whether it changes probabilities."""
        return any(slope != 1 for slope in self.slope) or any(self.intercept)

    def apply(self, p: Array, task: str) -> npt.NDArray[np.float32]:
        """Return scaled probabilities of the same shape: (n,) or (n, 2) binary, (n, K), or (n, L) multilabel."""
        if not self.fitted:
            return np.asarray(p, dtype=np.float32)
        if task == "multilabel":
            columns = [_sigmoid(a + b * logit(p[:, k].astype(np.float64))) for k, (a, b) in enumerate(self._lines())]
            return np.stack(columns, axis=1).astype(np.float32)
        (a, b), *_ = self._lines()
        if task == "binary":
            positive = _sigmoid(a + b * logit((p if p.ndim == 1 else p[:, 1]).astype(np.float64)))
            return np.asarray(positive if p.ndim == 1 else np.column_stack([1 - positive, positive]), dtype=np.float32)
        return _softmax(b * np.log(np.clip(p.astype(np.float64), LEAST_P, 1))).astype(np.float32)

    def _lines(self) -> list[tuple[float, float]]:
        return list(zip(self.intercept, self.slope, strict=True))


def revision(task: str) -> int:
    """Return the revision of the scaling of a task."""
    return _REVISIONS.get(task, 1)


def check_kind(kind: str, task: str, dataset: str) -> None:
    """Raise InputError for Platt scaling of several classes."""
    if kind == "platt" and task in ("multiclass", "ordinal"):
        raise InputError(
            f"--calibrate platt is defined for two classes and for labels, and {dataset} is {task}. "
            "Use: --calibrate temperature"
        )


def fit_scaling(kind: str, y: Array, p: Array, task: str) -> Scaled:
    """Return the scaling fitted on out-of-fold probabilities p, (n,), (n, K) or (n, L), with labels y.

    Entries without a probability (NaN) or a label (MISSING) are omitted.  If a class of the budget has fewer than two
    cases, nothing is scaled.
    """
    if task == "multilabel":
        parts = [_of_two(kind, y[:, k], p[:, k]) for k in range(y.shape[1])]
        return Scaled(kind, tuple(b for _, b in parts), tuple(a for a, _ in parts))
    if task == "binary":
        a, b = _of_two(kind, y, p)
        return Scaled(kind, (b,), (a,))
    return Scaled(kind, (_of_several(y, p),), (0.0,))


def _of_two(kind: str, y: Array, p: Array) -> tuple[float, float]:
    """Return intercept and slope of the logit by bisection; the slope stays within its limits."""
    known = np.isfinite(p) & (y != MISSING)
    positive, x = y[known] == 1, logit(p[known].astype(np.float64))
    n, m = int(positive.sum()), int((~positive).sum())
    if min(n, m) < LEAST:
        return 0.0, 1.0
    target = np.where(positive, (n + 1) / (n + 2), 1 / (m + 2))
    if kind == "temperature":
        return 0.0, _slope(lambda b: float(np.sum(x * (_sigmoid(b * x) - target))))
    b = _slope(lambda b: float(np.sum(x * (_sigmoid(_intercept(x, target, b) + b * x) - target))))
    return _intercept(x, target, b), b


def _intercept(x: Array, target: Array, b: float) -> float:
    """Return by bisection the intercept at which the mean probability equals the mean target."""
    low, high = -40.0 - b * float(np.abs(x).max()), 40.0 + b * float(np.abs(x).max())
    for _ in range(_STEPS):
        middle = (low + high) / 2
        low, high = (middle, high) if _sigmoid(middle + b * x).sum() < target.sum() else (low, middle)
    return (low + high) / 2


def _of_several(y: Array, p: Array) -> float:
    """Return 1 / T of a softmax over the classes that the budget holds."""
    known = np.isfinite(p).all(axis=1)
    y, p = y[known], p[known]
    counts = np.bincount(y, minlength=p.shape[1])
    present = np.flatnonzero(counts)
    if len(present) < 2 or counts[present].min() < LEAST:
        return 1.0
    logits = np.log(np.clip(p[:, present].astype(np.float64), LEAST_P, 1))
    own, n, k = y[:, None] == present, len(y), len(present)
    target = np.where(own, (n + 1) / (n + 2), 1 / ((n + 2) * (k - 1)))
    return _slope(lambda b: float(np.sum(logits * (_softmax(b * logits) - target))))


def _slope(gradient: Any) -> float:
    """Return the slope at which a rising gradient is 0, or the nearest limit, by bisection on the log slope."""
    low, high = np.log(_SLOPES)
    for _ in range(_STEPS):
        middle = (low + high) / 2
        low, high = (middle, high) if gradient(float(np.exp(middle))) < 0 else (low, middle)
    return float(np.exp((low + high) / 2))


def _sigmoid(x: Array) -> Array:
    return np.asarray(1 / (1 + np.exp(-np.clip(x, -700, 700))))


def _softmax(logits: Array) -> Array:
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=1, keepdims=True))
