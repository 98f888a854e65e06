"""Coverage of differences between sets of test cases: a subgroup minus another, internal minus external.

    python -m benchmarks.contrasts                        # every row, some minutes
    python -m benchmarks.contrasts --repeats 1000 --kind by-case
    python -m benchmarks.contrasts --loss 0 --metric roc_auc accuracy     # no difference: the type I error of p

`by-case`: both subgroups hold cases of each patient (two views of a chest).  `by-patient`: a patient is in one.
`external`: the second set is a sample of its own, with another prevalence.  The second set separates the classes less.
A draw is a random linear classifier.  The truth is the difference on 20,000 cases of each set: of the one classifier at
one draw, the mean over classifiers at several.  `p <= 0.05` is the share of simulations with such a p-value: its
power, or the type I error where there is no difference (`--loss 0`; for `external` only of metrics that do not depend
on the prevalence).
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from benchmarks._expected import Simulation, Study
from benchmarks.coverage import LEAST, SEPARATION, WITHIN
from mt.probe.contrasts.difference import Difference, difference
from mt.probe.scores.metrics import value_of
from mt.probe.scores.scoring import LEAST_UNITS
from mt.types import Array, LabelledRows, ScoredRows

METRICS = ("roc_auc", "average_precision", "accuracy", "balanced_accuracy", "f1", "log_loss")
KINDS = ("by-case", "by-patient", "external")
POPULATION, CLASSIFIERS = 20_000, 100
LOSS = 0.4  # by which the second set separates the classes less


@dataclass(frozen=True)
class Setting:
    """share: of the cases that are in the first set."""

    kind: str
    draws: int
    n: int
    prevalence: float
    patients: int
    share: float = 0.5
    loss: float = LOSS


SETTINGS = tuple(
    Setting(kind, draws, n, prevalence, patients, share)
    for kind in KINDS
    for draws, n, prevalence, patients, share in (
        (1, 200, 0.2, 0, 0.5),
        (1, 400, 0.2, 0, 0.2),
        (1, 200, 0.5, 50, 0.5),
        (1, 400, 0.2, 100, 0.3),
        (5, 400, 0.2, 100, 0.3),
        (5, 1000, 0.1, 0, 0.5),
    )
    if patients or kind != "by-case"
)


@dataclass(frozen=True)
class Row:
    """What the simulations of one setting found.

    units: of the rarest class in the smaller set.  ratio: the median length beside the oracle's.  rejected: the share
    with p <= 0.05.
    """

    setting: Setting
    metric: str
    units: float
    coverage: float
    error: float
    ratio: float
    refused: float
    rejected: float

    @property
    def holds(self) -> bool:
        return self.coverage + 2 * self.error >= LEAST


def measure(
    setting: Setting, *, repeats: int, metrics: Sequence[str] = METRICS, seed: int = 1, classifiers: int = CLASSIFIERS
) -> Iterator[Row]:
    """Yield one row per metric, all on the same simulations."""
    rng = np.random.default_rng(seed)
    sets = _Sets(setting, rng)
    pool = [sets.first.classifier() for _ in range(classifiers)]
    truth = _truths(sets, pool, metrics)
    found: dict[str, list[tuple[float, Difference]]] = {name: [] for name in metrics}
    for _ in range(repeats):
        chosen = rng.integers(0, len(pool), setting.draws)
        a, b = sets.drawn(setting.n, [pool[k] for k in chosen])
        for name in metrics:
            true = float(truth[name][chosen[0]] if setting.draws == 1 else truth[name].mean())
            found[name].append((true, difference(name, a, b)))
    for name, rows in found.items():
        yield _row(setting, name, rows)


def _row(setting: Setting, name: str, rows: Sequence[tuple[float, Difference]]) -> Row:
    true = np.array([one for one, _ in rows])
    value, low, high = np.array([(one.value, one.low, one.high) for _, one in rows]).T
    there = ~np.isnan(low)
    covered = float(((low <= true) & (true <= high))[there].mean())
    oracle = float(np.diff(np.quantile((value - true)[there], [0.025, 0.975]))[0])
    return Row(
        setting,
        name,
        float(np.mean([min(one.units) for _, one in rows])),
        covered,
        float(np.sqrt(covered * (1 - covered) / there.sum())),
        float(np.median((high - low)[there])) / oracle,
        1 - float(there.mean()),
        float(np.mean([one.excludes_zero for _, one in rows])),  # the p-value inverts the interval
    )


class _Sets:
    """The two sets of one setting."""

    def __init__(self, setting: Setting, rng: np.random.Generator) -> None:
        self.setting, self.rng = setting, rng
        study = Study(setting.draws, setting.n, setting.prevalence, setting.patients, 0.3)
        self.first = Simulation(study, SEPARATION, WITHIN, rng)
        other = Study(setting.draws, setting.n, min(0.5, 2 * setting.prevalence), setting.patients, 0.3)
        self.second = Simulation(other, SEPARATION - setting.loss, WITHIN, rng)

    def drawn(self, n: int, classifiers: Sequence[tuple[Array, float]]) -> tuple[list[ScoredRows], list[ScoredRows]]:
        """Return both sets of n cases together (of an external test, n cases each), once per classifier."""
        y, X, patients = self.first.cases(n)
        if self.setting.kind == "external":
            return self._scored(y, X, patients, classifiers), self._scored(*self.second.cases(n), classifiers)
        unit = patients if self.setting.kind == "by-patient" and patients is not None else np.arange(n)
        inside = (self.rng.random(int(unit.max()) + 1) < self.setting.share)[unit]
        X[~inside, 0] -= self.setting.loss * y[~inside]
        return tuple(  # type: ignore[return-value]  # of two
            self._scored(y[rows], X[rows], None if patients is None else patients[rows], classifiers)
            for rows in (inside, ~inside)
        )

    def _scored(
        self, y: Array, X: Array, patients: Array | None, classifiers: Sequence[tuple[Array, float]]
    ) -> list[ScoredRows]:
        rows = LabelledRows(None, y, patients)
        return [ScoredRows(rows, self.first.predict(X, one)) for one in classifiers]


def _truths(sets: _Sets, pool: Sequence[tuple[Array, float]], metrics: Sequence[str]) -> dict[str, Array]:
    """Return the true difference of each classifier."""
    both = sets.drawn(POPULATION, pool)
    return {
        name: np.array([value_of(name, a.y, [a.p]) - value_of(name, b.y, [b.p]) for a, b in zip(*both, strict=True)])
        for name in metrics
    }


def main(arguments: Sequence[str] = ()) -> None:
    """Print the table; exit with status 1 where a row misses its goal."""
    parser = argparse.ArgumentParser(description="Coverage of differences between sets of test cases.")
    parser.add_argument("--kind", nargs="+", choices=KINDS, default=KINDS)
    parser.add_argument("--metric", nargs="+", choices=METRICS, default=METRICS)
    parser.add_argument("--loss", type=float, default=LOSS, help="by which the second set separates the classes less")
    parser.add_argument("--repeats", type=int, default=400)
    parser.add_argument("--seed", type=int, default=1)
    asked = parser.parse_args(arguments)
    print(
        "| sets | draws | cases | prevalence | patients | metric | units | coverage | ± | length / oracle | refused "
        "| p <= 0.05 |"
    )
    print("|---|---|---|---|---|---|---|---|---|---|---|---|")
    missed = 0
    for setting in (replace(one, loss=asked.loss) for one in SETTINGS if one.kind in asked.kind):
        for row in measure(setting, repeats=asked.repeats, metrics=asked.metric, seed=asked.seed):
            missed += not row.holds
            print(
                f"| {setting.kind}, {setting.share:.0%} | {setting.draws} | {setting.n} | {setting.prevalence:g} "
                f"| {setting.patients or '-'} | {row.metric} | {row.units:.1f} | {row.coverage:.3f} | {row.error:.3f} "
                f"| {row.ratio:.2f} | {row.refused:.2f} | {row.rejected:.3f} |{'' if row.holds else ' MISSED'}",
                flush=True,
            )
    print(f"\nNo interval below {LEAST_UNITS} units of a class on either side.")
    if missed:
        raise SystemExit(f"{missed} rows miss their goal")


if __name__ == "__main__":
    main(sys.argv[1:])
