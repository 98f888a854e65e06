"""Paired comparisons: exact cases, and simulations of what they promise."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy.stats import norm

from mt.errors import InputError
from mt.probe.scores.comparisons import compare, holm, replicate_scores
from mt.probe.scores.rank_metrics import delong

N_SIMULATIONS = 500


def _squared(errors: np.ndarray) -> np.ndarray:
    """Predictions whose Brier score, for labels 0, is the mean of `errors`: any distribution of scores can be had."""
    return np.asarray(np.sqrt(np.maximum(0, errors + 20)))


def _method(
    rng: np.random.Generator, groups: np.ndarray, *, n_draws: int, cases: float, draws: float, together: float
) -> list[np.ndarray]:
    """One method's squared errors, mean 20: normal effects of cases (half of them the group's), draws, and both."""

    def effect() -> np.ndarray:
        return np.asarray((rng.normal(size=groups.max() + 1)[groups] + rng.normal(size=len(groups))) / np.sqrt(2))

    shared = cases * effect()
    return [_squared(shared + draws * rng.normal() + together * effect()) for _ in range(n_draws)]


@pytest.mark.parametrize(
    ("n_draws", "n_groups", "size", "cases", "draws", "together"),
    [
        (1, 100, 1, 1.0, 0.0, 1.0),
        (1, 50, 4, 1.0, 0.0, 1.0),
        (5, 100, 1, 0.5, 0.3, 0.5),
        (5, 50, 4, 0.3, 0.0, 1.0),
        (5, 50, 4, 0.5, 0.2, 0.3),
        (3, 60, 1, 0.1, 1.0, 0.1),
    ],
)
def test_95_percent_intervals_cover_and_5_percent_tests_reject_as_often_as_they_say(
    n_draws: int, n_groups: int, size: int, cases: float, draws: float, together: float
) -> None:
    rng, groups = np.random.default_rng(1), np.repeat(np.arange(n_groups), size)
    labels = np.zeros(len(groups), dtype=int)
    covered = rejected = 0
    for seed in range(N_SIMULATIONS):
        effects: dict[str, Any] = {"n_draws": n_draws, "cases": cases, "draws": draws, "together": together}
        a, b = (_method(rng, groups, **effects) for _ in range(2))
        found = compare("brier", labels, a, b, groups=groups if size > 1 else None, n_resamples=300, seed=seed)
        covered += found.low <= 0 <= found.high
        rejected += found.p <= 0.05
    assert abs(covered / N_SIMULATIONS - 0.95) <= 0.02
    # At most the nominal rate, plus two standard errors for the number of simulations.
    assert rejected / N_SIMULATIONS <= 0.05 + 2 * np.sqrt(0.05 * 0.95 / N_SIMULATIONS)


def _noise(rng: np.random.Generator, groups: np.ndarray) -> np.ndarray:
    """Return the noise that a draw adds to the scores of cases; half of its variance is common to a group."""
    return np.asarray(0.4 * rng.normal(size=groups.max() + 1)[groups] + 0.4 * rng.normal(size=len(groups)))


def test_differences_of_auc_on_clustered_cases_cover_the_truth_and_reject_as_often_as_they_say() -> None:
    """Two methods whose true AUC is equal: each adds noise of the same distribution to a shared score."""
    rng, groups, n_simulations = np.random.default_rng(3), np.repeat(np.arange(60), 5), 300
    covered = rejected = 0
    for seed in range(n_simulations):
        y = (rng.random(300) < np.clip(0.4 + 0.2 * rng.normal(size=60), 0.05, 0.95)[groups]).astype(int)
        shared = y + rng.normal(size=60)[groups] + rng.normal(size=300)
        means = [shared + 0.5 * rng.normal(size=60)[groups] for _ in range(2)]
        a, b = ([mean + _noise(rng, groups) for _ in range(3)] for mean in means)
        found = compare("roc_auc", y, a, b, groups=groups, n_resamples=300, seed=seed)
        covered += found.low <= 0 <= found.high
        rejected += found.p <= 0.05
    assert 0.93 <= covered / n_simulations <= 0.98
    assert rejected / n_simulations <= 0.05 + 2 * np.sqrt(0.05 * 0.95 / n_simulations)


def test_without_its_groups_a_comparison_rejects_true_nulls_far_too_often() -> None:
    rng, groups = np.random.default_rng(2), np.repeat(np.arange(40), 10)
    rejected = 0
    for seed in range(200):
        a, b = (_method(rng, groups, n_draws=1, cases=1.0, draws=0.0, together=0.0) for _ in range(2))
        rejected += compare("brier", np.zeros(400, dtype=int), a, b, n_resamples=200, seed=seed).p <= 0.05
    assert rejected / 200 > 0.2


def _scores(seed: int = 0, n: int = 400, n_draws: int = 3) -> tuple[np.ndarray, list[np.ndarray], list[np.ndarray]]:
    rng = np.random.default_rng(seed)
    y = rng.integers(0, 2, n)
    base = rng.normal(size=n) + y
    near, far = ([base + s * rng.normal(size=n) for _ in range(n_draws)] for s in (0.3, 1.0))
    return y, near, far


def test_the_estimand_is_the_mean_difference_over_draws() -> None:
    y, a, b = _scores()
    found = compare("roc_auc", y, a, b, n_resamples=200)
    assert found.difference == pytest.approx(delong(y, a)[0].mean() - delong(y, b)[0].mean())
    assert (found.n_draws, found.n_units, found.independent) == (3, 400, True)
    turned = compare("roc_auc", y, b, a, n_resamples=200)
    assert (turned.difference, turned.low, turned.p) == pytest.approx((-found.difference, -found.high, found.p))


def test_the_same_predictions_have_neither_interval_nor_p_and_say_so() -> None:
    y, a, b = _scores()
    for again in (a, [p + 1e-8 for p in a]):
        same = compare("roc_auc", y, a, again, n_resamples=300)
        assert (same.difference, same.reason) == (0, "same predictions")
        assert np.isnan([same.low, same.high, same.p]).all()
    assert compare("roc_auc", y, a, [*a[:-1], b[-1]], n_resamples=300).reason == "", "one draw differs"


def test_accuracy_sees_predicted_classes_alone() -> None:
    y, a, _ = _scores()
    p = [1 / (1 + np.exp(-one)) for one in a]
    cooler = [1 / (1 + np.exp(-2 * one)) for one in a]
    assert compare("accuracy", y, p, cooler, n_resamples=300).reason == "same predictions"
    assert compare("log_loss", y, p, cooler, n_resamples=300).reason == ""


def test_a_difference_that_no_resample_changes_has_no_interval() -> None:
    y = np.arange(40) % 2
    right, surer = np.where(y == 1, 0.8, 0.2), np.where(y == 1, 0.9, 0.1) + 0.01 * np.sin(np.arange(40))
    for other, difference in ((surer, 0), (1 - right, 1)):
        found = compare("roc_auc", y, [right], [other], n_resamples=300)
        assert (found.difference, found.reason) == (difference, "same on every resample")
        assert np.isnan([found.low, found.high, found.p]).all()


def test_a_clear_difference_has_the_smallest_p_there_is() -> None:
    y, a, b = _scores()
    perfect = [y + 0.0] * 3
    assert compare("roc_auc", y, perfect, [np.random.default_rng(0).random(400)] * 3, n_resamples=300).p == 1 / 301
    assert compare("roc_auc", y, a, b, n_resamples=300).p < 0.05


def test_with_one_draw_the_comparison_agrees_with_delong() -> None:
    y, [a], [b] = _scores(seed=4, n=500, n_draws=1)
    auc, covariance = delong(y, [a, b])
    error = np.sqrt(np.array([1, -1]) @ covariance @ np.array([1, -1]))
    found = compare("roc_auc", y, [a], [b], n_resamples=4000)
    assert (found.high - found.low) / (2 * norm.ppf(0.975)) == pytest.approx(error, rel=0.06)
    assert found.p == pytest.approx(2 * norm.sf(abs(auc[0] - auc[1]) / error), abs=0.02)


def test_what_methods_share_cancels_because_all_share_each_resample() -> None:
    rng, y = np.random.default_rng(5), np.zeros(300, dtype=int)
    shared = 3 * rng.normal(size=300)
    a, b = ([_squared(shared + 0.1 * rng.normal(size=300))] for _ in range(2))
    found = compare("brier", y, a, b, n_resamples=500)
    assert found.high - found.low < 0.1
    assert compare("brier", y, a, [one[::-1] for one in b], n_resamples=500).high > 0.3


def test_draws_are_resampled_where_there_are_several() -> None:
    y, rng = np.zeros(200, dtype=int), np.random.default_rng(6)
    same, apart = ([_squared(rng.normal(size=200) + k * step) for k in range(5)] for step in (0.0, 0.5))
    flat = [_squared(np.zeros(200))] * 5
    narrow, wide = (compare("brier", y, a, flat, n_resamples=500) for a in (same, apart))
    assert wide.high - wide.low > 3 * (narrow.high - narrow.low)


def test_few_positives_are_redrawn_counted_and_leave_nothing_undefined() -> None:
    y = np.array([1, 1] + [0] * 38)
    rng = np.random.default_rng(7)
    found = compare("roc_auc", y, [rng.random(40)], [rng.random(40)], n_resamples=1000)
    assert found.redrawn == pytest.approx(1000 * (38 / 40) ** 40, rel=0.3)
    assert found.n_resamples == 1000
    undefined = compare("roc_auc", np.zeros(40, dtype=int), [rng.random(40)], [rng.random(40)], n_resamples=50)
    assert np.isnan([undefined.difference, undefined.low, undefined.p]).all()


def test_methods_with_other_draws_cannot_be_paired() -> None:
    y, a, b = _scores()
    with pytest.raises(InputError, match=r"same draws of every method, found \[2, 3\]"):
        compare("roc_auc", y, a, b[:2])


def test_holm_adjusts_as_published_and_skips_what_is_undefined() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.9, 0.8]) == [1, 1]
    adjusted = holm([0.02, np.nan, 0.01])
    assert (adjusted[0], adjusted[2]) == (0.02, 0.02)
    assert np.isnan(adjusted[1])
    assert holm([]) == []


# Sets that hold the best ---------------------------------------------------------------------------------------------


def _competitors(rng: np.random.Generator, worse_by: list[float], n: int = 80) -> dict[str, list[np.ndarray]]:
    common = rng.normal(size=n)
    return {str(k): [_squared(common + worse + rng.normal(size=n))] for k, worse in enumerate(worse_by)}


def test_the_best_method_stays_in_the_set_95_times_in_100_however_many_compete() -> None:
    rng, stayed, sizes = np.random.default_rng(8), 0, []
    for seed in range(N_SIMULATIONS):
        methods = _competitors(rng, [0.0] * 8)
        found = replicate_scores(
            "brier", np.zeros(80, dtype=int), methods, n_resamples=300, seed=seed
        ).not_worse_than_best()
        stayed += "0" in found
        sizes.append(len(found))
    assert 0.93 <= stayed / N_SIMULATIONS <= 0.98
    assert np.mean(sizes) > 7


def test_clearly_worse_methods_leave_the_set_and_the_best_never_does() -> None:
    rng = np.random.default_rng(9)
    methods = _competitors(rng, [0.0, 0.05, 2.0, 3.0], n=300)
    found = replicate_scores("brier", np.zeros(300, dtype=int), methods, n_resamples=500)
    best = found.names[int(found.scores.mean(axis=1).argmin())]
    assert best in found.not_worse_than_best()
    assert set(found.not_worse_than_best()) == {"0", "1"}
    assert not found.greater_is_better


def test_a_set_follows_the_direction_of_the_metric_and_leaves_undefined_methods_out() -> None:
    y, a, b = _scores(n=2000)
    found = replicate_scores("roc_auc", y, {"a": a, "b": b, "copy of a": a}, n_resamples=300)
    assert found.not_worse_than_best() == ("a", "copy of a")
    kappa = replicate_scores(
        "quadratic_kappa",
        np.array([0, 0, 0, 0]),
        {"all 0": [np.eye(3)[[0, 0, 0, 0]]], "b": [np.eye(3)[[0, 1, 0, 2]]]},
        n_resamples=50,
    )
    assert kappa.not_worse_than_best() == ("b",)
