"""Blend, the mean of logistic regression and shrinkage LDA: its parts, its choices, and draws that LDA cannot fit."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from sklearn.covariance import LedoitWolf
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

from mt.probe.methods import blend
from mt.probe.methods.blend import MeanProbe, Span, clearly_lowest, roots
from mt.probe.methods.linear import LinearProbe, Scaling
from mt.probe.protocols import PROTOCOLS, Fitted, Fitting
from mt.probe.run import fit_probe, fit_probes
from mt.types import LabelledRows
from tests.probe.brief import changed

PROTOCOL = PROTOCOLS["blend"]


def data(n: int = 60, *, dim: int = 12, n_classes: int = 3, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Return non-negative features and classes."""
    rng = np.random.default_rng(seed)
    y = rng.permutation(np.arange(n) % n_classes)
    means = np.random.default_rng(7).gamma(2.0, size=(n_classes, dim))
    return (means[y] * rng.gamma(2.0, size=(n, dim))).astype(np.float32), y


def fitted(X: np.ndarray, y: np.ndarray, task: str = "multiclass", n_classes: int = 3, **settings: Any) -> Fitted:
    protocol = changed(PROTOCOL.name, **settings)
    return fit_probe(LabelledRows(X, y), Fitting(protocol).on(task, n_classes), seed=0)


@pytest.mark.parametrize(("n", "dim"), [(60, 12), (20, 50)])
def test_the_shrinkage_is_that_of_ledoit_and_wolf(n: int, dim: int) -> None:
    X, y = data(n, dim=dim)
    means = np.stack([X[y == k].mean(axis=0) for k in range(3)]).astype(np.float64)
    theirs = LedoitWolf(assume_centered=True).fit(X - means[y])
    span = Span.of(X.astype(np.float64))
    inside = means if span.axes is None else means @ span.axes
    _, shrinkage, mu = span.covariance(np.arange(n), y, inside)
    assert shrinkage == pytest.approx(theirs.shrinkage_, rel=1e-6)
    assert mu == pytest.approx(np.trace(theirs.covariance_) / dim, rel=1e-6)


@pytest.mark.parametrize(("n", "dim"), [(60, 12), (20, 50)])
def test_lda_is_that_of_scikit_learn_with_the_same_covariance(n: int, dim: int) -> None:
    X, y = data(n, dim=dim)
    X = X.astype(np.float64)
    span = Span.of(X)
    coef, intercept = span.lda(np.arange(n), y, 3, 0.3)
    logits = span.X @ coef.T + intercept
    means = np.stack([X[y == k].mean(axis=0) for k in range(3)])
    W = (X - means[y]).T @ (X - means[y]) / n
    S = 0.7 * W + 0.3 * np.trace(W) / dim * np.eye(dim)
    weights = np.linalg.solve(S, means.T).T
    expected = X @ weights.T + np.log(np.bincount(y) / n) - (weights * means).sum(axis=1) / 2
    np.testing.assert_allclose(logits, expected, rtol=1e-6, atol=1e-6)
    theirs = LinearDiscriminantAnalysis(solver="lsqr", covariance_estimator=_Fixed(S)).fit(X, y)
    decided = theirs.decision_function(X)
    np.testing.assert_allclose(logits - logits[:, :1], decided - decided[:, :1], rtol=1e-5, atol=1e-5)


class _Fixed:
    """A covariance estimator that knows the answer."""

    def __init__(self, covariance: np.ndarray) -> None:
        self.covariance_ = covariance

    def fit(self, X: np.ndarray) -> _Fixed:
        return self


def test_it_predicts_the_mean_of_both() -> None:
    X, y = data()
    probe = fitted(X, y).probe
    assert isinstance(probe, MeanProbe)
    logistic, lda = probe.probes
    mean = (logistic.probabilities(X).astype(np.float64) + lda.probabilities(X)) / 2
    np.testing.assert_allclose(probe.probabilities(X), mean, atol=1e-7)
    assert isinstance(lda, LinearProbe)
    assert lda.scaling.unit
    np.testing.assert_array_equal(lda.scaling.root, np.ones(12, dtype=bool))


@pytest.mark.parametrize(("task", "n_classes"), [("binary", 2), ("ordinal", 3), ("multilabel", 3)])
def test_other_tasks_have_the_logistic_part_alone_and_say_so(task: str, n_classes: int) -> None:
    X, y = data(n_classes=n_classes)
    labels = np.eye(3, dtype=np.int8)[y] if task == "multilabel" else y
    one = fitted(X, labels, task, n_classes)
    assert isinstance(one.probe, LinearProbe)
    assert "no_lda" in one.flags
    assert "no_lda" not in fitted(*data()).flags


