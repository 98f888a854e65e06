"""Expected widths of intervals, and differences that a paired comparison will find, from counts of test cases alone.

The half-width follows the rule of `mt.probe.scores` at an assumed score:

- ROC AUC: Wilson, Student's t.  The variance is that of two normal classes of equal spread (`binormal_variance`).
- Shares (accuracy, and the recall of each class in balanced accuracy, taken to be equal): Wilson.
- Quadratic weighted kappa: Fisher's z scale with the variance of a correlation.
- A mean over classes or labels: half-widths add in squares, with the correlation `BETWEEN` of the AUCs of classes.

Cases of a patient are assumed to have the correlation `WITHIN`: c of them count as c / (1 + (c - 1) WITHIN).

A paired comparison at 5 % finds a difference of (t + z) √(2 (1 - ρ)) SE in 80 % of samples, where ρ is the correlation
of the two scores over samples of test cases.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from mt.probe.scores.metrics import METRICS
from mt.types import Array, Groups

WITHIN = 0.2  # assumed correlation of the cases of a patient
BETWEEN = 0.3  # assumed correlation of the AUCs of classes, each against the rest; labels are taken as uncorrelated
CORRELATIONS = (0.5, 0.8)  # assumed correlations of two models' scores over samples of test cases
POWER, LEVEL = 0.8, 0.95
PLAUSIBLE = (0.7, 0.8, 0.9)  # scores at which expectations are stated


@dataclass(frozen=True)
class Counts:
    """Numbers of test cases and units (patients, else cases), for each class or label and in all.

    cases, units: (classes, 2), the number with the class or label, and the number without it.
    """

    cases: Array
    units: Array
    n_cases: int
    n_units: int

    @classmethod
    def of(cls, y: Array, groups: Groups | None, n_classes: int) -> Counts:
        """Count the cases of labels (n,), or (n, L) for several."""
        unit = np.arange(len(y)) if groups is None else np.unique(np.asarray(groups), return_inverse=True)[1]
        truth = y if y.ndim == 2 else (y[:, None] == np.arange(n_classes)).astype(int)
        held = [[truth[:, k] == 1, truth[:, k] == 0] for k in range(truth.shape[1])]
        cases = np.array([[int(part.sum()) for part in both] for both in held])
        units = np.array([[len(np.unique(unit[part])) for part in both] for both in held])
        return cls(cases, units, len(y), len(np.unique(unit)))

    @cached_property
    def effective(self) -> Array:
        """The effective number of independent cases, (classes, 2)."""
        return _effective(self.cases, self.units)

    @property
    def there(self) -> Array:
        """The numbers of the classes that some cases hold and others do not."""
        return np.flatnonzero((self.cases > 0).all(axis=1))


def _effective(cases: Array, units: Array) -> Array:
    return np.asarray(cases / (1 + (cases / np.maximum(units, 1) - 1) * WITHIN))


@dataclass(frozen=True)
class Expectation:
    """What to expect at an assumed score: half the length of its interval, and the difference found with 80 % power.

    detectable: at each of `CORRELATIONS`.
    """

    score: float
    half_width: float
    detectable: tuple[float, ...]


_MEANS = ("balanced_accuracy", "macro_f1")  # over all classes: each needs a case
_LOSSES = ("brier", "log_loss")  # need cases of two classes


def refusal(metric: str, counts: Counts) -> str:
    """Return why a metric will have no interval on these test cases; empty if it will have one."""
    from mt.probe.scores.sum_metrics import without_cases

    classes, held = len(counts.cases), int((counts.cases[:, 0] > 0).sum())
    if counts.n_units < 2:
        return "all cases are of one group"
    if (metric in _MEANS and held < classes) or (metric in _LOSSES and held < 2):
        return without_cases(classes - held, classes)
    if (METRICS[metric].of_ranks and not len(counts.there)) or (metric == "f1" and not counts.cases[-1, 0]):
        return "all cases are of one class"
    return ""


Rule = Callable[[float, Counts], tuple[float, float]]  # half-width and standard error at an assumed score


def expectations(metric: str, counts: Counts, *, factor: float = 1.0) -> list[Expectation]:
    """Return what to expect at each plausible score; empty for a metric without a formula, or without an interval.

    factor: the factor by which test folds multiply the variance.
    """
    rule = RULES.get(metric)
    if rule is None or refusal(metric, counts) or not len(counts.there):
        return []
    t = _student(counts.n_units - 1)
    found = []
    for score in PLAUSIBLE:
        half, error = (float(np.sqrt(factor)) * one for one in rule(score, counts))
        each = ((t + _normal(POWER)) * np.sqrt(2 * (1 - rho)) * error for rho in CORRELATIONS)
        found.append(Expectation(score, half, tuple(map(float, each))))
    return found


def _auc(score: float, counts: Counts, row: int = 0) -> tuple[float, float]:
    from mt.probe.scores.rank_metrics import binormal_variance, newcombe
    from mt.probe.scores.sample import wilson

    m, n = counts.effective[row]
    variance = binormal_variance(score, m, n)
    fewest = int(counts.units[row].min())
    if fewest < 2:
        low, high = newcombe(score, int(m), int(n), _normal((1 + LEVEL) / 2))
    else:
        low, high = wilson(score, score * (1 - score) / variance, _student(fewest - 1))
    return (high - low) / 2, float(np.sqrt(variance))


def _mean_auc(score: float, counts: Counts, between: float) -> tuple[float, float]:
    half, error = np.array([_auc(score, counts, row) for row in counts.there]).T
    return _mean(half, between), _mean(error, between)


def _mean(each: Array, rho: float) -> float:
    """Return the standard deviation of a mean of several numbers with these deviations and one correlation."""
    return float(np.sqrt((1 - rho) * (each**2).sum() + rho * each.sum() ** 2)) / len(each)


def _share(score: float, n: float) -> tuple[float, float]:
    from mt.probe.scores.sample import wilson

    low, high = wilson(score, n, _normal((1 + LEVEL) / 2))
    return (high - low) / 2, float(np.sqrt(score * (1 - score) / n))


def _accuracy(score: float, counts: Counts) -> tuple[float, float]:
    return _share(score, float(_effective(np.array(counts.n_cases), np.array(counts.n_units))))


def _balanced(score: float, counts: Counts) -> tuple[float, float]:
    half, error = np.array([_share(score, n) for n in counts.effective[:, 0]]).T
    return _mean(half, 0.0), _mean(error, 0.0)


def _kappa(score: float, counts: Counts) -> tuple[float, float]:
    n = float(_effective(np.array(counts.n_cases), np.array(counts.n_units)))
    error = 1 / np.sqrt(max(n - 3, 1))
    half = _student(counts.n_units - 1) * error
    low, high = np.tanh(np.arctanh(score) - half), np.tanh(np.arctanh(score) + half)
    return float(high - low) / 2, float(error * (1 - score**2))


RULES: dict[str, Rule] = {
    "roc_auc": lambda score, counts: _auc(score, counts, row=len(counts.cases) - 1),
    "macro_auc": lambda score, counts: _mean_auc(score, counts, BETWEEN),
    "mean_auc": lambda score, counts: _mean_auc(score, counts, 0.0),
    "accuracy": _accuracy,
    "balanced_accuracy": _balanced,
    "quadratic_kappa": _kappa,
}


def _student(freedom: int) -> float:
    from scipy.special import stdtrit

    return float(stdtrit(max(1, freedom), (1 + LEVEL) / 2))


def _normal(share: float) -> float:
    from scipy.special import ndtri

    return float(ndtri(share))
