"""Coverage and type I error of test folds: intervals of cross-validated scores, and paired tests of two models.

    python -m benchmarks.folds                      # the short form, about two minutes
    python -m benchmarks.folds --repeats 1000       # the table of docs/intervals.md, about 20 minutes

Images are simulated embeddings of two classes; with patients, images of one share part of their noise, and mostly a
class.  A ridge classifier is fitted in each training part, on all of its labels or on a budget, as `mt probe
--test-folds` does with a probe.
Truth is the expected score: the mean, over all simulations and folds, of each model's score on 4,000 new images.
`fixed` is the coverage of the interval that holds the fitted models fixed, `shown` that of the one that tables show.
For type I, a second model has embeddings of its own from the same distribution, so both are equally good; `fixed` and
`shown` are then how often p <= 0.05.  Both must hold: coverage + 2 Monte-Carlo errors >= 0.93, and type I error minus 2
Monte-Carlo errors <= 0.05.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from mt.probe.scores.comparisons import replicate_scores
from mt.probe.scores.metrics import over_cases, value_of
from mt.stratification import stratified_parts
from mt.types import Array

METRICS = ("roc_auc", "accuracy")
LEAST, ALPHA = 0.93, 0.05
NEW_IMAGES = 4_000
RIDGE = 0.3
WITHIN = 0.3  # the share of the noise that images of a patient have in common
RESAMPLES = 400


@dataclass(frozen=True)
class Setting:
    """One distribution and one way to test by folds.  labels: drawn from each training part, 0 for all of it."""

    n: int
    dim: int
    images_per_patient: int
    prevalence: float
    k: int
    repeats: int
    labels: int
    separation: float = 1.6


SETTINGS = (
    Setting(100, 50, 1, 0.5, 5, 1, 0),
    Setting(100, 300, 1, 0.5, 5, 1, 0),
    Setting(100, 50, 1, 0.5, 10, 1, 0),
    Setting(200, 50, 1, 0.2, 5, 1, 0),
    Setting(200, 50, 4, 0.5, 5, 1, 0),
    Setting(200, 50, 4, 0.5, 5, 3, 0),
    Setting(200, 50, 1, 0.5, 5, 3, 20),
)


@dataclass(frozen=True)
class Row:
    """What the simulations of one setting found in one metric."""

    setting: Setting
    metric: str
    truth: float
    fixed: float
    shown: float
    ratio: float
    error_fixed: float
    error_shown: float
    n: int

    @property
    def holds(self) -> bool:
        covered = self.shown + 2 * _error(self.shown, self.n) >= LEAST
        return covered and self.error_shown - 2 * _error(self.error_shown, self.n) <= ALPHA


def _error(share: float, n: int) -> float:
    return float(np.sqrt(share * (1 - share) / n))


class World:
    """A distribution of images: two class means, and what images of a patient share."""

    def __init__(self, setting: Setting, rng: np.random.Generator) -> None:
        self.setting, self.rng = setting, rng
        mean = rng.normal(size=setting.dim)
        self.mean = setting.separation * mean / np.linalg.norm(mean)

    def images(self, n: int) -> tuple[list[Array], Array, Array]:
        """Return the embeddings of two models (n, dim), the labels and the patients of n images."""
        per, prevalence, dim = self.setting.images_per_patient, self.setting.prevalence, self.setting.dim
        patient = np.arange(n) // per
        own = self.rng.random(n) < prevalence
        y = own if per == 1 else np.where(self.rng.random(n) < 0.8, (self.rng.random(n) < prevalence)[patient], own)
        within = WITHIN if per > 1 else 0.0
        models = []
        for _ in range(2):
            shared, alone = self.rng.normal(size=(patient[-1] + 1, dim)), self.rng.normal(size=(n, dim))
            noise = np.sqrt(within) * shared[patient] + np.sqrt(1 - within) * alone
            models.append(noise + y[:, None] * self.mean)
        return models, y.astype(np.int64), patient


def ridge(X: Array, y: Array) -> Callable[[Array], Array]:
    """Return the probabilities of class 1 by ridge regression on standardised features."""
    centre, scale = X.mean(axis=0), X.std(axis=0) + 1e-9
    Z, target = (X - centre) / scale, 2.0 * y - 1
    offset = target.mean()
    if len(Z) < Z.shape[1]:
        w = Z.T @ np.linalg.solve(Z @ Z.T + RIDGE * len(Z) * np.eye(len(Z)), target - offset)
    else:
        w = np.linalg.solve(Z.T @ Z + RIDGE * len(Z) * np.eye(Z.shape[1]), Z.T @ (target - offset))
    return lambda new: 1 / (1 + np.exp(-3 * ((new - centre) / scale @ w + offset)))


def simulate(world: World) -> tuple[list[list[Array]], list[Array], Array, Array, Array]:
    """Return each model's predictions per repeat, the folds, labels, patients, and the mean score on new images."""
    setting, rng = world.setting, world.rng
    models, y, patient = world.images(setting.n)
    new, new_y, _ = world.images(NEW_IMAGES)
    folds = [
        stratified_parts(y, patient.tolist(), [1 / setting.k] * setting.k, repeat) for repeat in range(setting.repeats)
    ]
    predictions: list[list[Array]] = [[], []]
    scores = []
    for fold in folds:
        parts = [rng.permutation(np.flatnonzero(fold != number)) for number in range(setting.k)]
        drawn = [_budget(y, part, setting.labels) for part in parts]
        for model, X in enumerate(models):
            p = np.empty(setting.n)
            for number, rows in enumerate(drawn):
                fitted = ridge(X[rows], y[rows])
                p[fold == number] = fitted(X[fold == number])
                scores.append([value_of(metric, new_y, [fitted(new[model])]) for metric in METRICS])
            predictions[model].append(p)
    return predictions, folds, y, patient, np.mean(scores, axis=0)


