"""Rates, predictive values, likelihood ratios and net benefit at a threshold, empty cells included."""

from __future__ import annotations

import numpy as np
import pytest

from mt.errors import InputError
from mt.probe.scores.metrics import METRICS
from mt.probe.scores.operating import RATES, decision_curve, operating_point, operating_points

Y = np.repeat([1, 1, 0, 0], [30, 10, 20, 40])
P = np.repeat([0.8, 0.2, 0.7, 0.1], [30, 10, 20, 40])  # at 1/2: TP 30, FN 10, FP 20, TN 40


def test_every_number_is_that_of_the_two_by_two_table() -> None:
    found = operating_point(Y, P, 0.5, prevalence=0.02)
    assert (found.tp, found.fp, found.fn, found.tn) == (30, 20, 10, 40)
    expected = {
        "sensitivity": 0.75,
        "specificity": 2 / 3,
        "ppv": 0.6,
        "npv": 0.8,
        "lr_positive": 2.25,
        "lr_negative": 0.375,
        "ppv_at_prevalence": 0.75 * 0.02 / (0.75 * 0.02 + 0.98 / 3),
        "npv_at_prevalence": 0.98 * 2 / 3 / (0.98 * 2 / 3 + 0.25 * 0.02),
    }
    for name, value in expected.items():
        one = found.measures[name]
        assert one.value == pytest.approx(value), name
        assert one.low < value < one.high, name


def test_wilson_is_the_interval_of_a_rate() -> None:
    one = operating_point(Y, P, 0.5).measures["sensitivity"]
    assert (one.low, one.high) == pytest.approx((0.5981, 0.8581), abs=1e-4)


def test_a_case_at_the_threshold_is_called_positive() -> None:
    assert operating_point(Y, P, 0.7).fp == 20
    assert operating_point(Y, P, np.nextafter(0.7, 1)).fp == 0


@pytest.mark.parametrize(
    ("threshold", "undefined", "infinite"),
    [(0.75, (), ("lr_positive",)), (0.0, ("npv", "lr_negative"), ()), (1.0, ("ppv", "lr_positive"), ())],
)
def test_empty_cells_have_an_interval_or_a_reason(
    threshold: float, undefined: tuple[str, ...], infinite: tuple[str, ...]
) -> None:
    found = operating_point(Y, P, threshold).measures
    for name in RATES:
        one = found[name]
        assert bool(one.reason) == (name in undefined), name
        assert np.isinf(one.value) == (name in infinite), name
        if not one.reason:
            assert one.low < one.high, name
    if infinite:
        assert found["lr_positive"].low > 1
        assert found["lr_positive"].high == np.inf


@pytest.mark.parametrize("label", [0, 1])
def test_without_a_class_what_needs_it_is_refused_with_the_reason(label: int) -> None:
    found = operating_point(np.full(20, label), np.linspace(0, 1, 20), 0.5).measures
    lacking = "sensitivity" if label == 0 else "specificity"
    for name in (lacking, "lr_positive", "lr_negative"):
        assert np.isnan(found[name].value)
        assert found[name].reason in ("no case is positive", "no case is negative")


def test_dependent_cases_make_intervals_longer() -> None:
    # Every group holds one case ten times: 100 cases carry the information of 10.
    y, p = np.repeat(np.arange(10) % 2, 10), np.repeat(np.array([0.2, 0.8, 0.7, 0.9, 0.1, 0.3, 0.2, 0.6, 0.4, 0.7]), 10)
    alone = operating_point(y, p, 0.5).measures
    grouped = operating_point(y, p, 0.5, groups=np.repeat(np.arange(10), 10)).measures
    for name in RATES:
        assert grouped[name].high - grouped[name].low > alone[name].high - alone[name].low, name


def test_several_draws_are_one_mean() -> None:
    found = operating_points(Y, [P, P], [0.5, 0.75])
    first, second = (operating_point(Y, P, t) for t in (0.5, 0.75))
    assert found.fp == (first.fp + second.fp) / 2
    assert found.measures["ppv"].value == pytest.approx(
        (first.measures["ppv"].value + second.measures["ppv"].value) / 2
    )
    without = operating_points(Y, [P, P], [0.5, 1.0]).measures["ppv"]
    assert without.reason == "no case is called positive in 1 of 2 draws"


def test_the_decision_curve_is_net_benefit_with_a_band() -> None:
    found = decision_curve(Y, P, thresholds=[0.05, 0.5, 0.75, 0.9])
    np.testing.assert_allclose(found.model, [0.4 - 0.6 / 19, 0.3 - 0.2, 0.3, 0.0], atol=1e-12)
    np.testing.assert_allclose(found.treat_all, [0.4 - 0.6 / 19, -0.2, -1.4, -5.0])
    assert (found.low < found.model).all()
    assert (found.model < found.high).all()
    assert len(decision_curve(Y, P).thresholds) == 99


def test_what_is_no_share_is_refused() -> None:
    with pytest.raises(InputError, match="prevalence is between 0 and 1"):
        operating_point(Y, P, 0.5, prevalence=2)
    with pytest.raises(InputError, match="between 0 and 1, both excluded"):
        decision_curve(Y, P, thresholds=[1.0])
    with pytest.raises(InputError, match="one label"):
        operating_point(np.stack([Y, Y], axis=1), np.stack([P, P], axis=1), 0.5)


def test_a_threshold_from_test_labels_is_called_an_oracles() -> None:
    assert "oracle" in METRICS["sensitivity_at_95_specificity"].label
    assert not set(RATES) & set(METRICS)
