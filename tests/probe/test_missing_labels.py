"""Unknown labels (MISSING, in multilabel tasks) enter no fit, budget or score of their label."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from sklearn.metrics import average_precision_score, roc_auc_score

from mt.cli import group
from mt.errors import FitError, InputError
from mt.fuse.dvme.fit import DVMEOptions, fit_dvme
from mt.probe.budgets.draw import draw, folds, teachable
from mt.probe.protocols import PROTOCOLS, Fitting
from mt.probe.run import fit_probe
from mt.probe.scores.comparisons import compare
from mt.probe.scores.metrics import interval, per_class, score
from mt.probe.scores.sample import left_out
from mt.probe.scores.scoring import _few_flags, by_group
from mt.probe.solver.api import fit_logistic, solve_folds, solve_paths
from mt.probe.solver.request import ClassWeight, LogisticRequest, get_solver
from mt.types import MISSING, Array, LabelledRows, ScoredRows
from tests.probe.features import embeddings_and_labels, probed, store_of, write_features

LABELS, CS = 3, [0.1, 1.0, 10.0]


def masked(n: int = 150, seed: int = 0) -> tuple[Array, Array, Array]:
    """Return features (n, 6), complete labels (n, 3), and the same labels of which a third is missing."""
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(n, 6))
    full = (X[:, :LABELS] + rng.normal(size=(n, LABELS)) > 0.3).astype(np.int8)
    return X, full, np.where(rng.random(full.shape) < 1 / 3, MISSING, full).astype(np.int8)


# Fits ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("class_weight", [None, "balanced"])
@pytest.mark.parametrize("solver", ["torch", "sklearn"])
def test_a_label_is_fitted_as_on_the_rows_that_know_it(solver: str, class_weight: ClassWeight) -> None:
    X, _, y = masked()
    request = LogisticRequest(X, y, CS, task="multilabel", class_weight=class_weight, tol=1e-12, dtype="float64")
    [path] = solve_paths([request], get_solver(solver))
    for k in range(LABELS):
        rows = y[:, k] != MISSING
        [alone] = solve_paths([replace(request, X=X[rows], y=y[rows, k : k + 1])], get_solver(solver))
        np.testing.assert_allclose(path.coef[:, k], alone.coef[:, 0], atol=1e-5)
        np.testing.assert_allclose(path.intercept[:, k], alone.intercept[:, 0], atol=1e-5)
    assert path.converged.all()


@pytest.mark.parametrize("solver", ["torch", "sklearn"])
def test_out_of_fold_predictions_are_those_of_the_rows_that_know_the_label(solver: str) -> None:
    X, _, y = masked()
    fold = np.arange(len(y)) % 4
    request = LogisticRequest(X, y, CS, task="multilabel", tol=1e-12, dtype="float64")
    [found] = solve_folds([request], [fold], get_solver(solver))
    for k in range(LABELS):
        rows = y[:, k] != MISSING
        [alone] = solve_folds([replace(request, X=X[rows], y=y[rows, k : k + 1])], [fold[rows]], get_solver(solver))
        np.testing.assert_allclose(found.oof[:, rows, k], alone.oof[..., 0], atol=1e-4)
    y[fold > 0, 2] = MISSING  # the first fold's fit knows no row of this label
    [found] = solve_folds([replace(request, y=y)], [fold], get_solver(solver))
    assert (found.oof[:, fold == 0, 2] == 0).all()
    assert np.isfinite(found.oof).all()


def test_what_a_single_label_task_may_not_hold_and_a_label_without_both_values() -> None:
    X, _, y = masked()
    with pytest.raises(FitError, match=r"lie in 0 \.\.\. 1, found -1"):
        fit_logistic(X, y[:, 0], CS, task="binary")
    with pytest.raises(FitError, match=r"lie in 0 \.\.\. 1, found -2"):
        fit_logistic(X, np.where(y < 0, -2, y), CS, task="multilabel")
    y[:, 1] = np.where(y[:, 1] == 1, MISSING, y[:, 1])
    with pytest.raises(FitError, match=r"one class only in column\(s\) 1 of 3"):
        fit_logistic(X, y, CS, task="multilabel")


def fitted(X: Array, y: Array, *, validation: LabelledRows[Array] | None = None) -> Array:
    fitting = Fitting(PROTOCOLS["default"]).on("multilabel", y.shape[1])
    return fit_probe(LabelledRows(X, y), fitting, seed=0, validation=validation).probe.probabilities(X)


@pytest.mark.parametrize("known", [0, 6])
def test_a_label_that_cannot_be_taught_has_the_base_rate_of_its_known_rows(known: int) -> None:
    X, _, y = masked()
    y[:, 2] = MISSING
    y[:known, 2] = 1
    p = fitted(X, y)
    np.testing.assert_allclose(p[:, 2], (known + 1) / (known + 2), rtol=1e-6)
    assert np.ptp(p[:, :2], axis=0).min() > 0.1


def test_held_out_entries_that_nobody_knows_are_not_scored() -> None:
    y = np.array([[1, 1], [0, MISSING], [1, 0], [MISSING, 0], [0, 1], [1, 0]], dtype=np.int8)
    known = teachable(y, np.arange(6) // 2, multilabel=True)
    np.testing.assert_array_equal(known, y != MISSING)
    y[:2, 1] = MISSING  # without the first fold's rows no positive of label 1 is left in the fold of row 4
    np.testing.assert_array_equal(teachable(y, np.arange(6) // 2, multilabel=True)[4:, 1], [False, False])


def test_c_is_chosen_on_known_entries_of_the_validation_split() -> None:
    X, _, y = masked()
    others, complete, holes = masked(seed=1)
    keep = (holes != MISSING).all(axis=1)
    some = holes.copy()
    some[~keep] = MISSING
    chosen = fitted(X, y, validation=LabelledRows(others, some))
    np.testing.assert_array_equal(chosen, fitted(X, y, validation=LabelledRows(others[keep], complete[keep])))


@pytest.mark.parametrize("rows", [60, 160])
def test_dvme_learns_from_known_labels_alone(rows: int) -> None:
    X, _, y = masked(rows)
    y[:10] = MISSING
    options = DVMEOptions(width=8, heads=2)
    fit = fit_dvme([X, X[:, ::-1]], y, task="multilabel", n_classes=LABELS, options=options)
    p, known = fit.probabilities([X, X[:, ::-1]]), y[:, 0] != MISSING
    assert np.isfinite(p).all()
    assert roc_auc_score(y[known, 0], p[known, 0]) > 0.65


# Budgets -------------------------------------------------------------------------------------------------------------


def test_budgets_count_known_labels() -> None:
    _, _, y = masked()
    y[:, 2] = np.where(y[:, 2] == 0, MISSING, y[:, 2])
    found = draw(y, task="multilabel", n_classes=LABELS, fraction=0.4, seed=1)
    assert found.realised["rows"] == (y[found.rows] == 1).sum(axis=0).tolist()
    assert found.realised["constant"] == [2]
    part = folds(y, task="multilabel", n_classes=LABELS, seed=0)
    assert part is not None
    assert len(np.unique(part)) == 5
    with pytest.raises(InputError, match="found -1"):
        draw(y[:, 0], task="binary", n_classes=2, fraction=0.5)


def test_folds_are_as_many_as_known_negatives_allow() -> None:
    y = np.full((20, 1), MISSING)
    y[:10], y[10:13] = 1, 0
    part = folds(y, task="multilabel", n_classes=1, seed=0)
    assert part is not None
    assert len(np.unique(part)) == 3


# Scores --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "one"), [("mean_auc", roc_auc_score), ("mean_ap", average_precision_score)])
@pytest.mark.parametrize("clustered", [False, True])
def test_each_label_is_scored_on_the_cases_that_know_it(name: str, one: object, clustered: bool) -> None:
    X, _, y = masked(400)
    y[:, 2] = np.where(np.arange(len(y)) < 100, y[:, 2], MISSING)
    p = 1 / (1 + np.exp(-X[:, :LABELS]))
    known = [y[:, k] != MISSING for k in range(LABELS)]
    each = [one(y[rows, k], p[rows, k]) for k, rows in enumerate(known)]  # type: ignore[operator]
    np.testing.assert_allclose(per_class(name, y, p), each, rtol=1e-12)
    assert score(name, y, p) == pytest.approx(np.mean(each), rel=1e-12)
    groups = np.arange(len(y)) // 2 if clustered else None
    low, high = interval(name, y, p, groups=groups)
    assert low < score(name, y, p) < high
    found = compare(name, y, [p], [np.roll(p, 1, axis=0)], groups=groups, n_resamples=200)
    assert found.n_resamples == 200
    assert found.p < 0.05


@pytest.mark.parametrize("name", ["mean_auc", "mean_ap"])
def test_the_interval_of_one_label_is_that_of_its_known_cases(name: str) -> None:
    X, _, y = masked(200)
    p = 1 / (1 + np.exp(-X[:, :1]))
    rows = y[:, 0] != MISSING
    groups = np.arange(len(y)) // 2
    np.testing.assert_allclose(
        interval(name, y[:, :1], p, groups=groups),
        interval(name, y[rows, :1], p[rows], groups=groups[rows]),
        rtol=1e-9,
    )


@pytest.mark.parametrize("name", ["mean_auc", "mean_ap"])
def test_predictions_of_unknown_entries_do_not_count(name: str) -> None:
    X, _, y = masked(200)
    p = 1 / (1 + np.exp(-X[:, :LABELS]))
    other = np.where(y == MISSING, np.random.default_rng(1).random(y.shape), p)
    assert score(name, y, p) == score(name, y, other)
    assert interval(name, y, p) == interval(name, y, other)


def test_a_label_that_no_case_knows_is_left_out() -> None:
    X, _, y = masked(200)
    y[:, 1], y[:, 0] = MISSING, X[:, 0] > 0
    y[:3, 0] = MISSING
    p = 1 / (1 + np.exp(-X[:, :LABELS]))
    assert left_out(y, p) == [1]
    assert not _few_flags(ScoredRows(LabelledRows(None, y), p))
    assert np.isnan(per_class("mean_auc", y, p)[1])
    assert score("mean_auc", y, p) == pytest.approx(np.nanmean(per_class("mean_auc", y, p)))


def test_rare_known_negatives_survive_resampling() -> None:
    y = np.array([[1, 1]] * 60 + [[0, 0]] * 2 + [[0, MISSING]] * 40, dtype=np.int8)
    p = np.random.default_rng(0).random(y.shape)
    found = compare("mean_auc", y, [p], [p[::-1]], n_resamples=300)
    assert found.redrawn > 0
    assert found.n_resamples == 300


def test_a_patient_has_the_highest_known_label() -> None:
    y = np.array([[MISSING, 0], [1, MISSING], [MISSING, MISSING], [MISSING, 0]], dtype=np.int8)
    rows = LabelledRows(None, y, ["a", "a", "b", "b"])
    np.testing.assert_array_equal(by_group(ScoredRows(rows, np.zeros((4, 2))), "multilabel").y, [[1, 0], [MISSING, 0]])


# The command ---------------------------------------------------------------------------------------------------------


def run(cache: Path, command: str, *arguments: str) -> str:
    result = CliRunner().invoke(group, [command, "--cache-dir", str(cache), *arguments], env={"COLUMNS": "160"})
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result.stdout


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    """Two models on a multilabel task of four labels, a quarter missing; the test split never knows the last."""
    for model in ("m1", "m2"):
        for split, n in (("train", 120), ("test", 80)):
            _, labels = embeddings_and_labels(
                "toy", model, split, n=n, dim=8, task="multilabel", n_classes=4, signal=1.0
            )
            labels[np.random.default_rng(n).random(labels.shape) < 0.25] = MISSING
            if split == "test":
                labels[:, 3] = MISSING
            write_features(
                tmp_path,
                "toy",
                model,
                split,
                n=n,
                task="multilabel",
                n_classes=4,
                signal=1.0,
                labels=labels,
                grouped=True,
            )
    return tmp_path


def test_mt_probe_masks_missing_labels(cache: Path) -> None:
    asked = ["--fraction", "0.5", "--fraction", "1", "--seeds", "2"]
    table = run(cache, "probe", *asked)
    assert "class 3" in table
    rows = [json.loads(line) for line in run(cache, "probe", *asked, "--json").splitlines()]
    scored = [row for row in rows if "per_class" in row]
    assert scored
    assert all(row["per_class"]["class 3"] is None and row["low"] < row["value"] < row["high"] for row in scored)
    assert "class 3" in run(cache, "probe", *asked, "--level", "group", "--compare")


def test_a_score_is_the_mean_over_known_cases(cache: Path) -> None:
    answers = probed(cache, models=["m1"], fractions=[1.0])
    with store_of(answers) as store:
        fit = store.fit(answers.scores[0].fit)
        y = store.cases(fit.cases).y
    each = [roc_auc_score(y[y[:, k] >= 0, k], fit.probabilities[y[:, k] >= 0, k]) for k in range(3)]
    assert answers.scores[0].value == pytest.approx(np.mean(each))


def test_mt_fuse_masks_missing_labels(cache: Path) -> None:
    found = run(cache, "fuse", "--model", "m1", "--model", "m2", "--fraction", "0.5", "--seeds", "1", "--json")
    rows = [json.loads(line) for line in found.splitlines()]
    assert {"average", "concat", "dvme"} <= {row["method"] for row in rows if "value" in row}
    assert all(row["low"] < row["value"] < row["high"] for row in rows if "value" in row)
