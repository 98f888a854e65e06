"""Intervals over test cases: exact where there is a formula, and covering as often as they say in simulations."""

from __future__ import annotations

import numpy as np
import pytest

from mt.errors import InputError
from mt.probe.scores import bootstrap
from mt.probe.scores.comparisons import compare
from mt.probe.scores.intervals import (
    auc_interval,
    bootstrap_interval,
    bootstrap_mean_interval,
    delong,
    obuchowski,
    over_draws,
)
from mt.probe.scores.metrics import weighted

N_SIMULATIONS = 600


def _cases(rng: np.random.Generator, n: int) -> tuple[np.ndarray, np.ndarray]:
    """Independent cases: normal scores, one standard deviation apart."""
    y = (rng.random(n) < 0.4).astype(int)
    return y, rng.normal(size=n) + y


def _clustered(rng: np.random.Generator, n_groups: int, size: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Cases of a group share part of their score, and the prevalence."""
    groups = np.repeat(np.arange(n_groups), size)
    prevalence = np.clip(0.4 + 0.25 * rng.normal(size=n_groups), 0.05, 0.95)
    y = (rng.random(n_groups * size) < prevalence[groups]).astype(int)
    return y, rng.normal(size=len(y)) + y + rng.normal(size=n_groups)[groups], groups


# Φ(difference of means / deviation of a difference): Φ(1 / √2), and with the groups' share Φ(1 / √4).
TRUE_AUC, TRUE_CLUSTERED_AUC = 0.76025, 0.69146


def test_95_percent_intervals_of_independent_cases_cover_the_truth_as_often() -> None:
    rng, covered = np.random.default_rng(1), np.zeros(2)
    for seed in range(N_SIMULATIONS):
        y, p = _cases(rng, 100)
        for k, found in enumerate(
            (bootstrap_interval("roc_auc", y, p, n_resamples=400, seed=seed), auc_interval(y, p))
        ):
            covered[k] += found.low <= TRUE_AUC <= found.high
    assert (np.abs(covered / N_SIMULATIONS - 0.95) <= 0.02).all()


def test_with_clustered_cases_group_intervals_cover_and_case_intervals_fail() -> None:
    rng, covered = np.random.default_rng(2), np.zeros(4)
    for seed in range(N_SIMULATIONS):
        y, p, groups = _clustered(rng, 50, 12)
        intervals = (
            bootstrap_interval("roc_auc", y, p, groups=groups, n_resamples=400, seed=seed),
            auc_interval(y, p, groups=groups),
            auc_interval(y, p),
            bootstrap_interval("roc_auc", y, p, n_resamples=400, seed=seed),
        )
        covered += [found.low <= TRUE_CLUSTERED_AUC <= found.high for found in intervals]
    assert (np.abs(covered[:2] / N_SIMULATIONS - 0.95) <= 0.02).all()
    assert (covered[2:] / N_SIMULATIONS < 0.88).all()


def test_the_naive_case_bootstrap_is_too_narrow_for_clustered_cases() -> None:
    y, p, groups = _clustered(np.random.default_rng(3), 60, 20)
    naive, grouped = (bootstrap_interval("roc_auc", y, p, groups=g) for g in (None, groups))
    assert grouped.high - grouped.low > 1.7 * (naive.high - naive.low)


def test_an_interval_says_what_it_rests_on() -> None:
    y, p, groups = _clustered(np.random.default_rng(4), 20, 5)
    naive, grouped = (bootstrap_interval("roc_auc", y, p, groups=g, n_resamples=50) for g in (None, groups))
    assert (naive.independent, naive.n_units) == (True, 100)
    assert (grouped.independent, grouped.n_units) == (False, 20)
    assert naive.note == "95 % interval over 100 test cases, assumed independent (bootstrap)"
    assert grouped.note == "95 % interval over 20 test groups of cases (bootstrap)"
    assert auc_interval(y, p).method == "delong"
    assert auc_interval(y, p, groups=groups).method == "obuchowski"


@pytest.mark.parametrize("grouped", [False, True])
def test_resamples_without_a_class_are_redrawn_and_counted(grouped: bool) -> None:
    y = np.array([1, 1] + [0] * 28)
    p = np.linspace(1, 0, 30)
    found = bootstrap_interval("roc_auc", y, p, groups=np.arange(30) if grouped else None, n_resamples=2000)
    # A resample lacks both positives with probability (28 / 30)^30.
    assert found.redrawn == pytest.approx(2000 * (28 / 30) ** 30, rel=0.2)
    assert found.low == found.high == 1.0
    assert bootstrap_interval("accuracy", y, p, n_resamples=200).redrawn == 0
    unit = np.arange(30)
    values, _ = bootstrap.replicate([weighted("roc_auc", y, p, unit)], y, unit, n_resamples=500, seed=0)
    assert np.isfinite(values).all()


def test_a_redrawn_resample_holds_as_many_units_of_each_class_as_the_sample() -> None:
    strata = bootstrap._strata(np.array([1, 1, 0, 0, 0, 0]), np.array([0, 1, 1, 2, 3, 4]))
    rng = np.random.default_rng(0)
    for _ in range(20):
        drawn = bootstrap._multiplicities(strata, rng)
        assert drawn[:2].tolist() == [1, 1]
        assert drawn[2:].sum() == 3


def test_an_undefined_score_has_an_undefined_interval() -> None:
    found = bootstrap_interval("roc_auc", np.zeros(10, dtype=int), np.linspace(0, 1, 10))
    assert np.isnan([found.low, found.high]).all()


def test_one_group_gives_no_interval() -> None:
    y, p = _cases(np.random.default_rng(10), 30)
    found = bootstrap_interval("roc_auc", y, p, groups=["only"] * 30)
    assert np.isnan([found.low, found.high]).all()
    compared = compare("roc_auc", y, [p], [p[::-1]], groups=["only"] * 30, n_resamples=50)
    assert np.isnan([compared.low, compared.p]).all()


def test_intervals_depend_on_the_seed_and_not_on_the_number_of_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    y, p = _cases(np.random.default_rng(5), 3000)
    monkeypatch.setattr(bootstrap, "_CHUNK_NUMBERS", 20 * 3000)
    first = bootstrap_interval("roc_auc", y, p, n_resamples=100, seed=1)
    monkeypatch.setattr(bootstrap, "cores", lambda: 1)
    assert bootstrap_interval("roc_auc", y, p, n_resamples=100, seed=1) == first
    assert bootstrap_interval("roc_auc", y, p, n_resamples=100, seed=2) != first


def test_the_interval_over_cases_knows_nothing_of_the_spread_over_draws() -> None:
    rng = np.random.default_rng(6)
    y = np.zeros(200, dtype=int)
    squared_error = rng.random(200)
    alike = [np.sqrt(squared_error + 1)] * 4
    apart = [np.sqrt(squared_error + 1 + shift) for shift in (-0.9, -0.3, 0.3, 0.9)]
    one, other = (bootstrap_mean_interval("brier", y, ps) for ps in (alike, apart))
    assert other.high - other.low == pytest.approx(one.high - one.low)
    assert one == bootstrap_interval("brier", y, alike[0])
    assert over_draws([1.0, 2.0, 3.0]).sd == 1.0
    assert over_draws([2.0]).sd is None


def _delong_by_pairs(y: np.ndarray, scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """DeLong et al. 1988, as written: ψ of every pair, then the covariances of its row and column means."""
    positive, negative = scores[:, y == 1], scores[:, y == 0]
    psi = (positive[:, :, None] > negative[:, None, :]) + 0.5 * (positive[:, :, None] == negative[:, None, :])
    s10, s01 = np.cov(psi.mean(axis=2)), np.cov(psi.mean(axis=1))
    return psi.mean(axis=(1, 2)), s10 / positive.shape[1] + s01 / negative.shape[1]


def test_delong_equals_the_formula_over_all_pairs_ties_included() -> None:
    rng = np.random.default_rng(7)
    y, p = _cases(rng, 90)
    scores = np.stack([p, np.round(p + rng.normal(size=90)), rng.normal(size=90)])
    for found, expected in zip(delong(y, scores), _delong_by_pairs(y, scores), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-10)


def test_obuchowski_with_a_case_a_group_is_delong_and_copies_of_a_case_add_nothing() -> None:
    rng = np.random.default_rng(8)
    y, p = _cases(rng, 80)
    scores = np.stack([p, p + rng.normal(size=80)])
    _, expected = delong(y, scores)
    np.testing.assert_allclose(obuchowski(y, scores, np.arange(80))[1], expected, rtol=1e-10)
    copies = obuchowski(np.repeat(y, 5), np.repeat(scores, 5, axis=1), np.repeat(np.arange(80), 5))[1]
    np.testing.assert_allclose(copies, expected, rtol=1e-10)


@pytest.mark.parametrize("grouped", [False, True])
def test_the_formulas_and_the_bootstrap_agree_on_a_paired_difference(grouped: bool) -> None:
    rng = np.random.default_rng(9)
    y, p, groups = _clustered(rng, 150, 6)
    scores = np.stack([p, p + 0.7 * rng.normal(size=len(p)) + 0.7 * rng.normal(size=150)[groups]])
    _, covariance = obuchowski(y, scores, groups if grouped else None)
    unit = bootstrap.units_of(len(y), groups if grouped else None)
    statistics = [weighted("roc_auc", y, row, unit) for row in scores]
    values, _ = bootstrap.replicate(statistics, y, unit, n_resamples=4000, seed=0)
    np.testing.assert_allclose(np.cov(values.T), covariance, rtol=0.12)
    contrast = np.array([1, -1])
    assert (values @ contrast).var() == pytest.approx(contrast @ covariance @ contrast, rel=0.1)


def test_a_variance_needs_two_units_of_each_class() -> None:
    with pytest.raises(InputError, match="two units of each class, found 3 and 1"):
        delong([1, 0, 0, 0], [0.5, 0.1, 0.2, 0.3])
    with pytest.raises(InputError, match="4 cases, 3 groups"):
        bootstrap_interval("roc_auc", [0, 1, 0, 1], [0.1, 0.2, 0.3, 0.4], groups=["a", "b", "c"])
