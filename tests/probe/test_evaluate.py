"""The evaluation on real feature files: pairing, the store, the features read once, views, validation, draw files."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mt.cache import catalog
from mt.errors import CacheError, InputError
from mt.probe import questions, run
from mt.probe.budgets import draw, draw_file
from mt.probe.scores import metrics
from mt.probe.scores.score_tables import score_tables
from mt.probe.solver.request import SOLVERS
from mt.results.store import Fit
from mt.types import HEADLINE, TASKS
from tests.noting import noted
from tests.probe.brief import changed
from tests.probe.features import QUICK, probed, store_of, write_features, write_pair

N_CLASSES = {"binary": 2, "multiclass": 3, "ordinal": 4, "multilabel": 3}


@pytest.mark.parametrize("task", TASKS)
def test_every_task_is_scored_by_its_headline(tmp_path: Path, task: str) -> None:
    write_pair(tmp_path, task=task, n_classes=N_CLASSES[task])
    study = probed(tmp_path, fractions=[0.5, 1.0], seeds=2)
    assert [(s.fraction, s.seed) for s in study.scores] == [(0.5, 0), (0.5, 1), (1.0, 0)]
    for score in study.scores:
        assert score.metric == HEADLINE[task]
        fit = store_of(study).fit(score.fit)
        cases = store_of(study).cases(fit.cases)
        assert score.value == pytest.approx(metrics.score(score.metric, cases.y, fit.probabilities))
        assert fit.probabilities.dtype == np.float32
        assert len(cases.ids) == len(fit.probabilities) == score.n_test == 80
        assert score.n_labels == len(fit.rows) == (60 if score.fraction == 0.5 else 120)
        assert score.low is not None
        assert score.high is not None
        assert score.low <= score.value <= score.high
        assert score.interval.startswith("95 % interval over 80 test cases, assumed independent (")


def test_what_was_asked_before_comes_from_the_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_pair(tmp_path)
    first = probed(tmp_path, **QUICK)
    assert (first.n_stored, first.n_fitted) == (0, 2)

    def refuse(*args: object, **options: object) -> None:
        raise AssertionError("a feature file was opened")

    monkeypatch.setattr(catalog.Entry, "open", refuse)
    again = probed(tmp_path, **QUICK)
    assert (again.n_stored, again.n_fitted) == (2, 0)
    assert again.scores == first.scores
    more = probed(tmp_path, **QUICK, metrics=["all"])
    assert more.n_fitted == 0
    assert {s.metric for s in more.scores} == set(metrics.metrics_for("binary"))


def test_predictions_from_the_same_features_are_equal_bit_for_bit(tmp_path: Path) -> None:
    write_pair(tmp_path, task="multiclass", n_classes=3)
    runs = [probed(tmp_path, fractions=[0.5], seeds=1, scores=tmp_path / f"{run}.sqlite") for run in range(2)]
    one, two = (store_of(run).fit(run.scores[0].fit) for run in runs)
    assert one.probabilities.tobytes() == two.probabilities.tobytes()
    assert one.outcome == two.outcome


def test_features_are_read_once_however_many_draws(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for model in ("m1", "m2"):
        write_pair(tmp_path, model=model)
    opened: list[tuple[Path, dict[str, Any]]] = []
    watched = noted(catalog.Entry.open, lambda self, **options: opened.append((self.path, options)))
    monkeypatch.setattr(catalog.Entry, "open", watched)
    assert probed(tmp_path, protocol="clip", fractions=[0.2, 0.5, 1.0], seeds=3).n_fitted == 14
    assert len(opened) == len({path for path, _ in opened}) == 4
    assert all(options == {"verify": True} for _, options in opened)


def test_whatever_changes_a_number_changes_the_identity(tmp_path: Path) -> None:
    write_pair(tmp_path)
    write_features(tmp_path, split="val")
    asked: list[dict[str, Any]] = [
        {},
        {"protocol": "default"},
        {"protocol": "patho-bench"},
        {"fractions": [0.6]},
        {"fractions": [], "shots": [4]},
        {"solver": "sklearn"},
        {"protocol": "ssl-transfer", "select": "val"},
    ]
    fits = [score.fit for more in asked for score in probed(tmp_path, **{**QUICK, **more}).scores]
    assert len(set(fits)) == len(fits) == 14


def test_the_revisions_are_those_that_stored_scores_carry() -> None:
    assert {name: solver.revision for name, solver in SOLVERS.items()} == {"torch": 7, "sklearn": 1, "cuml": 1}


def test_planning_imports_no_solver() -> None:
    code = "import sys, mt.probe.questions, mt.probe.solver.request; print('torch' in sys.modules)"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert shown.strip() == "False"


def test_a_score_says_what_it_is(tmp_path: Path) -> None:
    write_pair(tmp_path, grouped=True)
    (score,) = probed(tmp_path, fractions=[0.5], seeds=1).scores
    row = json.loads(json.dumps(score.row(), allow_nan=False))
    assert (row["dataset"], row["model"], row["method"], row["protocol"]) == ("toy", "m1", "probe", "default")
    assert (row["fraction"], row["shots"], row["seed"], row["n_labels"], row["n_test"]) == (0.5, None, 0, 60, 80)
    assert row["solver"] == "torch"
    assert row["select"] == "folds"
    assert 1e-3 <= row["settings"]["C"] <= 1e3
    assert row["realised"]["n_rows"] == 60
    assert {"train", "test"} == set(row["fingerprints"])
    assert {"mt", "solver", "metrics", "protocol", "numpy", "torch", "scikit-learn"} <= set(row["versions"])
    assert row["n_units"] == 20
    assert row["flags"] == ["fewer than 20 test groups of the rarest class"]


def test_without_groups_the_score_says_so(tmp_path: Path) -> None:
    write_pair(tmp_path)
    (score,) = probed(tmp_path, fractions=[0.5], seeds=1).scores
    assert {"cases assumed independent", "no patient grouping known"} <= set(score.flags)
    assert "assumed independent" in score.interval


def test_predictions_that_collapse_are_flagged(tmp_path: Path) -> None:
    write_pair(tmp_path)
    X = np.full((80, 8), 50.0, dtype=np.float32)
    write_features(tmp_path, split="test", n=80, embeddings=X)
    assert "collapsed" in probed(tmp_path, protocol="clip", fractions=[1.0]).scores[0].flags


def test_an_unconverged_fit_is_flagged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from mt.probe import run

    hasty = changed("clip", max_iter=1, tol=1e-12)
    monkeypatch.setattr(run, "get_protocol", lambda name: hasty)
    write_pair(tmp_path)
    assert "unconverged" in probed(tmp_path, fractions=[1.0], solver="sklearn").scores[0].flags


def test_all_labels_are_one_draw(tmp_path: Path) -> None:
    write_pair(tmp_path)
    assert len(probed(tmp_path, protocol="clip", fractions=[1.0], seeds=5).scores) == 1


def test_a_small_draw_lies_inside_a_large_one(tmp_path: Path) -> None:
    write_pair(tmp_path)
    study = probed(tmp_path, protocol="clip", fractions=[0.1, 0.5], seeds=1)
    small, large = (store_of(study).fit(score.fit).rows for score in study.scores)
    assert set(small) < set(large)


def test_validation_labels_choose_only_when_asked_and_are_counted(tmp_path: Path) -> None:
    write_pair(tmp_path)
    with pytest.raises(CacheError, match="'val'"):
        probed(tmp_path, fractions=[0.5], seeds=1, select="val")
    write_features(tmp_path, split="val", n=40)
    (score,) = probed(tmp_path, fractions=[0.5], seeds=1, select="val").scores
    assert (score.select, score.n_labels) == ("val", 60 + 40)
    assert "val" in score.fingerprints


@pytest.mark.parametrize("name", ["dinov2-logreg", "thunder-knn", "dino-knn"])
def test_other_protocols_choose_on_validation_labels_too(tmp_path: Path, name: str) -> None:
    write_pair(tmp_path, n=60)
    write_features(tmp_path, split="val", n=40)
    study = probed(tmp_path, protocol=name, fractions=[1.0], select="val")
    outcome = store_of(study).fit(study.scores[0].fit).outcome
    assert outcome["selection"]["source"] == "val"
    assert outcome["select"] == "val"


def test_a_solver_where_none_is_needed_and_an_unknown_one_are_refused(tmp_path: Path) -> None:
    write_pair(tmp_path)
    with pytest.raises(InputError, match=r"'dino-knn' does not use logistic regression; remove --solver sklearn"):
        probed(tmp_path, protocol="dino-knn", solver="sklearn")
    for protocol in ("dino-knn", "clip"):
        with pytest.raises(InputError, match=r"No solver 'sklaern'\. Did you mean 'sklearn'"):
            probed(tmp_path, protocol=protocol, solver="sklaern")


def test_a_validation_split_where_nothing_is_chosen_is_refused(tmp_path: Path) -> None:
    write_pair(tmp_path)
    write_features(tmp_path, split="val", n=40)
    with pytest.raises(InputError, match=r"'clip' chooses no setting; remove --select val"):
        probed(tmp_path, protocol="clip", select="val")


def test_draws_are_written_and_read_back(tmp_path: Path) -> None:
    write_pair(tmp_path)
    file = tmp_path / "draws.json"
    first = probed(tmp_path, **QUICK, draw_file=file)
    again = probed(tmp_path, protocol="clip", draw_file=file)
    assert again.n_fitted == 2
    for one, two in zip(first.scores, again.scores, strict=True):
        assert (one.fraction, one.seed, one.value) == (two.fraction, two.seed, two.value)
        assert len(two.realised["listed"]) == 12
        assert {**one.realised, "listed": two.realised["listed"]} == two.realised
        rows = store_of(first).fit(one.fit).rows
        assert rows.tolist() == store_of(again).fit(two.fit).rows.tolist()
    with pytest.raises(InputError, match=r"lists draws of 50 %; asked for were 20 %"):
        probed(tmp_path, protocol="clip", fractions=[0.2], draw_file=file)
    with pytest.raises(InputError, match=r"No folder .*absent to write the draws to"):
        probed(tmp_path, **QUICK, draw_file=tmp_path / "absent" / "draws.json")
    write_pair(tmp_path, "other")
    with pytest.raises(InputError, match="one dataset"):
        probed(tmp_path, draw_file=file)


def test_a_draw_file_is_read_once_a_pair_of_feature_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for model in ("m1", "m2"):
        write_pair(tmp_path, model=model)
    file = tmp_path / "draws.json"
    probed(tmp_path, **QUICK, draw_file=file)
    calls: list[int] = []
    monkeypatch.setattr(draw_file, "read_draws", noted(draw_file.read_draws, lambda *_, **__: calls.append(1)))
    assert probed(tmp_path, protocol="clip", draw_file=file).n_fitted == 4
    assert len(calls) == 2


def test_rows_listed_by_hand_need_nothing_but_their_ids(tmp_path: Path) -> None:
    write_pair(tmp_path)
    file = tmp_path / "mine.json"
    draws = [{"seed": seed, "ids": [f"train-{row}" for row in range(20 + seed)]} for seed in (0, 1)]
    content = {"format": "mt-draws", "format_version": 1, "dataset": "toy", "draws": draws}
    file.write_text(json.dumps(content))
    study = probed(tmp_path, protocol="clip", draw_file=file)
    assert [(score.seed, score.n_labels) for score in study.scores] == [(0, 20), (1, 21)]
    ((grid),) = score_tables(study.scores, store_of(study))
    assert [str(budget) for budget in grid.budgets] == ["listed rows"]
    content["draws"] = [{"ids": draw["ids"]} for draw in draws]
    file.write_text(json.dumps(content))
    with pytest.raises(InputError, match=r"draw 1: another draw has its fraction, shots and seed too"):
        probed(tmp_path, protocol="clip", draw_file=file)


def test_draws_that_took_every_row_are_one_draw(tmp_path: Path) -> None:
    write_pair(tmp_path)
    study = probed(tmp_path, protocol="clip", fractions=[0.999, 0.5], shots=[500], seeds=3)
    (grid,) = score_tables(study.scores, store_of(study))
    spreads = {str(budget): cell.spread for (_, budget), cell in grid.cells.items()}
    assert spreads["50 %"].n_draws == 3
    for budget in ("99.9 %", "500 shots"):
        assert (spreads[budget].n_draws, spreads[budget].sd) == (1, None)


def test_a_draw_of_every_row_is_fitted_once_whatever_is_stored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Such draws differ in their seed alone; what older versions kept for each seed still answers, once."""
    for model in ("m1", "m2"):
        write_pair(tmp_path, model=model)
    asked: dict[str, Any] = {"protocol": "clip", "shots": [500, 10], "seeds": 3}
    study = probed(tmp_path, **asked)
    assert [(score.shots, score.seed) for score in study.scores] == 2 * [(10, 0), (10, 1), (10, 2), (500, 0)]
    assert (study.n_fitted, study.n_stored) == (8, 0)
    again = probed(tmp_path, **asked)
    assert (again.n_fitted, again.n_stored) == (0, 8)
    with monkeypatch.context() as older:
        older.setattr(draw.DrawSource, "repeats", lambda *_: False)
        every = probed(tmp_path, **asked, scores=tmp_path / "older.sqlite")
        assert every.n_fitted == 12
    found = probed(tmp_path, **asked, scores=tmp_path / "older.sqlite")
    assert (found.n_fitted, [score.identity for score in found.scores]) == (
        0,
        [score.identity for score in study.scores],
    )


