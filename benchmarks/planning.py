"""Whether what `mt probe --dry-run` expects comes true: widths of intervals, and power at the detectable difference.

    python -m benchmarks.planning                     # some minutes
    python -m benchmarks.planning --repeats 1000

Width: cases are simulated as in `benchmarks.coverage` at an AUC of 0.85 (or what that makes of other metrics); the
expected half-width at the true score stands beside the median of the intervals that samples give.  Power: two models'
scores are normal and correlated, one separates the classes by exactly the detectable difference more; the share of
samples in which the paired comparison finds it must be 80 %, within `POWER_ERROR`.  The correlation of the two AUCs
over samples is measured, and the detectable difference is that at the measured correlation.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from benchmarks.coverage import TASK_OF, Setting, _truth, simulate
from mt.probe.planning import expected
from mt.probe.planning.expected import Counts
from mt.probe.scores.comparisons import replicate_scores
from mt.probe.scores.metrics import over_cases
from mt.probe.scores.rank_metrics import binormal_variance
from mt.types import Array

WIDTH_ERROR = 0.15  # of the half-width, without patients
ASSUMED_ERROR = 0.25  # where a correlation is assumed: of patients' cases, of classes, of grades as of a normal pair
UNEQUAL = ("balanced_accuracy",)  # too wide where classes are recalled unlike: that is allowed
POWER_ERROR = 0.07
WIDTHS = tuple(
    (metric, Setting(task, n, prevalence, patients))
    for metric, tasks in (
        ("roc_auc", ["binary"]),
        ("accuracy", ["binary", "multiclass"]),
        ("balanced_accuracy", ["binary", "multiclass"]),
        ("macro_auc", ["multiclass"]),
        ("mean_auc", ["multilabel"]),
        ("quadratic_kappa", ["ordinal"]),
    )
    for task in tasks
    for n, prevalence, patients in ((100, 0.2, 0), (400, 0.05, 0), (1000, 0.5, 0), (400, 0.2, 100))
)


@dataclass(frozen=True)
class Width:
    """The expected half-width at the true score, and the median of those of simulated intervals."""

    metric: str
    setting: Setting
    truth: float
    expected: float
    median: float

    @property
    def holds(self) -> bool:
        assumed = self.setting.patients or self.metric in ("macro_auc", "quadratic_kappa")
        error = self.expected / self.median - 1
        return -error <= (ASSUMED_ERROR if assumed else WIDTH_ERROR) and (
            self.metric in UNEQUAL or error <= (ASSUMED_ERROR if assumed else WIDTH_ERROR)
        )


def widths(metric: str, setting: Setting, *, repeats: int, seed: int = 1) -> Width:
    """Return expected and simulated half-widths of one metric."""
    rng = np.random.default_rng(seed)
    truth = _truth(setting, [metric], rng)[metric]
    found, planned = [], []
    for _ in range(repeats):
        y, p, patients = simulate(setting, rng)
        _, interval = over_cases(metric, y, [p], groups=patients)
        counts = Counts.of(y, patients, 2 if p.ndim == 1 else p.shape[1])
        found.append((interval.high - interval.low) / 2)
        planned.append(expected.RULES[metric](truth, counts)[0])
    return Width(metric, setting, truth, float(np.median(planned)), float(np.nanmedian(found)))


@dataclass(frozen=True)
class Power:
    """How often the paired comparison finds the detectable difference; correlation: of the two AUCs over samples."""

    n: int
    prevalence: float
    correlation: float
    difference: float
    power: float
    error: float

    @property
    def holds(self) -> bool:
        return abs(self.power - expected.POWER) <= POWER_ERROR + 2 * self.error


POWERS = ((100, 0.5, 0.6), (200, 0.2, 0.6), (400, 0.1, 0.9), (1000, 0.2, 0.9))


def power(n: int, prevalence: float, shared: float, *, repeats: int, seed: int = 1) -> Power:
    """Return the power at the detectable difference around an AUC of 0.8; shared: correlation of the scores."""
    rng = np.random.default_rng(seed)
    y = (np.arange(n) < round(n * prevalence)).astype(int)
    aucs = np.array([_aucs(y, _pair(y, 0.8, 0.8, shared, rng)) for _ in range(1000)])
    correlation = float(np.corrcoef(aucs.T)[0, 1])
    error = np.sqrt(binormal_variance(0.8, y.sum(), n - y.sum()))
    factor = expected._student(n - 1) + expected._normal(expected.POWER)
    difference = float(factor * np.sqrt(2 * (1 - correlation)) * error)
    high, low = 0.8 + difference / 2, 0.8 - difference / 2
    hits = 0
    for _ in range(repeats):
        a, b = _pair(y, high, low, shared, rng)
        hits += replicate_scores("roc_auc", y, {"a": [a], "b": [b]}, n_resamples=500).compare("a", "b").p <= 0.05
    share = hits / repeats
    return Power(n, prevalence, correlation, difference, share, float(np.sqrt(share * (1 - share) / repeats)))


def _pair(y: Array, a: float, b: float, shared: float, rng: np.random.Generator) -> tuple[Array, Array]:
    """Return two models' scores with these AUCs; `shared` is their correlation within a class."""
    from scipy.special import ndtri

    common = np.sqrt(shared) * rng.normal(size=len(y))
    one, other = (common + np.sqrt(1 - shared) * rng.normal(size=len(y)) for _ in range(2))
    return tuple(noise + np.sqrt(2) * ndtri(auc) * y for noise, auc in ((one, a), (other, b)))


