"""Thresholds: the rules that choose one from out-of-fold scores, and the choice.

A case is called positive if its probability is at least the threshold.  Candidates lie midway between neighbouring
scores, and below and above all scores.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from mt.errors import InputError
from mt.types import MISSING, Array

RULES = "youden, sensitivity:S, specificity:S or cost:R"
LEAST = 2  # cases of each class; with fewer, no threshold is chosen


@dataclass(frozen=True)
class ThresholdRule:
    """The criterion that chooses a threshold.

    kind: "youden" (largest sensitivity + specificity - 1), "sensitivity" or "specificity" (it is at least `number`, and
    the other is largest), or "cost" (smallest number of false alarms plus `number` times the number of misses).
    """

    kind: str
    number: float = 0.0

    @classmethod
    def parse(cls, text: str) -> ThresholdRule:
        """Return the rule that `--threshold` names.  Raises InputError for other text."""
        kind, _, number = text.partition(":")
        wrong = InputError(
            f"--threshold is {RULES} (sensitivity:0.95; cost:10 if a miss is as bad as 10 false alarms); found '{text}'"
        )
        if kind == "youden" and not number:
            return cls(kind)
        if kind not in ("sensitivity", "specificity", "cost"):
            raise wrong
        try:
            value = float(number)
        except ValueError:
            raise wrong from None
        if not (0 < value <= 1 if kind != "cost" else 0 < value < float("inf")):
            raise wrong
        return cls(kind, value)

    def __str__(self) -> str:
        return self.kind if self.kind == "youden" else f"{self.kind}:{self.number:g}"

    @property
    def meaning(self) -> str:
        """What the rule chooses, in words."""
        return {
            "youden": "the largest sensitivity + specificity",
            "sensitivity": f"the highest threshold with a sensitivity of at least {self.number:g}",
            "specificity": f"the lowest threshold with a specificity of at least {self.number:g}",
            "cost": f"the least cost if a miss is as bad as {self.number:g} false alarms",
        }[self.kind]


@dataclass(frozen=True)
class Threshold:
    """A chosen threshold with its out-of-fold rates; if `value` is None, `reason` says why."""

    value: float | None
    sensitivity: float | None = None
    specificity: float | None = None
    reason: str = ""

    def facts(self) -> dict[str, Any]:
        """Return the threshold as a JSON object, as a saved model stores it."""
        return {name: value for name, value in vars(self).items() if value not in (None, "")}

    @classmethod
    def of(cls, facts: Mapping[str, Any]) -> Threshold:
        """Return the threshold that `facts` describe."""
        return cls(facts.get("value"), facts.get("sensitivity"), facts.get("specificity"), facts.get("reason", ""))


def choose(rule: ThresholdRule, y: Array, p: Array) -> Threshold:
    """Return the threshold that a rule chooses from out-of-fold scores p (n,) with labels y (n,).

    Rows without a score (NaN) or a label (MISSING) are omitted.  Of equally good candidates, "youden" and "cost" take
    the one in the middle; "sensitivity" takes the highest that reaches its number, "specificity" the lowest.
    """
    known = np.isfinite(p) & (y != MISSING)
    y, p = y[known] == 1, p[known].astype(np.float64)
    positives, negatives = int(y.sum()), int((~y).sum())
    if min(positives, negatives) < LEAST:
        return Threshold(None, reason=f"fewer than {LEAST} cases per class have an out-of-fold score")
    scores, place = np.unique(p, return_inverse=True)
    candidates = np.concatenate([[0.0], (scores[:-1] + scores[1:]) / 2, [_above(float(scores[-1]))]])
    found = np.bincount(place, weights=y, minlength=len(scores))
    alarms = np.bincount(place, weights=~y, minlength=len(scores))
    sensitivity = np.append(np.cumsum(found[::-1])[::-1], 0) / positives
    specificity = 1 - np.append(np.cumsum(alarms[::-1])[::-1], 0) / negatives
    best = _best(rule, sensitivity, specificity, positives, negatives)
    return Threshold(float(candidates[best]), float(sensitivity[best]), float(specificity[best]))


def _above(highest: float) -> float:
    """Return a threshold above all scores."""
    return (highest + 1) / 2 if highest < 1 else float(np.nextafter(1, 2))


def _best(rule: ThresholdRule, sensitivity: Array, specificity: Array, positives: int, negatives: int) -> int:
    """Return the number of the best candidate; candidates ascend."""
    if rule.kind == "sensitivity":
        return int(np.flatnonzero(sensitivity >= rule.number - 1e-12)[-1])
    if rule.kind == "specificity":
        return int(np.flatnonzero(specificity >= rule.number - 1e-12)[0])
    if rule.kind == "youden":
        gain = sensitivity + specificity
    else:
        gain = -(rule.number * (1 - sensitivity) * positives + (1 - specificity) * negatives)
    equal = np.flatnonzero(gain >= gain.max() - 1e-9 * max(1.0, abs(float(gain.max()))))
    return int(equal[len(equal) // 2])
