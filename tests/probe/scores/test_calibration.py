"""Calibration: known cases, a calibrated model, and what cannot be computed."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from mt.errors import InputError
from mt.probe.scores.calibration import calibration, calibration_curve
from mt.probe.scores.metrics import interval, score


def _cases(n: int, *, sharper: float = 1.0, shift: float = 0.0, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Labels from logits; predictions whose logits are `sharper` times as large, and shifted."""
    rng = np.random.default_rng(seed)
    logit = 1.5 * rng.normal(size=n)
    y = (rng.random(n) < 1 / (1 + np.exp(-logit))).astype(int)
    return y, 1 / (1 + np.exp(-(sharper * logit + shift)))


def test_slope_and_intercept_are_those_of_a_logistic_regression_on_the_logit() -> None:
    y, p = _cases(400, sharper=2.0)
    logit = np.log(p / (1 - p))[:, None]
    fit = LogisticRegression(C=np.inf, tol=1e-10).fit(logit, y)
    found = calibration(y, p)
    assert found.slope.value == pytest.approx(fit.coef_[0, 0], abs=1e-4)
    assert found.slope.high < 1  # too sharp
    assert found.intercept.low < 0 < found.intercept.high


def test_a_shift_is_told_by_the_intercept_and_the_observed_expected_ratio() -> None:
    y, p = _cases(2000, shift=0.8)
    found = calibration(y, p)
    assert found.intercept.low < -0.8 < found.intercept.high < 0
    assert found.observed_expected.value == pytest.approx(y.sum() / p.sum())
    assert found.observed_expected.high < 1
    # The intercept makes the mean probability right.
    logit = np.log(p / (1 - p))
    assert np.mean(1 / (1 + np.exp(-(logit + found.intercept.value)))) == pytest.approx(y.mean())


def test_a_calibrated_models_ece_lies_in_its_range_and_the_debiased_one_is_smaller() -> None:
    inside, plain, debiased = 0, [], []
    for seed in range(100):
        y, p = _cases(150, seed=seed)
        found = calibration(y, p)
        inside += found.ece_if_calibrated.low <= found.ece <= found.ece_if_calibrated.high
        plain.append(found.ece - found.ece_if_calibrated.value)
        debiased.append(found.ece_debiased / found.ece)
    assert inside >= 88
    assert abs(np.mean(plain)) < 0.005  # the mean under calibration is what a calibrated model has
    assert np.mean(debiased) < 0.8


def test_the_ece_is_the_metrics_own() -> None:
    y, p = _cases(300)
    assert calibration(y, p).ece == pytest.approx(score("ece", y, p))


def test_several_classes_are_judged_by_the_predicted_one() -> None:
    rng = np.random.default_rng(2)
    p = rng.dirichlet([1, 1, 1], size=3000)
    y = (rng.random((3000, 1)) > p.cumsum(axis=1)).sum(axis=1)
    found = calibration(y, p)
    assert found.slope.low < 1 < found.slope.high
    assert found.observed_expected.low < 1 < found.observed_expected.high


@pytest.mark.parametrize("name", ["calibration_intercept", "calibration_slope", "observed_expected"])
def test_each_measure_has_a_public_interval_that_groups_widen(name: str) -> None:
    y, p = _cases(100)
    alone = interval(name, y, p)
    copied = interval(name, np.repeat(y, 5), np.repeat(p, 5), groups=np.repeat(np.arange(100), 5))
    naive = interval(name, np.repeat(y, 5), np.repeat(p, 5))
    assert copied[1] - copied[0] == pytest.approx(alone[1] - alone[0], rel=0.02)
    assert naive[1] - naive[0] < 0.6 * (copied[1] - copied[0])


def test_predictions_that_separate_the_classes_have_no_slope_and_say_so() -> None:
    y = np.repeat([0, 1], 20)
    p = np.where(y == 1, 0.9, 0.1) + np.linspace(-0.05, 0.05, 40)
    found = calibration(y, p)
    assert np.isnan([found.slope.low, found.slope.high]).all()
    assert "separate the classes" in found.slope.reason
    assert np.isfinite(found.intercept.low)
    with pytest.raises(InputError, match="No interval of calibration_slope"):
        interval("calibration_slope", y, p)


def test_probabilities_of_0_and_1_are_accepted() -> None:
    y, p = _cases(200)
    p[:2], y[:2] = [0, 1], [1, 0]
    assert np.isfinite(calibration(y, p).slope.value)


def test_what_is_no_probability_or_has_several_labels_is_refused() -> None:
    with pytest.raises(InputError, match="found -1 to 2"):
        calibration([0, 1], [-1, 2])
    with pytest.raises(InputError, match="one label at a time"):
        calibration([[0, 1], [1, 0]], [[0.2, 0.8], [0.7, 0.3]])


def test_the_calibration_curve_follows_the_truth_inside_its_band() -> None:
    inside, n_simulations = np.zeros(50), 100
    for seed in range(n_simulations):
        y, p = _cases(300, sharper=2.0, seed=seed)
        curve = calibration_curve(y, p)
        truth = 1 / (1 + np.exp(-np.log(curve["p"] / (1 - curve["p"])) / 2))
        inside += (curve["low"] <= truth) & (truth <= curve["high"])
    assert (inside / n_simulations).mean() >= 0.93
    assert (inside / n_simulations).min() >= 0.86
    assert (np.diff(curve["p"]) > 0).all()


def test_the_band_of_a_calibration_curve_respects_groups() -> None:
    y, p = _cases(200)
    widths = []
    for groups in (None, np.repeat(np.arange(200), 4)):
        curve = calibration_curve(np.repeat(y, 4), np.repeat(p, 4), groups=groups)
        widths.append((curve["high"] - curve["low"]).mean())
    assert widths[1] > 1.7 * widths[0]


def test_predictions_that_separate_the_classes_have_no_curve() -> None:
    curve = calibration_curve(np.repeat([0, 1], 20), np.linspace(0.1, 0.9, 40))
    assert all(len(values) == 0 for values in curve.values())
