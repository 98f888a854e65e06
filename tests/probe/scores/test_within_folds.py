"""Scores and intervals within test folds: the short form of `python -m benchmarks.folds`, and exact cases."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, roc_auc_score

from benchmarks import folds
from mt.probe.scores import within_folds
from mt.probe.scores.metrics import METRICS, over_cases, per_class, value_of, weighted
from mt.probe.scores.rank_metrics import auc_and_influence
from mt.types import MISSING, Array


def cases(n: int = 80, k: int = 4) -> tuple[Array, Array, Array]:
    """Return labels, probabilities whose scale differs between folds, and folds."""
    rng = np.random.default_rng(0)
    y, fold = rng.permutation(np.arange(n) % 2), rng.permutation(np.arange(n) % k)
    return y, 1 / (1 + np.exp(-(y + rng.normal(size=n) + 3 * fold))), fold


@pytest.mark.parametrize("setting", [folds.SETTINGS[0], folds.SETTINGS[4], folds.SETTINGS[6]])
def test_intervals_cover_and_tests_keep_their_level_where_models_held_fixed_do_not(setting: folds.Setting) -> None:
    for row in folds.measure(setting, repeats=40):
        assert row.holds, row
        assert row.shown >= row.fixed
        assert row.error_shown <= row.error_fixed


def test_without_the_dependence_of_folds_intervals_miss_and_tests_find_what_is_not_there() -> None:
    auc, _ = folds.measure(folds.SETTINGS[0], repeats=120)
    assert auc.fixed + 2 * folds._error(auc.fixed, auc.n) < folds.LEAST
    assert auc.error_fixed - 2 * folds._error(auc.error_fixed, auc.n) > folds.ALPHA


@pytest.mark.parametrize(
    ("metric", "theirs"), [("roc_auc", roc_auc_score), ("average_precision", average_precision_score)]
)
def test_rank_metrics_are_means_over_folds_and_their_pairs_never_cross_folds(metric: str, theirs: object) -> None:
    y, p, fold = cases()
    expected = np.mean([theirs(y[fold == k], p[fold == k]) for k in range(4)])  # type: ignore[operator]
    assert value_of(metric, y, [p], [fold]) == pytest.approx(expected, abs=1e-12)
    assert abs(value_of(metric, y, [p]) - expected) > 0.02  # pooled, folds of another scale are mixed
    value, interval = over_cases(metric, y, [p], folds=[fold])
    assert interval.low < value < interval.high
    scaled = p.copy()
    scaled[fold == 1] /= 10
    assert value_of(metric, y, [scaled], [fold]) == pytest.approx(expected, abs=1e-12)


def test_metrics_of_cases_are_pooled() -> None:
    y, p, fold = cases()
    for metric in ("accuracy", "brier", "log_loss", "f1"):
        assert value_of(metric, y, [p], [fold]) == value_of(metric, y, [p])


def test_means_over_labels_are_within_folds_and_skip_folds_without_both_values() -> None:
    y, p, fold = cases()
    several, ps = np.stack([y, 1 - y, np.where(fold == 0, 0, y)], axis=1), np.stack([p, 1 - p, p], axis=1)
    several[:5, 1] = MISSING
    expected = []
    for k in range(3):
        parts = [(fold == f) & (several[:, k] != MISSING) for f in range(4) if k != 2 or f != 0]
        expected.append(np.mean([roc_auc_score(several[rows, k], ps[rows, k]) for rows in parts]))
    assert value_of("mean_auc", several, [ps], [fold]) == pytest.approx(np.mean(expected), abs=1e-12)
    np.testing.assert_allclose(per_class("mean_auc", several, ps, fold), expected, atol=1e-12)
    several[:, 0] = 1
    assert np.isnan(per_class("mean_auc", several, ps, fold)[0])


def test_repeats_of_the_folds_are_no_more_cases() -> None:
    y, p, fold = cases()
    one, many = (over_cases("roc_auc", y, [p] * n, folds=[fold] * n)[1] for n in (1, 10))
    assert (one.low, one.high) == pytest.approx((many.low, many.high), abs=1e-12)


def test_influence_values_sum_to_zero_and_the_resampled_mean_is_that_of_the_metric() -> None:
    y, p, fold = cases()
    value, influence = within_folds.mean_and_influence(auc_and_influence, y, p, fold)
    assert influence.sum() == pytest.approx(0, abs=1e-12)
    statistic = weighted("roc_auc", y, p, np.arange(len(y)), fold)
    whole = np.ones((1, len(y)), dtype=np.uint16)
    assert statistic(whole)[0] == pytest.approx(value)
    step = np.ones((2, len(y)), dtype=np.uint16) * 1000
    step[1, 7] += 1
    low, high = statistic(step)
    assert 1000 * (high - low) == pytest.approx(influence[7], abs=2e-4)


@pytest.mark.parametrize("name", [name for name in METRICS if "binary" in METRICS[name].tasks and name != "ece"])
def test_every_binary_metric_has_a_wider_interval_with_folds(name: str) -> None:
    y, p, fold = cases()
    _, plain = over_cases(name, y, [p])
    _, folded = over_cases(name, y, [p], folds=[fold])
    assert folded.low < folded.high
    assert folded.method == f"{plain.method}; widened for dependent folds"


def test_the_correction_is_that_of_nadeau_and_bengio() -> None:
    assert within_folds.dependence(5) == pytest.approx(1 + 5 / 4)
    low, high = within_folds.widened(0.5, 0.4, 0.6, 4.0, (-np.inf, np.inf))
    assert (low, high) == pytest.approx((0.3, 0.7))
    low, high = within_folds.widened(0.9, 0.8, 0.95, 4.0, (0.0, 1.0))
    assert 0.6 < low < 0.8
    assert 0.95 < high < 1
    assert within_folds.widened(1.0, 0.9, 1.0, 4.0, (0.0, 1.0)) == pytest.approx((0.8, 1.0))