def test_roots_are_taken_of_blocks_without_a_negative_value() -> None:
    X, _ = data()
    X[3, 5] = -0.1
    assert roots(X) is None
    np.testing.assert_array_equal(roots(X, [4, 8]), np.arange(12) < 4)
    scaling = Scaling.learn(X, "standardize", roots(X, [4, 8]))
    expected = np.hstack([np.sqrt(X[:, :4].astype(np.float64)), X[:, 4:]])
    found = replace(scaling, clip=np.inf).apply(X, "float64") * scaling.scale + scaling.mean
    np.testing.assert_allclose(found, expected, atol=1e-6)
    below = scaling.apply(np.full((1, 12), -1.0))  # a test image may have what no row of the budget has
    assert np.isfinite(below).all()


def test_a_transform_replaces_the_first_only_if_clearly_better() -> None:
    rng = np.random.default_rng(0)
    first = rng.gamma(2.0, size=200)
    noise = rng.normal(size=200)
    same, better = first + noise - noise.mean() - 1e-3, first - 0.3 + 0.1 * noise
    assert clearly_lowest([first, same], None)[0] == 0
    assert clearly_lowest([first, same, better], None)[0] == 2
    assert clearly_lowest([first, better], np.zeros(200))[0] == 1
    assert clearly_lowest([first, None], None) == (0, [])
    one = fitted(*data())
    assert set(one.selection["transforms"]) == {"root", "none"}
    assert one.settings["transform"] in ("root", "none")


def test_held_out_labels_change_no_held_out_prediction() -> None:
    """The labels of a fold's rows enter neither part that predicts them."""
    X, y = data()
    folded = fitted(X, y, transforms=("root",), shrinkages=(0.9,), temperatures=(1.0,)).folded
    assert folded is not None
    span = Span.of(Scaling(np.zeros(12), np.ones(12), unit=True, root=roots(X)).apply(X))
    fold = folded.fold[0]
    other = folded.y.copy()
    other[fold == 0] = np.roll(other[fold == 0], 1)
    one, two = (
        blend._held_out_logits(replace(folded, y=labels), span, 0.9)[0, fold == 0] for labels in (folded.y, other)
    )
    np.testing.assert_array_equal(one, two)


def test_what_is_kept_out_of_fold_is_the_mean_of_the_repeats() -> None:
    """Thresholds are chosen from it."""
    one = fitted(*data(24))
    assert one.folded is not None
    assert one.held_out is not None
    np.testing.assert_allclose(one.held_out, one.folded.p.mean(axis=0), atol=1e-6)


def test_folds_are_drawn_three_times_where_rows_are_few() -> None:
    few, many = fitted(*data(24)).folded, fitted(*data(33)).folded
    assert few is not None
    assert many is not None
    assert (len(few.fold), len(many.fold)) == (3, 1)
    assert (few.fold[0] != few.fold[1]).any()
    default = fit_probe(LabelledRows(*data(24)), Fitting(PROTOCOLS["default"]).on("multiclass", 3), seed=0)
    assert default.folded is not None
    np.testing.assert_array_equal(default.folded.fold, few.fold[:1])


@pytest.mark.parametrize("classes", [[0, 1, 2], [0, 2], [1], [0, 1, 2, 2, 2, 2]], ids=str)
def test_small_budgets_are_fitted(classes: list[int]) -> None:
    X, _ = data()
    y = np.array(classes)
    one = fitted(X[: len(y)], y)
    p = one.probe.probabilities(X)
    assert p.shape == (60, 3)
    np.testing.assert_allclose(p.sum(axis=1), 1, atol=1e-6)
    assert (p[:, np.setdiff1d(range(3), y)] == 0).all()


def test_each_draw_gets_what_it_gets_alone() -> None:
    X, y = data(90)
    budgets = [(LabelledRows(X[part], y[part]), seed) for seed, part in enumerate((slice(40), slice(30, 90)))]
    fitting = Fitting(PROTOCOL).on("multiclass", 3)
    for budget, together in zip(budgets, fit_probes(budgets, fitting), strict=True):
        alone = fit_probes([budget], fitting)[0]
        np.testing.assert_array_equal(together.probe.probabilities(X), alone.probe.probabilities(X))


def test_a_validation_split_chooses_the_transform() -> None:
    X, y = data(90)
    validation = LabelledRows(X[60:], y[60:])
    one = fit_probe(LabelledRows(X[:60], y[:60]), Fitting(PROTOCOL).on("multiclass", 3), seed=0, validation=validation)
    assert one.selection["source"] == "val"
    assert set(one.selection["transforms"]) == {"root", "none"}
