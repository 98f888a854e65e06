"""Metrics under multiplicities equal the metrics of the repeated rows, which are scikit-learn's."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mt.probe.scores import metrics, rank_metrics
from mt.probe.scores.metrics import weighted

N = 120


def _cases(task: str, rng: np.random.Generator, n: int, levels: int) -> tuple[np.ndarray, np.ndarray]:
    """Labels and probabilities of a task; few levels mean many ties."""
    if task == "binary":
        y = rng.integers(0, 2, n)
        return y, np.round(np.clip(0.3 * y + 0.7 * rng.random(n), 0, 1) * levels) / levels
    if task == "multilabel":
        y = (rng.random((n, 4)) < [0.5, 0.2, 0.1, 0.0]).astype(int)
        return y, np.round(rng.random((n, 4)) * levels) / levels
    y = rng.integers(0, 4, n)
    votes = rng.integers(0, levels, (n, 5)) + 1 + 2 * (np.arange(5) == y[:, None])
    return y, votes / votes.sum(axis=1, keepdims=True)


CASES = [(name, task) for name, metric in metrics.METRICS.items() for task in metric.tasks]


@pytest.mark.parametrize(("name", "task"), CASES)
@pytest.mark.parametrize("n_groups", [None, 30])
@pytest.mark.parametrize("levels", [7, 10_000])
@pytest.mark.parametrize("paired_units", [256, 0])
def test_a_resample_scores_as_its_rows_do(
    name: str, task: str, n_groups: int | None, levels: int, paired_units: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rank_metrics, "PAIRED_UNITS", paired_units)
    rng = np.random.default_rng(1)
    y, p = _cases(task, rng, N, levels)
    unit = np.arange(N) if n_groups is None else rng.permutation(np.arange(N) % n_groups)
    weights = rng.integers(0, 3, (20, unit.max() + 1)).astype(np.uint16)
    found = weighted(name, y, p, unit)(weights)
    for w, value in zip(weights, found, strict=True):
        rows = np.repeat(np.arange(N), w[unit])
        assert value == pytest.approx(metrics.score(name, y[rows], p[rows]), abs=1e-12)


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    n=st.integers(20, 900),
    rate=st.sampled_from([0.02, 0.3, 0.98]),
    levels=st.sampled_from([2, 9, 10**6]),
)
def test_auc_by_running_sums_is_exact_for_rare_classes_and_ties(seed: int, n: int, rate: float, levels: int) -> None:
    rng = np.random.default_rng(seed)
    y = (rng.random(n) < rate).astype(int)
    y[:2] = [0, 1]
    p = np.floor(rng.random(n) * levels) / levels
    w = rng.integers(0, 4, (3, n)).astype(np.uint16)
    w[:, :2] += 1
    expected = [metrics.score("roc_auc", *(np.repeat(v, one) for v in (y, p))) for one in w]
    positives, negatives = (np.flatnonzero(y == k)[np.argsort(p[y == k], kind="stable")] for k in (1, 0))
    lower, upper = (np.searchsorted(p[negatives], p[positives], side=side) for side in ("left", "right"))
    found = rank_metrics._auc_of_running_sums(positives, negatives, lower, upper)(w)
    np.testing.assert_allclose(found, expected, atol=1e-12)


@pytest.mark.parametrize("name", ["roc_auc", "average_precision", "sensitivity_at_95_specificity", "balanced_accuracy"])
def test_a_resample_without_one_class_is_undefined(name: str) -> None:
    y, p = np.array([0, 1, 0, 1]), np.array([0.1, 0.8, 0.6, 0.7])
    weights = np.array([[1, 0, 2, 0], [0, 3, 0, 1], [1, 1, 1, 1]], dtype=np.uint16)
    assert np.isnan(weighted(name, y, p, np.arange(4))(weights)).tolist() == [True, True, False]


def test_any_function_and_many_classes_fall_back_to_the_repeated_rows() -> None:
    rng = np.random.default_rng(0)
    y, p = rng.integers(0, 80, 400), rng.dirichlet(np.ones(80), 400)
    w = rng.integers(0, 3, (4, 400)).astype(np.uint16)
    for metric in ("accuracy", lambda y, p: float((p.argmax(axis=1) == y).mean())):
        found = weighted(metric, y, p, np.arange(400))(w)
        rows = [np.repeat(np.arange(400), one) for one in w]
        np.testing.assert_allclose(found, [metrics.score("accuracy", y[r], p[r]) for r in rows])