def _budget(y: Array, part: Array, labels: int) -> Array:
    """Return as many rows of a shuffled training part, half of each class; all of it for 0."""
    if not labels:
        return part
    return np.concatenate([part[y[part] == k][: labels // 2] for k in (0, 1)])


def measure(setting: Setting, *, repeats: int, seed: int = 1) -> list[Row]:
    """Return one row per metric."""
    from mt.probe.scores import within_folds

    world = World(setting, np.random.default_rng(seed))
    grouped = setting.images_per_patient > 1
    values: dict[str, list[tuple[float, ...]]] = {metric: [] for metric in METRICS}
    truths = []
    for _ in range(repeats):
        predictions, folds, y, patient, truth = simulate(world)
        truths.append(truth)
        groups = patient if grouped else None
        for metric in METRICS:
            value, shown = over_cases(metric, y, predictions[0], groups=groups, folds=folds)
            both = dict(zip("ab", predictions, strict=True))
            paired = replicate_scores(metric, y, both, groups=groups, n_resamples=RESAMPLES, folds=folds)
            fixed = within_folds.widened(
                value, shown.low, shown.high, 1 / within_folds.dependence(setting.k), (0.0, 1.0)
            )
            ps = [replace(paired, dependence=factor).compare("a", "b").p for factor in (1.0, paired.dependence)]
            values[metric].append((value, *fixed, shown.low, shown.high, *ps))
    expected = np.mean(truths, axis=0)
    return [
        _row(setting, metric, float(truth), np.array(values[metric]))
        for metric, truth in zip(METRICS, expected, strict=True)
    ]


def _row(setting: Setting, metric: str, truth: float, found: Array) -> Row:
    value, fixed_low, fixed_high, low, high, p_fixed, p_shown = found.T
    oracle = float(np.diff(np.quantile(value, [0.025, 0.975]))[0])
    return Row(
        setting,
        metric,
        truth,
        fixed=float(((fixed_low <= truth) & (truth <= fixed_high)).mean()),
        shown=float(((low <= truth) & (truth <= high)).mean()),
        ratio=float(np.median(high - low)) / oracle,
        error_fixed=float((p_fixed <= ALPHA).mean()),
        error_shown=float((p_shown <= ALPHA).mean()),
        n=len(found),
    )


def main(arguments: Sequence[str] = ()) -> None:
    """Print the table; exit with status 1 where a setting misses its goals."""
    parser = argparse.ArgumentParser(description="Coverage of cross-validated intervals, type I error of their tests.")
    parser.add_argument("--repeats", type=int, default=100)
    parser.add_argument("--seed", type=int, default=1)
    asked = parser.parse_args(arguments)
    print(
        "| images | dim | per patient | positive | folds | labels | metric | truth | coverage: fixed | shown | ± "
        "| length / oracle | type I: fixed | shown | ± | |"
    )
    print("|---" * 16 + "|")
    missed = 0
    for setting in SETTINGS:
        for row in measure(setting, repeats=asked.repeats, seed=asked.seed):
            missed += not row.holds
            folds = f"{setting.k} x {setting.repeats}"
            print(
                f"| {setting.n} | {setting.dim} | {setting.images_per_patient} | {setting.prevalence:g} | {folds} "
                f"| {setting.labels or 'all'} | {row.metric} | {row.truth:.3f} | {row.fixed:.3f} | {row.shown:.3f} "
                f"| {_error(row.shown, row.n):.3f} | {row.ratio:.2f} | {row.error_fixed:.3f} | {row.error_shown:.3f} "
                f"| {_error(row.error_shown, row.n):.3f} | {'' if row.holds else 'MISSED'} |",
                flush=True,
            )
    if missed:
        raise SystemExit(f"{missed} rows miss their goals")


if __name__ == "__main__":
    main(sys.argv[1:])