def test_the_draw_file_of_a_draw_of_every_row_lists_it_once(tmp_path: Path) -> None:
    write_pair(tmp_path)
    file = tmp_path / "draws.json"
    first = probed(tmp_path, protocol="clip", shots=[500], seeds=3, draw_file=file)
    assert len(json.loads(file.read_text())["draws"]) == 1
    again = probed(tmp_path, protocol="clip", draw_file=file)
    assert [score.value for score in again.scores] == [score.value for score in first.scores]


def test_the_unit_of_the_budget_is_the_datasets_own(tmp_path: Path) -> None:
    write_pair(tmp_path, "by-row", grouped=True)
    write_pair(tmp_path, "by-patient", grouped=True, budget_unit="group")
    study = probed(tmp_path, protocol="clip", fractions=[0.2], seeds=1)
    for score in study.scores:
        groups = np.array(store_of(study).cases(store_of(study).fit(score.fit).pool).groups)
        rows = store_of(study).fit(score.fit).rows
        whole = np.isin(groups, groups[rows]).sum() == len(rows)
        assert whole == (score.dataset == "by-patient")
        assert score.realised["unit"] == ("group" if whole else "row")
        assert score.realised["n_units"] == (6 if whole else 24)
        assert score.n_units == 20  # intervals are over test groups either way


