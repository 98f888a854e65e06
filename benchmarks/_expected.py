"""Coverage of the interval of the expected score, which combines draws and test cases.

A draw is a random linear classifier: the best direction plus noise, with a random scale of its logits.  The truth is
the mean score of 1,000 such classifiers on 20,000 cases.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from mt.probe.scores.metrics import over_cases, value_of, with_draws
from mt.types import Array

METRICS = ("roc_auc", "balanced_accuracy", "macro_f1", "log_loss")
DIMENSIONS = 6
POPULATION, CLASSIFIERS = 20_000, 1_000


@dataclass(frozen=True)
class Study:
    """draws of a classifier on n test cases; spread: of the classifiers, in units of the best direction's length."""

    draws: int
    n: int
    prevalence: float
    patients: int
    spread: float


STUDIES = (
    Study(5, 100, 0.2, 0, 0.3),
    Study(5, 200, 0.5, 50, 0.3),
    Study(20, 200, 0.2, 0, 0.6),
    Study(5, 1000, 0.2, 0, 0.6),
    Study(3, 200, 0.2, 50, 0.6),
)


@dataclass(frozen=True)
class Combined:
    """Coverage of the combined interval, and that of the interval over cases alone; length beside the oracle's."""

    metric: str
    coverage: float
    error: float
    cases_alone: float
    ratio: float


def measure_expected(
    study: Study, separation: float, within: float, *, repeats: int, seed: int = 1, classifiers: int = CLASSIFIERS
) -> Iterator[Combined]:
    """Yield one row per metric, all on the same simulations."""
    rng = np.random.default_rng(seed)
    simulation = Simulation(study, separation, within, rng)
    y, X, _ = simulation.cases(POPULATION)
    every = [simulation.predict(X, simulation.classifier()) for _ in range(classifiers)]
    truth = {name: float(np.mean([value_of(name, y, [p]) for p in every])) for name in METRICS}
    found: dict[str, list[tuple[float, float, float, float, float]]] = {name: [] for name in METRICS}
    for _ in range(repeats):
        y, X, patients = simulation.cases(study.n)
        ps = [simulation.predict(X, simulation.classifier()) for _ in range(study.draws)]
        for name in METRICS:
            value, alone = over_cases(name, y, ps, groups=patients)
            if not np.isnan(alone.low):
                low, high = with_draws(name, [value_of(name, y, [p]) for p in ps], alone.low, alone.high)
                found[name].append((value, low, high, alone.low, alone.high))
    for name, rows in found.items():
        value, low, high, below, above = np.array(rows).T
        covered = float(((low <= truth[name]) & (truth[name] <= high)).mean())
        oracle = float(np.diff(np.quantile(value, [0.025, 0.975]))[0])
        yield Combined(
            name,
            covered,
            float(np.sqrt(covered * (1 - covered) / len(rows))),
            float(((below <= truth[name]) & (truth[name] <= above)).mean()),
            float(np.median(high - low)) / oracle,
        )


@dataclass(frozen=True)
class Simulation:
    """Cases of two classes, and classifiers that a draw of the labels may end with."""

    study: Study
    separation: float
    within: float
    rng: np.random.Generator

    def cases(self, n: int) -> tuple[Array, Array, Array | None]:
        """Return labels, features (n, 6) and patients, each with as many cases as in the study."""
        patients = self.study.patients * n // self.study.n
        patient = np.arange(n) % patients if patients else np.arange(n)
        within = self.within if patients else 0.0
        count = int(patient.max()) + 1
        shift = 0.7 * self.rng.normal(size=count)[patient] if patients else np.zeros(n)
        odds = np.log(self.study.prevalence / (1 - self.study.prevalence)) + shift
        y = (self.rng.random(n) < 1 / (1 + np.exp(-odds))).astype(int)
        shared = self.rng.normal(size=(count, DIMENSIONS))[patient]
        X = np.sqrt(1 - within) * self.rng.normal(size=(n, DIMENSIONS)) + np.sqrt(within) * shared
        X[:, 0] += self.separation * y
        return y, X, patient if patients else None

    def classifier(self) -> tuple[Array, float]:
        """Return a direction of length 1 and a scale."""
        direction = self.study.spread * self.rng.normal(size=DIMENSIONS)
        direction[0] += 1
        return direction / np.linalg.norm(direction), float(np.exp(0.3 * self.rng.normal()))

    def predict(self, X: Array, classifier: tuple[Array, float]) -> Array:
        direction, scale = classifier
        odds = np.log(self.study.prevalence / (1 - self.study.prevalence))
        return np.asarray(1 / (1 + np.exp(-(odds + self.separation * scale * (X @ direction - self.separation / 2)))))
