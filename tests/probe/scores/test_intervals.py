"""Intervals over test cases equal their formulas, and cover the truth in simulations as often as they claim."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import ArrayLike
from scipy.special import ndtr, ndtri, stdtrit

from mt.errors import InputError
from mt.probe.scores import rank_metrics, sample
from mt.probe.scores.comparisons import compare
from mt.probe.scores.metrics import (
    METRICS,
    Metric,
    interval,
    metrics_for,
    over_cases,
    over_draws,
    score,
    weighted,
    with_draws,
)
from mt.probe.scores.rank_metrics import binormal_variance, delong, obuchowski
from mt.probe.scores.score_tables import score_tables, scored
from tests.probe.features import probed, store_of, write_pair

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
    rng, covered = np.random.default_rng(1), 0
    for _ in range(N_SIMULATIONS):
        low, high = interval("roc_auc", *_cases(rng, 100))
        covered += low <= TRUE_AUC <= high
    assert abs(covered / N_SIMULATIONS - 0.95) <= 0.02


def test_with_clustered_cases_group_intervals_cover_and_case_intervals_fail() -> None:
    rng, covered = np.random.default_rng(2), np.zeros(2)
    for _ in range(N_SIMULATIONS):
        y, p, groups = _clustered(rng, 50, 12)
        both = interval("roc_auc", y, p, groups=groups), interval("roc_auc", y, p)
        covered += [low <= TRUE_CLUSTERED_AUC <= high for low, high in both]
    assert abs(covered[0] / N_SIMULATIONS - 0.95) <= 0.02
    assert covered[1] / N_SIMULATIONS < 0.88


def test_the_naive_interval_is_too_narrow_for_clustered_cases() -> None:
    y, p, groups = _clustered(np.random.default_rng(3), 60, 20)
    (a, b), (c, d) = (interval("roc_auc", y, p, groups=g) for g in (None, groups))
    assert d - c > 1.7 * (b - a)


def test_an_interval_says_what_it_rests_on() -> None:
    y, p, groups = _clustered(np.random.default_rng(4), 20, 5)
    naive, grouped = (over_cases("roc_auc", y, [p], groups=g)[1] for g in (None, groups))
    assert (naive.independent, naive.n_units) == (True, 100)
    assert (grouped.independent, grouped.n_units) == (False, 20)
    assert (
        naive.note == "95 % interval over 100 test cases, assumed independent (Wilson, DeLong's or binormal variance)"
    )
    assert grouped.note == "95 % interval over 20 test groups of cases (Wilson, Obuchowski's or binormal variance)"


def test_resamples_without_a_class_are_redrawn_and_counted() -> None:
    y, p, unit = np.array([1, 1] + [0] * 28), np.linspace(1, 0, 30), np.arange(30)
    values, redrawn = sample.replicate([weighted("roc_auc", y, p, unit)], y, unit, n_resamples=2000, seed=0)
    # A resample lacks both positives with probability (28 / 30)^30.
    assert redrawn == pytest.approx(2000 * (28 / 30) ** 30, rel=0.2)
    assert np.isfinite(values).all()
    assert sample.replicate([weighted("accuracy", y, p, unit)], y, unit, n_resamples=200, seed=0)[1] == 0


def test_a_redrawn_resample_holds_as_many_units_of_each_class_as_the_sample() -> None:
    strata = sample._strata(np.array([1, 1, 0, 0, 0, 0]), np.array([0, 1, 1, 2, 3, 4]))
    rng = np.random.default_rng(0)
    for _ in range(20):
        drawn = sample._multiplicities(strata, rng)
        assert drawn[:2].tolist() == [1, 1]
        assert drawn[2:].sum() == 3


def test_an_undefined_score_has_no_interval_and_says_so() -> None:
    y, p = np.zeros(10, dtype=int), np.linspace(0, 1, 10)
    value, found = over_cases("roc_auc", y, [p])
    assert np.isnan([value, found.low, found.high]).all()
    assert found.note == "no interval: the score is not defined on these cases"
    with pytest.raises(InputError, match="No interval of ROC AUC: the score is not defined"):
        interval("roc_auc", y, p)


def test_one_group_gives_no_interval() -> None:
    y, p = _cases(np.random.default_rng(10), 30)
    with pytest.raises(InputError, match="all cases are of one group"):
        interval("roc_auc", y, p, groups=["only"] * 30)
    compared = compare("roc_auc", y, [p], [p[::-1]], groups=["only"] * 30, n_resamples=50)
    assert np.isnan([compared.low, compared.p]).all()


def test_resamples_depend_on_the_seed_and_not_on_the_number_of_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    y, p = _cases(np.random.default_rng(5), 3000)

    def values(seed: int) -> list[float]:
        statistic = weighted("roc_auc", y, p, np.arange(3000))
        found = sample.replicate([statistic], y, np.arange(3000), n_resamples=100, seed=seed)[0]
        return [float(value) for value in found[:, 0]]

    monkeypatch.setattr(sample, "_CHUNK_NUMBERS", 20 * 3000)
    first = values(1)
    monkeypatch.setattr(sample, "cores", lambda: 1)
    assert values(1) == first
    assert values(2) != first


def test_the_interval_over_cases_knows_nothing_of_the_spread_over_draws() -> None:
    rng = np.random.default_rng(6)
    y, p = _cases(rng, 200)
    p = 1 / (1 + np.exp(-p))
    one, several = (over_cases("brier", y, ps)[1] for ps in ([p], [p, p, p]))
    assert (several.low, several.high) == pytest.approx((one.low, one.high))
    assert over_draws([1.0, 2.0, 3.0]).sd == 1.0
    assert over_draws([2.0]).sd is None


def test_the_interval_of_the_expected_score_combines_draws_and_cases() -> None:
    values = [0.8, 0.82, 0.78]
    low, high = with_draws("roc_auc", values, 0.75, 0.84)
    half = 4.302652729696142 * np.std(values, ddof=1) / np.sqrt(3)
    assert (low, high) == pytest.approx((0.8 - np.hypot(0.05, half), 0.8 + np.hypot(0.04, half)))
    assert with_draws("roc_auc", [0.8, 0.8], 0.75, 0.84) == pytest.approx((0.75, 0.84))
    assert with_draws("roc_auc", [0.9, 0.99], 0.9, 0.97)[1] == 1
    assert with_draws("brier", [0.1, 0.01], 0.02, 0.1)[0] == 0
    assert with_draws("quadratic_kappa", [0.3, -0.3], -0.2, 0.2)[0] == -1
    assert with_draws("log_loss", [0.3, 1.9], 0.9, 1.4)[1] > 1


@pytest.mark.slow
def test_the_expected_score_over_draws_and_cases_is_covered() -> None:
    """Draws shift the separation of the classes; each simulation has new cases and new draws."""
    rng, covered, alone = np.random.default_rng(12), 0, 0
    draws = 1 + 0.4 * rng.normal(size=4000)
    truth = float(ndtr(draws / np.sqrt(2)).mean())
    for _ in range(300):
        y = (rng.random(120) < 0.4).astype(int)
        ps = [rng.normal(size=120) + (1 + 0.4 * rng.normal()) * y for _ in range(5)]
        values = [score("roc_auc", y, p) for p in ps]
        _, found = over_cases("roc_auc", y, ps)
        low, high = with_draws("roc_auc", values, found.low, found.high)
        covered += low <= truth <= high
        alone += found.low <= truth <= found.high
    assert covered / 300 >= 0.93
    assert alone < covered


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
    unit = sample.units_of(len(y), groups if grouped else None)
    statistics = [weighted("roc_auc", y, row, unit) for row in scores]
    values, _ = sample.replicate(statistics, y, unit, n_resamples=4000, seed=0)
    np.testing.assert_allclose(np.cov(values.T), covariance, rtol=0.12)
    contrast = np.array([1, -1])
    assert (values @ contrast).var() == pytest.approx(contrast @ covariance @ contrast, rel=0.1)


@pytest.mark.parametrize("auc", [0.3, 0.5, 0.85, 0.97, 0.999])
def test_the_binormal_variance_is_that_of_the_pairs_of_two_normal_distributions(auc: float) -> None:
    x, weights = np.polynomial.hermite_e.hermegauss(60)
    q = weights @ ndtr(np.sqrt(2) * ndtri(auc) - x) ** 2 / weights.sum()  # two negatives below one positive
    expected = (auc * (1 - auc) + (20 - 1 + 30 - 1) * (q - auc**2)) / (20 * 30)
    assert binormal_variance(auc, 20, 30) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("normal", [True, False])
def test_the_aucs_interval_is_wilsons_with_delongs_variance_or_the_larger_binormal_one(normal: bool) -> None:
    """Scores of two normal distributions with ends cut off show less variance; with a tail of misses they show more."""
    rng = np.random.default_rng(21)
    y = np.arange(300) % 2
    p = (
        np.clip(rng.normal(size=300), -1, 1) + 2 * y
        if normal
        else rng.normal(size=300) + 4 * y * (rng.random(300) < 0.8)
    )
    (value,), ((variance,),) = delong(y, p)
    assumed = binormal_variance(value, 150, 150)
    assert (assumed > variance) == normal
    expected = sample.wilson(value, value * (1 - value) / max(variance, assumed), float(stdtrit(149, 0.975)))
    assert interval("roc_auc", y, p) == pytest.approx(expected, rel=1e-12)


def test_groups_of_unlike_size_have_the_jackknifes_variance() -> None:
    rng = np.random.default_rng(22)
    groups = np.repeat(np.arange(12), np.arange(1, 13) * 4)
    y = rng.integers(0, 2, len(groups))
    p = rng.normal(size=len(y)) + 0.5 * y + rng.normal(size=12)[groups]
    value, influence = rank_metrics.auc_and_influence(y, p)
    cases = sample.Sample(y, (p,), groups, True, 0.95)
    found = rank_metrics._auc_variance(value, [influence], cases)
    # Without a group, to the first order: the mean of each class's influence values over its other cases.
    without = [sum(influence[(y == k) & (groups != g)].mean() * (y == k).sum() for k in (0, 1)) for g in range(12)]
    assert found == pytest.approx(np.square(without).sum(), rel=1e-9)


def test_a_variance_needs_two_units_of_each_class() -> None:
    with pytest.raises(InputError, match="two units of each class, found 3 and 1"):
        delong([1, 0, 0, 0], [0.5, 0.1, 0.2, 0.3])
    with pytest.raises(InputError, match="4 cases, 3 groups"):
        interval("roc_auc", [0, 1, 0, 1], [0.1, 0.2, 0.3, 0.4], groups=["a", "b", "c"])


# Every metric ---------------------------------------------------------------------------------------------------------


def _predictions(task: str, rng: np.random.Generator, n: int) -> tuple[np.ndarray, np.ndarray]:
    if task == "binary":
        y = rng.permutation(np.arange(n) % 3 == 0).astype(int)
        return y, 1 / (1 + np.exp(-(rng.normal(size=n) + y)))
    if task == "multilabel":
        y = np.stack([rng.permutation(np.arange(n) % 3 == 0) for _ in range(3)], axis=1).astype(int)
        return y, 1 / (1 + np.exp(-(rng.normal(size=y.shape) + y)))
    y = rng.permutation(np.arange(n) % 4)
    p = np.exp(rng.normal(size=(n, 4)) + 1.5 * np.eye(4)[y])
    return y, p / p.sum(axis=1, keepdims=True)


CASES = [(name, task) for name, metric in METRICS.items() for task in metric.tasks if name != "ece"]


@pytest.mark.parametrize(("name", "task"), CASES)
@pytest.mark.parametrize("n_groups", [None, 12])
def test_an_interval_holds_the_score_and_narrows_with_cases_and_level(
    name: str, task: str, n_groups: int | None
) -> None:
    y, p = _predictions(task, np.random.default_rng(1), 120)
    groups = None if n_groups is None else np.arange(120) % n_groups
    low, high = interval(name, y, p, groups=groups)
    assert low < score(name, y, p) < high
    narrow = interval(name, y, p, groups=groups, level=0.8)
    assert low < narrow[0] < narrow[1] < high
    many = interval(name, np.concatenate([y] * 4), np.concatenate([p] * 4))
    assert many[1] - many[0] < 0.75 * (high - low)


@pytest.mark.parametrize(("name", "task"), CASES)
@pytest.mark.parametrize("kind", ["perfect", "reversed", "constant"])
def test_no_interval_has_zero_width(name: str, task: str, kind: str) -> None:
    y, p = _predictions(task, np.random.default_rng(2), 40)
    truth = y.astype(float) if y.ndim == 2 or p.ndim == 1 else np.eye(4)[y]
    if kind == "reversed":
        truth = 1 - truth if y.ndim == 2 or p.ndim == 1 else np.eye(4)[(y + 1) % 4]
    if kind == "constant":
        truth = np.full(p.shape, 0.5 if task in ("binary", "multilabel") else 0.25)
    value, found = over_cases(name, y, [truth])
    if np.isnan(value):
        assert found.reason
        return
    assert found.low <= value <= found.high
    assert found.high - found.low > 0.01, found


def test_a_perfect_auc_has_newcombes_score_interval() -> None:
    """Newcombe 2006, method 5, at AUC 1 with 10 positives and 20 negatives: (1 - low)² = z² V(low)."""
    low, high = interval("roc_auc", [1] * 10 + [0] * 20, np.linspace(1, 0, 30))
    more, z = 14, 1.959963984540054
    variance = low * (1 - low) / 200 * (1 + more * (1 - low) / (2 - low) + more * low / (1 + low))
    assert high == 1
    assert (1 - low) ** 2 == pytest.approx(z**2 * variance)


def test_an_interval_of_accuracy_is_wilsons() -> None:
    y, p = np.ones(20, dtype=int), np.repeat([0.9, 0.1], [15, 5])
    assert interval("accuracy", y, p) == pytest.approx((0.5313, 0.8881), abs=1e-4)  # 15 of 20


def test_copies_of_a_case_in_one_group_add_nothing_to_a_proportion() -> None:
    y, p = _predictions("binary", np.random.default_rng(3), 60)
    once = interval("accuracy", y, p, groups=np.arange(60))
    copies = interval("accuracy", np.repeat(y, 5), np.repeat(p, 5), groups=np.repeat(np.arange(60), 5))
    assert copies == pytest.approx(once)


def test_the_expected_calibration_error_has_no_interval_and_says_why() -> None:
    y, p = _predictions("binary", np.random.default_rng(4), 60)
    value, found = over_cases("ece", y, [p])
    assert value == pytest.approx(score("ece", y, p))
    assert "positive by chance alone" in found.note
    with pytest.raises(InputError, match="No interval of expected calibration error"):
        interval("ece", y, p)


def _median_of_correct(y: np.ndarray, p: np.ndarray) -> float:
    return float(np.mean(np.where(y == 1, p, 1 - p) ** 3))


def test_a_registered_metric_without_a_rule_has_the_jackknifes_interval(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(METRICS, "cubes", Metric("cubes", ("binary",), _median_of_correct, True, "cubes"))
    y, p = _predictions("binary", np.random.default_rng(5), 80)
    each = np.where(y == 1, p, 1 - p) ** 3
    low, high = interval("cubes", y, p)
    half = 1.9904502102301287 * each.std(ddof=1) / np.sqrt(80)  # Student's t, 79 degrees of freedom
    assert (low, high) == pytest.approx((each.mean() - half, each.mean() + half))


@pytest.mark.parametrize("level", [0, 1, 95])
def test_a_level_is_a_share(level: float) -> None:
    with pytest.raises(InputError, match="level is between 0 and 1"):
        interval("roc_auc", [0, 1], [0.1, 0.9], level=level)


@pytest.mark.parametrize(
    ("name", "y", "p"),
    [
        ("macro_auc", [0, 1], [0.1, 0.9]),
        ("roc_auc", [0, 1], [[0.1, 0.9], [0.2, 0.8]]),
        ("mean_auc", [0, 1], [0.1, 0.9]),
    ],
)
def test_predictions_of_another_task_are_refused(name: str, y: list[int], p: ArrayLike) -> None:
    with pytest.raises(InputError, match="is a metric of"):
        interval(name, y, p)


def test_macro_f1_averages_the_classes_that_occur_in_truth_or_prediction() -> None:
    y, grades = np.repeat([0, 1], 30), np.repeat([0, 2, 1], [25, 10, 25])
    assert score("macro_f1", y, np.eye(3)[grades]) == pytest.approx(np.mean([50 / 55, 50 / 55, 0]))
    assert score("macro_f1", y, np.eye(3)[np.where(grades == 2, 0, grades)]) == pytest.approx(
        np.mean([60 / 65, 50 / 55])
    )


@pytest.mark.parametrize("metric", ["balanced_accuracy", "macro_f1", "log_loss", "brier"])
def test_without_a_case_of_a_class_there_is_no_interval_and_the_reason_says_what_is_needed(metric: str) -> None:
    p = np.linspace(0.1, 0.6, 40)
    with pytest.raises(InputError, match="1 of 2 classes has no test case; at least 1 of each is needed"):
        interval(metric, np.zeros(40, dtype=int), p)
    low, high = interval(metric, np.arange(40) == 39, p)
    assert 0 <= low < high
    assert metric == "log_loss" or high <= 1, "a Brier score, too, is at most 1"


def test_an_interval_of_three_classes_of_which_two_occur() -> None:
    y, p = np.arange(60) % 2, np.random.default_rng(6).dirichlet(np.ones(3), 60)
    value, found = over_cases("balanced_accuracy", y, [p])
    assert value == pytest.approx(score("balanced_accuracy", y, p))
    assert found.note == "no interval: 1 of 3 classes has no test case; at least 1 of each is needed"
    assert interval("log_loss", y, p)[0] < score("log_loss", y, p), "the loss is a mean over cases, not over classes"


@pytest.mark.parametrize("metric", ["average_precision", "sensitivity_at_95_specificity", "roc_auc"])
def test_how_much_is_resampled_at_once_changes_no_number(metric: str, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(3)
    y = rng.integers(0, 2, 3000)
    y[y.cumsum() > 20] = 0
    ps = [np.clip(0.3 * y + rng.random(3000), 0, 1) for _ in range(2)]
    whole = interval(metric, y, ps[0]), compare(metric, y, ps, ps[::-1], n_resamples=100)
    monkeypatch.setattr(sample, "_DRAWN_AT_ONCE", 1)
    monkeypatch.setattr("mt.probe.scores.rank_metrics._AT_ONCE", 1)
    parts = interval(metric, y, ps[0]), compare(metric, y, ps, ps[::-1], n_resamples=100)
    assert repr(parts) == repr(whole)  # NaN equals no NaN


@pytest.mark.parametrize("grouped", [False, True])
@pytest.mark.parametrize("task", ["binary", "multiclass", "ordinal", "multilabel"])
def test_the_public_interval_is_exactly_that_of_a_tables_row(tmp_path: Path, task: str, grouped: bool) -> None:
    write_pair(tmp_path, task=task, n_classes=2 if task == "binary" else 3, grouped=grouped)
    study = probed(tmp_path, fractions=[0.25], seeds=1, metrics=["all"])
    store = store_of(study)
    tables = score_tables(study.scores, store)
    assert {table.subject.metric for table in tables} == set(metrics_for(task))
    for table in tables:
        (cell,) = table.cells.values()
        (cases,) = scored(cell.scores, store)
        assert (cases.groups is not None) == grouped
        if cell.low is None:
            assert table.subject.metric == "ece"
            continue
        assert (cell.low, cell.high) == interval(table.subject.metric, cases.y, cases.p, groups=cases.groups)