def test_groups_in_train_and_test_are_flagged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_pair(tmp_path, grouped=True)
    flag = "groups shared with the test split"
    assert flag not in probed(tmp_path, **QUICK).scores[0].flags
    pool: Any = run.Features.pool  # a cached_property, which types show as its function
    everywhere = property(lambda self: replace(pool.func(self), groups=["test-patient-3"] * 120))
    monkeypatch.setattr(run.Features, "pool", everywhere)
    assert flag in probed(tmp_path, **QUICK, scores=tmp_path / "other.sqlite").scores[0].flags


def test_what_a_draw_lacked_is_flagged(tmp_path: Path) -> None:
    rare = np.repeat([0, 1, 2], [60, 59, 1])
    write_features(tmp_path, "grades", task="multiclass", n_classes=4, labels=rare)
    write_features(tmp_path, "grades", split="test", n=80, task="multiclass", n_classes=4)
    assert probed(tmp_path, **QUICK).scores[0].realised["missing"] == [3]
    assert "missing_class" in probed(tmp_path, **QUICK).scores[0].flags
    labels = np.zeros((120, 3), dtype=np.int8)
    labels[:60, 0], labels[:, 2] = 1, 1
    write_features(tmp_path, "signs", task="multilabel", n_classes=3, labels=labels)
    write_features(tmp_path, "signs", split="test", n=80, task="multilabel", n_classes=3)
    (score,) = probed(tmp_path, datasets=["signs"], fractions=[0.5], seeds=1).scores
    assert score.realised["constant"] == [1, 2]
    assert "constant_label" in score.flags
    values = store_of(probed(tmp_path, datasets=["signs"], fractions=[0.5], seeds=1))
    cases = values.cases(values.fit(score.fit).cases)
    each = metrics.per_class("mean_auc", cases.y, values.fit(score.fit).probabilities)
    assert each[1:].tolist() == [0.5, 0.5]  # kept in the mean
    assert score.value == pytest.approx(each.mean())


