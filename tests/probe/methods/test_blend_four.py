"""Logistic regression and LDA, each on the features and on their roots: the parts, their choices, several models."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from mt.probe.methods.blend import MeanProbe
from mt.probe.methods.blend_four import TOGETHER, ColumnsProbe, ProductProbe, product
from mt.probe.methods.linear import LinearProbe
from mt.probe.protocols import PROTOCOLS, Fitted, Fitting
from mt.probe.run import fit_probe, fit_probes
from mt.probe.saved import put_together, taken_apart
from mt.types import LabelledRows
from tests.probe.methods.test_blend import data

PROTOCOL = PROTOCOLS["blend-four"]


def fitted(
    X: np.ndarray, y: np.ndarray, task: str = "multiclass", n_classes: int = 3, widths: tuple[int, ...] = ()
) -> Fitted:
    return fit_probe(LabelledRows(X, y), Fitting(PROTOCOL, widths=widths).on(task, n_classes), seed=0)


def parts_of(probe: object) -> tuple[tuple[LinearProbe, ...], tuple[LinearProbe, ...]]:
    """Return the logistic parts and the LDAs of a fit on the features of one model or of several."""
    assert isinstance(probe, ProductProbe)
    if isinstance(probe.probes[0], ProductProbe):
        probe = probe.probes[0]
    logistic, lda = probe.probes
    assert isinstance(logistic, MeanProbe)
    assert isinstance(lda, MeanProbe)
    return logistic.probes, lda.probes  # type: ignore[return-value]


def test_it_predicts_the_tempered_product_of_the_two_means() -> None:
    X, y = data()
    probe = fitted(X, y).probe
    logistic, ldas = parts_of(probe)
    one, two = (
        np.mean([part.probabilities(X).astype(np.float64) for part in some], axis=0) for some in (logistic, ldas)
    )
    assert isinstance(probe, ProductProbe)
    power = (np.maximum(one, 1e-5) * np.maximum(two, 1e-5)) ** (0.5 / probe.temperature)
    np.testing.assert_allclose(probe.probabilities(X), power / power.sum(axis=1, keepdims=True), atol=1e-6)
    assert [part.scaling.root is None for part in logistic] == [True, False]
    assert [part.scaling.root is None for part in ldas] == [True, False]


def test_the_logistic_parts_are_those_of_default_and_of_the_roots() -> None:
    X, y = data()
    plain, rooted = parts_of(fitted(X, y).probe)[0]
    for part, features in ((plain, X), (rooted, np.sqrt(X.astype(np.float64)))):
        default = fit_probe(LabelledRows(features, y), Fitting(PROTOCOLS["default"]).on("multiclass", 3), seed=0)
        np.testing.assert_allclose(part.probabilities(X), default.probe.probabilities(features), atol=1e-4)


def test_lda_reads_each_models_features_at_unit_length() -> None:
    X, y = data(dim=12)
    X[:, 4:] *= 100
    plain, rooted = parts_of(fitted(X, y, widths=(4, 8)).probe)[1]
    seen = plain.scaling.apply(X, "float64")
    np.testing.assert_allclose(np.linalg.norm(seen[:, :4], axis=1), 1)
    np.testing.assert_allclose(np.linalg.norm(seen[:, 4:], axis=1), 1)
    np.testing.assert_allclose(np.linalg.norm(rooted.scaling.apply(X, "float64"), axis=1), 1)


@pytest.mark.parametrize(("widths", "ldas"), [((), 1), ((4, 8), 2)])
def test_without_features_to_take_roots_of_there_is_one_logistic_part(widths: tuple[int, ...], ldas: int) -> None:
    X, y = data()
    probe = fitted(X - X.mean(axis=0), y, widths=widths).probe
    assert [len(parts) for parts in parts_of(probe)] == [1, ldas]


def test_roots_are_taken_of_the_models_without_a_negative_value() -> None:
    X, y = data()
    X[3, 5] = -0.1
    _, rooted = parts_of(fitted(X, y, widths=(4, 8)).probe)[0]
    np.testing.assert_array_equal(rooted.scaling.root, np.arange(12) < 4)


@pytest.mark.parametrize(("task", "n_classes"), [("binary", 2), ("ordinal", 3), ("multilabel", 3)])
def test_other_tasks_have_the_mean_of_the_logistic_parts_and_say_so(task: str, n_classes: int) -> None:
    X, y = data(n_classes=n_classes)
    labels = np.eye(3, dtype=np.int8)[y] if task == "multilabel" else y
    one = fitted(X, labels, task, n_classes)
    assert isinstance(one.probe, MeanProbe)
    assert len(one.probe.probes) == 2
    assert "no_lda" in one.flags
    assert "no_lda" not in fitted(*data()).flags
    assert one.held_out is not None


@pytest.mark.parametrize("classes", [[0, 1, 2], [0, 2], [1], [0, 1, 2, 2, 2, 2], [0, 0, 0, 2, 2, 2]], ids=str)
def test_small_budgets_are_fitted(classes: list[int]) -> None:
    X, _ = data()
    y = np.array(classes)
    p = fitted(X[: len(y)], y).probe.probabilities(X)
    assert p.shape == (60, 3)
    np.testing.assert_allclose(p.sum(axis=1), 1, atol=1e-6)
    assert (p[:, np.setdiff1d(range(3), y)] == 0).all()


def test_an_absent_class_has_no_probability_beside_three_others() -> None:
    X, y = data(80, n_classes=4)
    kept = y != 1
    probe = fitted(X[kept], y[kept], n_classes=4).probe
    assert isinstance(probe, ProductProbe)
    p = probe.probabilities(X)
    assert (p[:, 1] == 0).all()
    np.testing.assert_allclose(p.sum(axis=1), 1, atol=1e-6)


def test_what_is_kept_out_of_fold_has_the_lowest_log_loss_of_all_temperatures() -> None:
    one = fitted(*data(24))
    assert one.folded is not None
    assert one.held_out is not None
    np.testing.assert_allclose(one.held_out, one.folded.p.mean(axis=0), atol=1e-6)
    scores = dict(map(tuple, one.selection["temperatures"]))
    assert float(np.nanmean(one.folded.losses())) == pytest.approx(min(scores.values()))
    assert scores[one.settings["temperature"]] == min(scores.values())


def test_each_draw_gets_what_it_gets_alone() -> None:
    X, y = data(90)
    negative = X[30:] - 1.0
    budgets = [
        (LabelledRows(X[:40], y[:40]), 0),
        (LabelledRows(negative, y[30:]), 1),
        (LabelledRows(X[20:], y[20:]), 2),
    ]
    fitting = Fitting(PROTOCOL).on("multiclass", 3)
    for budget, together in zip(budgets, fit_probes(budgets, fitting), strict=True):
        alone = fit_probes([budget], fitting)[0]
        np.testing.assert_array_equal(together.probe.probabilities(X), alone.probe.probabilities(X))


def test_a_validation_split_chooses() -> None:
    X, y = data(90)
    validation = LabelledRows(X[60:], y[60:])
    one = fit_probe(LabelledRows(X[:60], y[:60]), Fitting(PROTOCOL).on("multiclass", 3), seed=0, validation=validation)
    assert one.selection["source"] == "val"
    assert isinstance(one.probe, ProductProbe)
    p = one.probe.probabilities(validation.X).astype(np.float64)
    loss = -np.log(p[np.arange(30), validation.y]).mean()
    assert dict(map(tuple, one.selection["temperatures"]))[one.settings["temperature"]] == pytest.approx(loss, rel=1e-4)


def test_it_is_saved_with_the_widths_of_its_models() -> None:
    X, y = data()
    probe = fitted(X, y, widths=(4, 8)).probe
    again = put_together(*taken_apart(probe))
    np.testing.assert_array_equal(again.probabilities(X), probe.probabilities(X))


def test_several_models_have_a_fit_of_their_own_each_in_the_product() -> None:
    X, y = data(90, dim=12)
    one = fitted(X, y, widths=(4, 8))
    assert isinstance(one.probe, ProductProbe)
    each = one.probe.probes[1:]
    own = [fitted(X[:, columns], y).probe for columns in (slice(4), slice(4, 12))]
    for part, probe, columns in zip(each, own, (slice(4), slice(4, 12)), strict=True):
        assert isinstance(part, ColumnsProbe)
        np.testing.assert_array_equal(part.probabilities(X), probe.probabilities(X[:, columns]))
    parts = [part.probabilities(X).astype(np.float64) for part in one.probe.probes]
    weights = TOGETHER, (1 - TOGETHER) / 2, (1 - TOGETHER) / 2
    expected = product(parts, weights, one.settings["temperature_of_all"])
    np.testing.assert_allclose(one.probe.probabilities(X), expected, atol=1e-6)
    assert one.probe.weights == pytest.approx(weights)
    assert [settings["C"] for settings in one.settings["each"]] == [
        fitted(X[:, columns], y).settings["C"] for columns in (slice(4), slice(4, 12))
    ]
    scores = dict(map(tuple, one.selection["temperatures_of_all"]))
    assert one.folded is not None
    assert one.held_out is not None
    assert float(np.nanmean(one.folded.losses())) == pytest.approx(min(scores.values()))
    assert scores[one.settings["temperature_of_all"]] == min(scores.values())
    np.testing.assert_allclose(one.held_out, one.folded.p.mean(axis=0), atol=1e-6)


def test_two_classes_of_several_models_have_no_product() -> None:
    X, y = data(n_classes=2)
    assert isinstance(fitted(X, y, "binary", 2, widths=(4, 8)).probe, MeanProbe)
    assert isinstance(fitted(X, y, "multiclass", 3, widths=(4, 8)).probe, MeanProbe)


def test_several_models_and_a_validation_split_are_refused() -> None:
    X, y = data(90)
    fitting = Fitting(PROTOCOL, widths=(4, 8)).on("multiclass", 3)
    with pytest.raises(ValueError, match="folds of the budget"):
        fit_probe(LabelledRows(X[:60], y[:60]), fitting, seed=0, validation=LabelledRows(X[60:], y[60:]))


def test_the_product_of_equal_parts_is_the_part() -> None:
    p = np.array([[0.2, 0.3, 0.5], [0.7, 0.2, 0.1]])
    np.testing.assert_allclose(product([p, p], (0.5, 0.5), 1.0), p)
    flat = product([p, p], (0.5, 0.5), 100.0)
    assert np.abs(flat - 1 / 3).max() < 0.01
    assert replace(PROTOCOL, name="other").fingerprint != PROTOCOL.fingerprint
