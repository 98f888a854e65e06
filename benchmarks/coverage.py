"""Coverage of every interval: how often it holds the truth, and how long it is beside the oracle interval.

    python -m benchmarks.coverage                                   # the short form, about a minute
    python -m benchmarks.coverage --all --repeats 1000              # every cell of docs/intervals.md, about an hour
    python -m benchmarks.coverage --all --only-thresholds           # what thresholds achieve: rates, likelihood ratios
    python -m benchmarks.coverage --only-expected                   # draws and test cases together
    python -m benchmarks.coverage --metric roc_auc --cases 100 --prevalence 0.05 --patients 0 20 --auc 0.97
    python -m benchmarks.coverage --all --metric roc_auc --auc 0.97 --missed 0.04    # positives that look negative

Cases are simulated from a known distribution; the truth is the score of 200,000 of them.  With patients, cases of a
patient share part of their score and of their prevalence.  The oracle interval is what nobody can compute: the
quantiles of the score's own sampling distribution.  `units` are cases (or patients) that hold the rarest class, the
mean over simulations.  In every cell, the intervals that are given must have coverage + 2 Monte-Carlo errors >= 0.93;
the others are refused with a reason.  With ten or more units, their median length is at most 1.5 oracle lengths.
"""

from __future__ import annotations

import argparse
import itertools
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy.special import ndtri

from benchmarks._expected import STUDIES, measure_expected
from benchmarks._thresholds import NAMES as AT_THRESHOLD
from benchmarks._thresholds import RULES, Population, simulated, summary
from mt.probe.scores.calibration import MEASURES
from mt.probe.scores.metrics import METRICS, over_cases, value_of
from mt.types import Array

CASES = (50, 100, 200, 1000)
PREVALENCES = (0.05, 0.2, 0.5)
PATIENTS = (0, 20, 50, 200)  # 0: without patients
LEAST = 0.93
LONGEST = 1.5
FEW = 10  # units of the rarest class: below, an interval may be longer, or refused
SEPARATION = 1.4657  # of the classes, in standard deviations: an AUC of 0.85
WITHIN = 0.3  # the share of a score's variance that cases of a patient have in common
POPULATION = 200_000
NO_INTERVAL = ("ece",)
TASK_OF = {name: metric.tasks[0] for name, metric in METRICS.items() if name not in NO_INTERVAL}
TASK_OF |= dict.fromkeys(MEASURES, "binary")
# Metrics of several tasks are simulated with several classes as well.
ALSO_MULTICLASS = ("accuracy", "balanced_accuracy", "macro_f1", "log_loss")


@dataclass(frozen=True)
class Setting:
    """One distribution of cases.

    separation: of the classes, in standard deviations of the negatives' scores.  spread: the standard deviation of the
    positives' scores.  missed: the share of the positives that score as negatives do.
    """

    task: str
    n: int
    prevalence: float
    patients: int
    separation: float = SEPARATION
    spread: float = 1.0
    missed: float = 0.0

    def at_auc(self, auc: float) -> Setting:
        """Return the distribution with the separation that has this AUC."""
        seen = (auc - self.missed / 2) / (1 - self.missed)
        return replace(self, separation=float(np.sqrt(1 + self.spread**2) * ndtri(seen)))


@dataclass(frozen=True)
class Row:
    """What the simulations of one cell found.

    errors: units that hold a missed positive or a false alarm, at a threshold: with fewer than ten, an interval may be
    longer.  This exception is ours.
    """

    setting: Setting
    metric: str
    units: float
    coverage: float
    error: float
    ratio: float
    refused: float
    shortest: float
    errors: float = np.inf

    @property
    def holds(self) -> bool:
        """Whether the cell reaches its goals: coverage and no zero width; with ten or more units also the length."""
        if self.shortest <= 0:
            return False
        if np.isnan(self.coverage):
            return self.refused == 1 and self.units < FEW
        too_long = self.ratio > LONGEST and self.units >= FEW and self.errors >= FEW
        return self.highest >= LEAST and not too_long

    @property
    def highest(self) -> float:
        """The coverage plus two Monte-Carlo errors."""
        return self.coverage + 2 * self.error