def test_the_fit_that_another_process_kept_first_is_the_one_scored(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_pair(tmp_path)
    original = run.Prober.__call__

    def late(self: run.Prober, questions: Sequence[questions.Question]) -> Iterator[Fit]:
        for fit in original(self, questions):
            self.store.add_fit(replace(fit, probabilities=fit.probabilities[::-1].copy()))
            yield fit

    monkeypatch.setattr(run.Prober, "__call__", late)
    study = probed(tmp_path, **QUICK)
    for score in study.scores:
        kept = store_of(study).fit(score.fit)
        labels = store_of(study).cases(kept.cases).y
        assert score.value == pytest.approx(metrics.score("roc_auc", labels, kept.probabilities))


@pytest.mark.parametrize(("protocol", "together"), [("clip", 1), ("dino-knn", run.TOGETHER)])
def test_what_was_scored_before_an_interruption_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, protocol: str, together: int
) -> None:
    write_pair(tmp_path)
    original, calls = run.fit_probes, []

    def interrupted(*args: Any, **options: Any) -> Any:
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return original(*args, **options)

    monkeypatch.setattr(run, "fit_probes", interrupted)
    monkeypatch.setattr(run, "TOGETHER", together)
    with pytest.raises(KeyboardInterrupt, match="2 of 5 fits are kept"):
        probed(tmp_path, protocol=protocol, fractions=[0.5], seeds=5)
    study = probed(tmp_path, protocol=protocol, fractions=[0.5], seeds=5)
    assert (study.n_stored, study.n_fitted) == (2, 3)


def test_metrics_by_name(tmp_path: Path) -> None:
    write_pair(tmp_path)
    scores = probed(tmp_path, **QUICK, metrics=["brier", "f1"]).scores
    assert [s.metric for s in scores[:2]] == ["brier", "f1"]
    assert len(probed(tmp_path, **QUICK, metrics=["f1", "f1"]).scores) == 2
    with pytest.raises(InputError, match="not defined for binary"):
        probed(tmp_path, **QUICK, metrics=["mean_ap"])
    with pytest.raises(InputError, match="Did you mean 'brier'"):
        probed(tmp_path, **QUICK, metrics=["brie"])
