"""Coverage of intervals of rates at a threshold that is chosen on an independent sample.

The truth is the rate of the whole population at that threshold.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from mt.probe.decisions.thresholds import ThresholdRule, choose
from mt.probe.scores.operating import decision_curve, operating_point
from mt.types import Array

RULES = ("youden", "sensitivity:0.95", "specificity:0.95")
RATES = ("sensitivity", "specificity", "ppv", "npv", "lr_positive", "lr_negative", "ppv_at_prevalence")
CHOSEN_ON = 200  # cases of the independent sample
ELSEWHERE = 0.02  # the prevalence of another population
_OF_MISSED = ("sensitivity", "npv", "lr_negative")
NET_BENEFIT = "net_benefit"
NAMES = tuple(f"{name}_at_threshold" for name in (*RATES, NET_BENEFIT))
Drawn = tuple[Array, Array, "Array | None"]
Draw = Callable[[int], Drawn]


class Population:
    """Many cases with their scores, which give the true rates at any threshold."""

    def __init__(self, y: Array, p: Array) -> None:
        self.positive, self.negative, self.share = np.sort(p[y == 1]), np.sort(p[y == 0]), float(y.mean())

    def truth(self, threshold: float) -> dict[str, float]:
        """Return every measure at a threshold."""
        found, alarms = self._called(threshold)
        share = self.share
        with np.errstate(divide="ignore", invalid="ignore"):
            return {
                "sensitivity": found,
                "specificity": 1 - alarms,
                "ppv": share * found / (share * found + (1 - share) * alarms),
                "npv": (1 - share) * (1 - alarms) / ((1 - share) * (1 - alarms) + share * (1 - found)),
                "lr_positive": found / alarms,
                "lr_negative": (1 - found) / (1 - alarms),
                "ppv_at_prevalence": ELSEWHERE * found / (ELSEWHERE * found + (1 - ELSEWHERE) * alarms),
            }

    def net_benefit(self, threshold: float) -> float:
        """Return the net benefit at a threshold probability."""
        found, alarms = self._called(threshold)
        return float(self.share * found - (1 - self.share) * alarms * threshold / (1 - threshold))

    def _called(self, threshold: float) -> Array:
        """Return the shares of positives and of negatives that are called positive, as an array: it divides by 0."""
        return np.array([1 - np.searchsorted(one, threshold) / len(one) for one in (self.positive, self.negative)])


def simulated(
    draw: Draw, population: Population, n: int, *, rule: str, repeats: int
) -> Iterator[tuple[str, tuple[float, ...]]]:
    """Yield a measure's name with (value, low, high, truth, errors), once per measure and repeat.

    Each repeat chooses a threshold on a sample of its own.  The threshold probability of net benefit is the prevalence,
    but at least 5 % and at most 50 %.  errors: the number of units with a missed positive or with a false alarm,
    whichever the measure counts.
    """
    chosen_by, odds = ThresholdRule.parse(rule), float(np.clip(population.share, 0.05, 0.5))
    for _ in range(repeats):
        threshold = choose(chosen_by, *draw(CHOSEN_ON)[:2]).value
        if threshold is None:
            continue
        y, p, patients = draw(n)
        truth = population.truth(threshold)
        found = operating_point(y, p, threshold, groups=patients, prevalence=ELSEWHERE)
        called = p >= threshold
        missed, alarms = (_units(wrong, patients) for wrong in ((y == 1) & ~called, (y == 0) & called))
        for name in RATES:
            one = found.measures[name]
            errors = missed if name in _OF_MISSED else alarms
            yield f"{name}_at_threshold", (one.value, one.low, one.high, truth[name], errors)
        curve = decision_curve(y, p, groups=patients, thresholds=[odds])
        ends = float(curve.model[0]), float(curve.low[0]), float(curve.high[0])
        yield NAMES[-1], (*ends, population.net_benefit(odds), len(y))


def _units(rows: Array, patients: Array | None) -> int:
    return int(rows.sum()) if patients is None else len(np.unique(patients[rows]))


@dataclass(frozen=True)
class Found:
    """What the repeats of one measure found; `ratio` is NaN if no interval is finite, `errors` is their mean number."""

    coverage: float
    error: float
    ratio: float
    refused: float
    shortest: float
    errors: float


def summary(found: Sequence[tuple[float, ...]]) -> Found:
    """Return coverage and length of (value, low, high, truth, errors) rows.

    The oracle interval holds the middle 95 % of the differences between value and truth.  A likelihood ratio with an
    infinite value or upper bound counts for coverage, but not for length.
    """
    value, low, high, truth, errors = np.array(found).T
    mean = float(errors.mean())
    there = ~np.isnan(low)
    if not there.any():
        return Found(np.nan, np.nan, np.nan, 1.0, np.inf, mean)
    covered = float(((low <= truth) & (truth <= high))[there].mean())
    finite = there & np.isfinite(value) & np.isfinite(high)
    oracle = float(np.diff(np.quantile((value - truth)[finite], [0.025, 0.975]))[0]) if finite.any() else np.nan
    ratio = float(np.median((high - low)[finite])) / oracle if finite.any() else np.nan
    error = float(np.sqrt(covered * (1 - covered) / there.sum()))
    return Found(covered, error, ratio, 1 - float(there.mean()), float((high - low)[there].min()), mean)