def simulate(setting: Setting, rng: np.random.Generator) -> tuple[Array, Array, Array | None]:
    """Return labels, predictions and patients (None without)."""
    n = setting.n
    patient = np.arange(n) % setting.patients if setting.patients else np.arange(n)
    within = WITHIN if setting.patients else 0.0

    def noise(*shape: int) -> Array:
        shared = rng.normal(size=(patient.max() + 1, *shape))[patient]
        return np.asarray(np.sqrt(1 - within) * rng.normal(size=(n, *shape)) + np.sqrt(within) * shared)

    shift = 0.7 * rng.normal(size=patient.max() + 1)[patient] if setting.patients else np.zeros(n)
    if setting.task in ("binary", "multilabel"):
        y, p = _two_classes(setting, shift, noise, rng, labels=3 if setting.task == "multilabel" else 0)
    else:
        y, p = _classes(setting, shift, noise, rng)
    return y, p, patient if setting.patients else None


def _two_classes(
    setting: Setting, shift: Array, noise: Callable[..., Array], rng: np.random.Generator, *, labels: int
) -> tuple[Array, Array]:
    prevalence, separation = setting.prevalence, setting.separation
    base = np.log(prevalence / (1 - prevalence))
    shape = (labels,) if labels else ()
    odds = base + (shift[:, None] if labels else shift)
    y = (rng.random((len(shift), *shape)) < 1 / (1 + np.exp(-odds))).astype(int)
    seen = y * (rng.random(y.shape) >= setting.missed) if setting.missed else y
    scores = noise(*shape) * np.where(seen, setting.spread, 1) + separation * seen
    return y, 1 / (1 + np.exp(-(base + separation * (scores - separation / 2))))


def _classes(
    setting: Setting, shift: Array, noise: Callable[..., Array], rng: np.random.Generator
) -> tuple[Array, Array]:
    """Three classes or four grades; the first has the prevalence, the others share the rest."""
    k = 3 if setting.task == "multiclass" else 4
    prior = np.array([setting.prevalence] + [(1 - setting.prevalence) / (k - 1)] * (k - 1))
    weights = np.tile(prior, (setting.n, 1))
    weights[:, 0] *= np.exp(shift)
    shares = (weights / weights.sum(axis=1, keepdims=True)).cumsum(axis=1)
    y = np.minimum((rng.random((setting.n, 1)) > shares).sum(axis=1), k - 1)
    if setting.task == "multiclass":
        p = prior * np.exp(setting.separation * (noise(k) + setting.separation * np.eye(k)[y]))
    else:
        p = prior * np.exp(-(((y + noise())[:, None] - np.arange(k)) ** 2) / 2)
    return y, p / p.sum(axis=1, keepdims=True)


def measure(setting: Setting, names: Sequence[str], *, repeats: int, seed: int = 1) -> Iterator[Row]:
    """Yield one row per metric, all on the same simulated cases."""
    rng = np.random.default_rng(seed)
    truth = _truth(setting, names, rng)
    found: dict[str, list[tuple[float, float, float]]] = {name: [] for name in names}
    units = []
    for _ in range(repeats):
        y, p, patients = simulate(setting, rng)
        units.append(_fewest(y, p, patients))
        for name in names:
            value, interval = over_cases(name, y, [p], groups=patients)
            if not np.isnan(value):
                found[name].append((value, interval.low, interval.high))
    for name in names:
        yield _row(setting, name, float(np.mean(units)), truth[name], np.array(found[name]))


def measure_thresholds(setting: Setting, *, repeats: int, seed: int = 1) -> Iterator[Row]:
    """Yield one row per measure at a threshold, and rule that chooses it on an independent sample."""
    rng = np.random.default_rng(seed)
    population = Population(*simulate(_resized(setting, POPULATION), rng)[:2])
    units: list[int] = []

    def draw(n: int) -> tuple[Array, Array, Array | None]:
        drawn = simulate(_resized(setting, n), rng)
        units.extend([_fewest(*drawn)] if n == setting.n else [])
        return drawn

    for rule in RULES:
        found: dict[str, list[tuple[float, ...]]] = {name: [] for name in AT_THRESHOLD}
        for name, numbers in simulated(draw, population, setting.n, rule=rule, repeats=repeats):
            found[name].append(numbers)
        for name, rows in found.items():
            yield Row(setting, f"{name} {rule}", float(np.mean(units)), **vars(summary(rows)))


