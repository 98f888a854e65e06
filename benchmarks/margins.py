"""Wrong claims of non-inferiority and equivalence where the truth lies exactly at the margin.

    python -m benchmarks.margins                    # some minutes
    python -m benchmarks.margins --repeats 2000

Two models' scores are normal and correlated; one has an AUC that is lower by exactly the margin.  Non-inferiority is
then claimed wrongly in at most 2.5 % of samples, and so is equivalence (both bounds must hold, and one is at its edge).
`equal` is the share of samples in which equivalence is claimed where both AUCs are the same: its power.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import ndtri

from mt.probe.scores.comparisons import replicate_scores
from mt.probe.scores.margins import ONE_SIDED, margin_test
from mt.types import Array

AUC, SHARED = 0.85, 0.6  # of the reference; correlation of the scores within a class


@dataclass(frozen=True)
class Setting:
    """draws: of models that share their cases; patients: 0 without."""

    n: int
    prevalence: float
    patients: int
    margin: float
    draws: int = 1


SETTINGS = (
    Setting(100, 0.5, 0, 0.05),
    Setting(200, 0.2, 0, 0.05),
    Setting(400, 0.2, 100, 0.05),
    Setting(1000, 0.1, 0, 0.02),
    Setting(400, 0.2, 0, 0.05, draws=5),
)


@dataclass(frozen=True)
class Row:
    """Shares of samples with a wrong claim, with the Monte-Carlo error of a true 2.5 %; equal: power at equality."""

    setting: Setting
    noninferior: float
    equivalent: float
    equal: float
    error: float

    @property
    def holds(self) -> bool:
        return max(self.noninferior, self.equivalent) <= ONE_SIDED + 3 * self.error


def measure(setting: Setting, *, repeats: int, resamples: int = 500, seed: int = 1) -> Row:
    """Return how often wrong claims are made at the margin."""
    rng = np.random.default_rng(seed)
    claims = np.zeros(3)
    for _ in range(repeats):
        at_margin = _test(setting, setting.margin, resamples, rng)
        same = _test(setting, 0.0, resamples, rng)
        claims += [at_margin[0] <= ONE_SIDED, at_margin[1] <= ONE_SIDED, same[1] <= ONE_SIDED]
    error = float(np.sqrt(ONE_SIDED * (1 - ONE_SIDED) / repeats))
    noninferior, equivalent, equal = (claims / repeats).tolist()
    return Row(setting, noninferior, equivalent, equal, error)


def _test(setting: Setting, loss: float, resamples: int, rng: np.random.Generator) -> tuple[float, float]:
    """Return the one-sided p of non-inferiority and of equivalence of a model whose AUC is lower by `loss`."""
    y, patient = _cases(setting, rng)
    common = np.sqrt(SHARED) * _noise(patient, setting, rng)
    predictions = {
        name: [
            np.sqrt(2) * ndtri(auc) * y + common + np.sqrt(1 - SHARED) * _noise(patient, setting, rng)
            for _ in range(setting.draws)
        ]
        for name, auc in (("new", AUC - loss), ("old", AUC))
    }
    groups = patient if setting.patients else None
    found = replicate_scores("roc_auc", y, predictions, groups=groups, n_resamples=resamples)
    test = margin_test(found, "new", "old", setting.margin)
    return test.noninferior, test.equivalent


def _cases(setting: Setting, rng: np.random.Generator) -> tuple[Array, Array]:
    y = rng.permutation((np.arange(setting.n) < round(setting.n * setting.prevalence)).astype(int))
    return y, np.arange(setting.n) % setting.patients if setting.patients else np.arange(setting.n)


def _noise(patient: Array, setting: Setting, rng: np.random.Generator) -> Array:
    within = 0.3 if setting.patients else 0.0
    shared = rng.normal(size=int(patient.max()) + 1)[patient]
    return np.asarray(np.sqrt(1 - within) * rng.normal(size=len(patient)) + np.sqrt(within) * shared)


def main(arguments: Sequence[str] = ()) -> None:
    """Print the table; exit with status 1 where wrong claims are more frequent than stated."""
    parser = argparse.ArgumentParser(description="Wrong claims at the margin.")
    parser.add_argument("--repeats", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=1)
    asked = parser.parse_args(arguments)
    print("| cases | positive | patients | draws | margin | non-inferior, wrongly | equivalent, wrongly | ± | equal |")
    print("|---|---|---|---|---|---|---|---|---|")
    missed = 0
    for setting in SETTINGS:
        row = measure(setting, repeats=asked.repeats, seed=asked.seed)
        missed += not row.holds
        print(
            f"| {setting.n} | {setting.prevalence:g} | {setting.patients or '-'} | {setting.draws} "
            f"| {setting.margin:g} | {row.noninferior:.3f} | {row.equivalent:.3f} | {row.error:.3f} | {row.equal:.3f} |"
            f"{'' if row.holds else ' MISSED'}",
            flush=True,
        )
    if missed:
        raise SystemExit(f"{missed} rows miss their goal")


if __name__ == "__main__":
    main(sys.argv[1:])