def _aucs(y: Array, pair: tuple[Array, Array]) -> list[float]:
    from mt.probe.scores.metrics import score

    return [score("roc_auc", y, p) for p in pair]


def main(arguments: Sequence[str] = ()) -> None:
    """Print both tables; exit with status 1 where a row misses."""
    parser = argparse.ArgumentParser(description="Expected widths and detectable differences.")
    parser.add_argument("--repeats", type=int, default=400)
    parser.add_argument("--seed", type=int, default=1)
    asked = parser.parse_args(arguments)
    missed = sum(_print_widths(asked.repeats, asked.seed)) + sum(_print_powers(asked.repeats, asked.seed))
    if missed:
        raise SystemExit(f"{missed} rows miss their goal")


def _print_widths(repeats: int, seed: int) -> Iterator[bool]:
    print("| metric | task | cases | prevalence | patients | true score | expected | median | expected / median |")
    print("|---|---|---|---|---|---|---|---|---|")
    assert {metric for metric, _ in WIDTHS} == set(expected.RULES) <= set(TASK_OF)
    for metric, setting in WIDTHS:
        one = widths(metric, setting, repeats=repeats, seed=seed)
        print(
            f"| `{metric}` | {setting.task} | {setting.n} | {setting.prevalence:g} | {setting.patients or '-'} "
            f"| {one.truth:.3f} | {one.expected:.3f} | {one.median:.3f} | {one.expected / one.median:.2f} |"
            f"{'' if one.holds else ' MISSED'}",
            flush=True,
        )
        yield not one.holds


def _print_powers(repeats: int, seed: int) -> Iterator[bool]:
    print("\n| cases | positive | correlation of the AUCs | detectable difference | power | ± |")
    print("|---|---|---|---|---|---|")
    for n, prevalence, shared in POWERS:
        one = power(n, prevalence, shared, repeats=repeats, seed=seed)
        print(
            f"| {n} | {prevalence:g} | {one.correlation:.2f} | {one.difference:.3f} | {one.power:.3f} "
            f"| {one.error:.3f} |{'' if one.holds else ' MISSED'}",
            flush=True,
        )
        yield not one.holds


if __name__ == "__main__":
    main(sys.argv[1:])