def _resized(setting: Setting, n: int) -> Setting:
    """Return the same distribution of another number of cases, with as many cases per patient."""
    return replace(setting, n=n, patients=setting.patients * n // setting.n)


def _truth(setting: Setting, names: Sequence[str], rng: np.random.Generator) -> dict[str, float]:
    parts = 4
    n = POPULATION // parts
    large = _resized(setting, n)
    drawn = [simulate(large, rng)[:2] for _ in range(parts)]
    values = [[value_of(name, y, [p]) for name in names] for y, p in drawn]
    return dict(zip(names, np.mean(values, axis=0).tolist(), strict=True))


def _fewest(y: Array, p: Array, patients: Array | None) -> int:
    unit = np.arange(len(y)) if patients is None else patients
    if y.ndim == 2:
        return min(len(np.unique(unit[column == k])) for column in y.T for k in (0, 1))
    return min(len(np.unique(unit[y == k])) for k in range(2 if p.ndim == 1 else p.shape[1]))


def _row(setting: Setting, name: str, units: float, truth: float, found: Array) -> Row:
    values, low, high = found.T
    there = ~np.isnan(low)
    refused = 1 - float(there.mean())
    if not there.any():
        return Row(setting, name, units, np.nan, np.nan, np.nan, refused, np.inf)
    covered = float(((low <= truth) & (truth <= high))[there].mean())
    oracle = float(np.diff(np.quantile(values, [0.025, 0.975]))[0])
    length = (high - low)[there]
    error = float(np.sqrt(covered * (1 - covered) / there.sum()))
    return Row(setting, name, units, covered, error, float(np.median(length)) / oracle, refused, float(length.min()))


def settings_of(
    names: Sequence[str], cases: Sequence[int], prevalences: Sequence[float], patients: Sequence[int]
) -> Iterator[tuple[Setting, list[str]]]:
    """Yield every distribution that can be had (a patient has two cases or more) with its metrics."""
    for n, prevalence, count in itertools.product(cases, prevalences, patients):
        if count * 2 > n:
            continue
        for task in dict.fromkeys([*(TASK_OF[name] for name in names), "multiclass"]):
            here = [name for name in names if TASK_OF[name] == task]
            if task == "multiclass":
                here += [name for name in names if name in ALSO_MULTICLASS and name not in here]
            if here:
                yield Setting(task, n, prevalence, count), here


def main(arguments: Sequence[str] = ()) -> None:
    """Print the table; exit with status 1 where a cell misses its goals."""
    parser = argparse.ArgumentParser(description="Coverage of intervals.")
    parser.add_argument("--all", action="store_true", help="every cell, instead of the short form")
    parser.add_argument("--metric", nargs="+", choices=list(TASK_OF), default=list(TASK_OF))
    parser.add_argument("--only-thresholds", action="store_true", help="no metric, but what thresholds achieve")
    parser.add_argument("--only-expected", action="store_true", help="the interval over draws and test cases together")
    parser.add_argument("--auc", type=float, help="of the simulated scores, instead of 0.85")
    parser.add_argument("--spread", type=float, default=1.0, help="of the positives' scores, in the negatives'")
    parser.add_argument("--missed", type=float, default=0.0, help="share of the positives that score as negatives do")
    parser.add_argument("--cases", nargs="+", type=int)
    parser.add_argument("--prevalence", nargs="+", type=float)
    parser.add_argument("--patients", nargs="+", type=int, help="0: without patients")
    parser.add_argument("--repeats", type=int, default=200)
    parser.add_argument("--seed", type=int, default=1)
    asked = parser.parse_args(arguments)
    if asked.only_expected:
        print_expected(asked.repeats, asked.seed)
        return
    cases = asked.cases or (CASES if asked.all else (100, 200))
    prevalences = asked.prevalence or (PREVALENCES if asked.all else (0.2,))
    patients = asked.patients or (PATIENTS if asked.all else (0, 50))
    print("| task | metric | cases | prevalence | patients | units | coverage | ± | length / oracle | refused | |")
    print("|---|---|---|---|---|---|---|---|---|---|---|")
    rows = []
    names = [] if asked.only_thresholds else asked.metric
    at_thresholds = asked.only_thresholds or set(names) == set(TASK_OF)

    def asked_of(setting: Setting) -> Setting:
        shaped = replace(setting, spread=asked.spread, missed=asked.missed)
        return shaped if asked.auc is None else shaped.at_auc(asked.auc)

    settings = [(asked_of(setting), some) for setting, some in settings_of(names, cases, prevalences, patients)]
    binary = (
        [asked_of(one) for one, _ in settings_of(["roc_auc"], cases, prevalences, patients)] if at_thresholds else []
    )
    for measured in itertools.chain(
        (measure(setting, some, repeats=asked.repeats, seed=asked.seed) for setting, some in settings),
        (measure_thresholds(setting, repeats=asked.repeats, seed=asked.seed) for setting in binary),
    ):
        for row in measured:
            rows.append(row)
            print(
                f"| {row.setting.task} | {row.metric} | {row.setting.n} | {row.setting.prevalence:g} "
                f"| {row.setting.patients or '-'} "
                f"| {row.units:.1f} | {row.coverage:.3f} | {row.error:.3f} | {row.ratio:.2f} | {row.refused:.2f} "
                f"| {'' if row.holds else 'MISSED'} |",
                flush=True,
            )
    print_summary(rows)
    if missed := sum(not row.holds for row in rows):
        raise SystemExit(f"{missed} cells miss their goals")


def print_expected(repeats: int, seed: int) -> None:
    """Print coverage and length of the interval of the expected score; exit with status 1 where a row misses."""
    print("| metric | draws | cases | prevalence | patients | coverage | ± | cases alone | length / oracle | |")
    print("|---|---|---|---|---|---|---|---|---|---|")
    missed = 0
    for study in STUDIES:
        for row in measure_expected(study, SEPARATION, WITHIN, repeats=repeats, seed=seed):
            holds = row.coverage + 2 * row.error >= LEAST and row.ratio <= LONGEST
            missed += not holds
            print(
                f"| {row.metric} | {study.draws} | {study.n} | {study.prevalence:g} | {study.patients or '-'} "
                f"| {row.coverage:.3f} | {row.error:.3f} | {row.cases_alone:.3f} | {row.ratio:.2f} "
                f"| {'' if holds else 'MISSED'} |",
                flush=True,
            )
    if missed:
        raise SystemExit(f"{missed} rows miss their goals")


def print_summary(rows: Sequence[Row]) -> None:
    """Print one line per metric: its cells with ten or more units of the rarest class, and those with fewer."""
    many, few = "cells | mean coverage | lowest + 2 MC errors", "cells of few | mean coverage | lowest + 2 MC errors"
    print(f"\n| metric | {many} | longest / oracle | {few} | longest / oracle | refused, mean |")
    print("|---" * 10 + "|")
    for name in dict.fromkeys(row.metric for row in rows):
        mine = [row for row in rows if row.metric == name]
        parts = [[row for row in mine if (row.units >= FEW) == enough] for enough in (True, False)]
        found = " | ".join(f"{len(part)} | {_summary(part)}" for part in parts)
        print(f"| {name} | {found} | {np.mean([row.refused for row in parts[1]] or [np.nan]):.2f} |")


def _summary(rows: Sequence[Row]) -> str:
    """Return mean coverage, lowest coverage + 2 Monte-Carlo errors, and the longest interval beside the oracle's."""
    given = [row for row in rows if not np.isnan(row.coverage)]
    mean = float(np.mean([row.coverage for row in given] or [np.nan]))
    lowest = min((row.highest for row in given), default=np.nan)
    longest = max((row.ratio for row in given if row.errors >= FEW), default=np.nan)
    return f"{mean:.3f} | {lowest:.3f} | {longest:.2f}"


if __name__ == "__main__":
    main(sys.argv[1:])
