"""Scaling on out-of-fold scores finds the true scale, keeps ranks, and changes nothing if it cannot be estimated."""

from __future__ import annotations

import numpy as np
import pytest

from mt.errors import InputError
from mt.probe.decisions.scaling import KINDS, Scaled, check_kind, fit_scaling
from mt.types import Array

RNG = np.random.default_rng(0)


def overconfident(n: int, classes: int, times: float) -> tuple[Array, Array]:
    """Return labels and probabilities whose logits are `times` too large."""
    logits = RNG.normal(size=(n, classes)) * 1.5
    truth = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    y = (RNG.random((n, 1)) > truth.cumsum(axis=1)).sum(axis=1)
    wrong = np.exp(times * logits)
    return y, wrong / wrong.sum(axis=1, keepdims=True)


@pytest.mark.parametrize("kind", KINDS)
def test_of_two_classes_it_finds_how_much_too_large_the_logits_are(kind: str) -> None:
    y, p = overconfident(20_000, 2, 3.0)
    found = fit_scaling(kind, y, p[:, 1], "binary")
    assert found.slope == pytest.approx((1 / 3,), abs=0.02)
    assert found.intercept == pytest.approx((0,), abs=0.05)
    both = found.apply(p, "binary")
    np.testing.assert_allclose(both[:, 1], found.apply(p[:, 1], "binary"), atol=1e-6)


def test_platt_also_moves_the_mean() -> None:
    y, p = overconfident(20_000, 2, 1.0)
    odds = np.exp(1.0) * p[:, 1] / p[:, 0]
    found = fit_scaling("platt", y, odds / (1 + odds), "binary")
    assert found.intercept == pytest.approx((-1,), abs=0.06)
    assert found.slope == pytest.approx((1,), abs=0.05)


def test_of_several_classes_there_is_one_temperature() -> None:
    y, p = overconfident(20_000, 4, 2.0)
    found = fit_scaling("temperature", y, p, "multiclass")
    assert found.slope == pytest.approx((1 / 2,), abs=0.02)
    after = found.apply(p, "multiclass")
    np.testing.assert_allclose(after.sum(axis=1), 1, atol=1e-6)
    assert (after.argmax(axis=1) == p.argmax(axis=1)).all()


def test_few_rows_of_many_classes_that_are_calibrated_stay_as_they_are() -> None:
    slopes, gains = [], []
    for _ in range(20):
        y, p = overconfident(400, 10, 1.0)
        few = np.concatenate([np.flatnonzero(y == k)[:10] for k in range(10)])
        found = fit_scaling("temperature", y[few], p[few], "multiclass")
        slopes.append(found.slope[0])
        gains.append(_log_loss(y, p) - _log_loss(y, found.apply(p, "multiclass")))
    assert np.mean(slopes) == pytest.approx(1, abs=0.15)
    assert np.mean(gains) == pytest.approx(0, abs=0.03)


def _log_loss(y: Array, p: Array) -> float:
    return float(-np.log(p[np.arange(len(y)), y].astype(np.float64)).mean())


def test_each_label_has_its_own_and_a_label_with_one_positive_none() -> None:
    y, p = overconfident(5_000, 2, 3.0)
    rare = np.zeros(5_000, dtype=int)
    rare[0] = 1
    labels, both = np.stack([y, rare], axis=1), np.stack([p[:, 1], p[:, 1]], axis=1)
    found = fit_scaling("platt", labels, both, "multilabel")
    assert found.slope[0] == pytest.approx(1 / 3, abs=0.03)
    assert (found.slope[1], found.intercept[1]) == (1.0, 0.0)
    np.testing.assert_allclose(found.apply(both, "multilabel")[:, 1], p[:, 1], atol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_ranks_stay_even_where_scores_are_turned_round_or_separate_the_classes(kind: str) -> None:
    p = np.linspace(0.01, 0.99, 50)
    for y in ((p > 0.5).astype(int), (p < 0.5).astype(int)):
        after = fit_scaling(kind, y, p, "binary").apply(p, "binary")
        assert np.isfinite(after).all()
        assert (np.diff(after) >= 0).all()


@pytest.mark.parametrize("task", ["binary", "multiclass"])
def test_too_few_cases_scale_nothing(task: str) -> None:
    y, p = np.array([0, 0, 0, 1]), np.full((4, 2), 0.5)
    found = fit_scaling("temperature", y, p[:, 1] if task == "binary" else p, task)
    assert not found.fitted
    assert Scaled.of(found.facts()) == found


def test_rows_without_a_score_do_not_count() -> None:
    y, p = overconfident(300, 2, 3.0)
    extra = np.append(p[:, 1], np.nan)
    assert fit_scaling("platt", np.append(y, 1), extra, "binary") == fit_scaling("platt", y, p[:, 1], "binary")


def test_platt_of_several_classes_is_refused_with_what_to_type() -> None:
    with pytest.raises(InputError, match="--calibrate temperature"):
        check_kind("platt", "multiclass", "digits")
    check_kind("platt", "multilabel", "nih-cxr14")
