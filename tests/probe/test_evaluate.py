"""The evaluation on real feature files: pairing, the store, the features read once, views, validation, draw files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mt.cache import catalog
from mt.cache.scores import ScoreStore
from mt.errors import CacheError, DamagedError, InputError
from mt.probe import metrics, plan, prober
from mt.probe.evaluate import Study, run_probe
from mt.probe.protocols import ALL_TASKS
from mt.probe.solvers import SOLVERS
from tests.probe.features import BLOCK, write_features, write_pair

N_CLASSES = {"binary": 2, "multiclass": 3, "ordinal": 4, "multilabel": 3}
QUICK: dict[str, Any] = {"protocol": "clip", "fractions": [0.5], "seeds": 2}


def store_of(study: Study) -> ScoreStore:
    return ScoreStore(study.store)


@pytest.mark.parametrize("task", ALL_TASKS)
def test_every_task_is_scored_by_its_headline(tmp_path: Path, task: str) -> None:
    write_pair(tmp_path, task=task, n_classes=N_CLASSES[task])
    study = run_probe(tmp_path, fractions=[0.5, 1.0], seeds=2)
    assert [(s.fraction, s.seed) for s in study.scores] == [(0.5, 0), (0.5, 1), (1.0, 0)]
    for score in study.scores:
        assert score.metric == metrics.HEADLINE[task]
        fit = store_of(study).fit(score.fit)
        cases = store_of(study).cases(fit.cases)
        assert score.value == pytest.approx(metrics.score(score.metric, cases.labels, fit.probabilities))
        assert fit.probabilities.dtype == np.float32
        assert len(cases.ids) == len(fit.probabilities) == score.n_test == 80
        assert score.n_labels == len(fit.rows) == (60 if score.fraction == 0.5 else 120)
        assert score.low is not None
        assert score.high is not None
        assert score.low <= score.value <= score.high
        assert "bootstrap" in score.interval


def test_what_was_asked_before_comes_from_the_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_pair(tmp_path)
    first = run_probe(tmp_path, **QUICK)
    assert (first.n_stored, first.n_fitted) == (0, 2)

    def refuse(*args: object, **options: object) -> None:
        raise AssertionError("a feature file was opened")

    monkeypatch.setattr(catalog.Entry, "open", refuse)
    again = run_probe(tmp_path, **QUICK)
    assert (again.n_stored, again.n_fitted) == (2, 0)
    assert again.scores == first.scores
    more = run_probe(tmp_path, **QUICK, metrics=["all"])
    assert more.n_fitted == 0
    assert {s.metric for s in more.scores} == set(metrics.metrics_for("binary"))


def test_predictions_from_the_same_features_are_equal_bit_for_bit(tmp_path: Path) -> None:
    write_pair(tmp_path, task="multiclass", n_classes=3)
    runs = [run_probe(tmp_path, fractions=[0.5], seeds=1, scores=tmp_path / f"{run}.sqlite") for run in range(2)]
    one, two = (store_of(run).fit(run.scores[0].fit) for run in runs)
    assert one.probabilities.tobytes() == two.probabilities.tobytes()
    assert one.outcome == two.outcome


def test_features_are_read_once_however_many_draws(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for model in ("m1", "m2"):
        write_pair(tmp_path, model=model)
    opened = []
    original = catalog.Entry.open
    monkeypatch.setattr(
        catalog.Entry, "open", lambda self, **options: opened.append((self.path, options)) or original(self, **options)
    )
    assert run_probe(tmp_path, protocol="clip", fractions=[0.2, 0.5, 1.0], seeds=3).n_fitted == 14
    assert len(opened) == len({path for path, _ in opened}) == 4
    assert all(options == {"verify": True} for _, options in opened)


def test_a_damaged_block_is_found_as_it_is_loaded(tmp_path: Path) -> None:
    write_pair(tmp_path)
    path = write_features(tmp_path)
    content = bytearray(path.read_bytes())
    features = catalog.read_entry(path).open().embeddings
    at = bytes(content).index(features[BLOCK].tobytes())
    content[at] ^= 1
    path.write_bytes(content)
    with pytest.raises(DamagedError, match=f"train-{BLOCK}"):
        run_probe(tmp_path, **QUICK)


def test_a_train_split_without_its_test_names_the_command(tmp_path: Path) -> None:
    write_features(tmp_path)
    with pytest.raises(CacheError, match="mt featurize --model m1 --dataset toy"):
        run_probe(tmp_path, **QUICK)


@pytest.mark.parametrize("other", [{"content": "changed"}, {"model": "m2"}])
def test_a_test_split_of_other_content_or_backbone_is_no_partner(tmp_path: Path, other: dict[str, str]) -> None:
    write_features(tmp_path)
    write_features(tmp_path, split="test", **other)
    with pytest.raises(CacheError, match="no finished 'test' features"):
        run_probe(tmp_path, **QUICK)


def test_an_empty_cache_names_the_command_that_fills_it(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="mt featurize --model dino --dataset pcam"):
        run_probe(tmp_path / "nothing")
    with pytest.raises(InputError, match="mt featurize --model swav --dataset digits"):
        run_probe(tmp_path / "nothing", models=["swav"], datasets=["digits"])


def test_names_that_the_cache_lacks_are_errors(tmp_path: Path) -> None:
    write_pair(tmp_path)
    with pytest.raises(InputError, match=r"--model swav.*mt featurize --model swav --dataset toy"):
        run_probe(tmp_path, models=["m1", "swav"])
    with pytest.raises(InputError, match=r"--dataset pcam.*mt featurize"):
        run_probe(tmp_path, datasets=["toy", "pcam"])


def test_random_weights_are_left_out_unless_everything_is_asked_for(tmp_path: Path) -> None:
    write_pair(tmp_path, random_weights=True)
    with pytest.raises(InputError, match=r"random.*--everything"):
        run_probe(tmp_path, **QUICK)
    study = run_probe(tmp_path, **QUICK, everything=True)
    assert all("random weights" in score.flags for score in study.scores)


def test_everything_in_the_cache_is_probed_and_options_narrow_it(tmp_path: Path) -> None:
    for dataset in ("toy", "other"):
        for model in ("m1", "m2"):
            write_pair(tmp_path, dataset, model)
    scores = run_probe(tmp_path, **QUICK).scores
    assert {(s.dataset, s.model) for s in scores} == {(d, m) for d in ("toy", "other") for m in ("m1", "m2")}
    narrowed = run_probe(tmp_path, **QUICK, models=["m2"], datasets=["other"])
    assert {(s.dataset, s.model) for s in narrowed.scores} == {("other", "m2")}
    assert narrowed.n_fitted == 0


def test_whatever_changes_a_number_changes_the_identity(tmp_path: Path) -> None:
    write_pair(tmp_path)
    write_features(tmp_path, split="val")
    asked = [
        {}, {"protocol": "default"}, {"protocol": "patho-bench"}, {"fractions": [0.6]}, {"fractions": [], "shots": [4]},
        {"solver": "sklearn"}, {"select": "val"},
    ]  # fmt: skip
    fits = [score.fit for more in asked for score in run_probe(tmp_path, **{**QUICK, **more}).scores]
    assert len(set(fits)) == len(fits) == 14


def test_the_revisions_that_planning_knows_are_the_solvers_own() -> None:
    assert {name: solver.revision for name, solver in SOLVERS.items()} == plan.SOLVER_REVISIONS


def test_a_score_says_what_it_is(tmp_path: Path) -> None:
    write_pair(tmp_path, grouped=True)
    (score,) = run_probe(tmp_path, fractions=[0.5], seeds=1).scores
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
    assert row["flags"] == []


def test_without_groups_the_score_says_so(tmp_path: Path) -> None:
    write_pair(tmp_path)
    (score,) = run_probe(tmp_path, fractions=[0.5], seeds=1).scores
    assert {"cases assumed independent", "no patient grouping known"} <= set(score.flags)
    assert "assumed independent" in score.interval


def test_predictions_that_collapse_are_flagged(tmp_path: Path) -> None:
    write_pair(tmp_path)
    X = np.full((80, 8), 50.0, dtype=np.float32)
    write_features(tmp_path, split="test", n=80, embeddings=X)
    assert "collapsed" in run_probe(tmp_path, protocol="clip", fractions=[1.0]).scores[0].flags


def test_an_unconverged_fit_is_flagged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from dataclasses import replace

    from mt.probe import evaluate
    from mt.probe.protocols import PROTOCOLS

    hasty = replace(PROTOCOLS["clip"], method=replace(PROTOCOLS["clip"].method, max_iter=1, tol=1e-12))
    monkeypatch.setattr(evaluate, "get_protocol", lambda name: hasty)
    write_pair(tmp_path)
    assert "unconverged" in run_probe(tmp_path, fractions=[1.0], solver="sklearn").scores[0].flags


def test_all_labels_are_one_draw(tmp_path: Path) -> None:
    write_pair(tmp_path)
    assert len(run_probe(tmp_path, protocol="clip", fractions=[1.0], seeds=5).scores) == 1


def test_a_small_draw_lies_inside_a_large_one(tmp_path: Path) -> None:
    write_pair(tmp_path)
    study = run_probe(tmp_path, protocol="clip", fractions=[0.1, 0.5], seeds=1)
    small, large = (store_of(study).fit(score.fit).rows for score in study.scores)
    assert set(small) < set(large)


def test_validation_labels_choose_only_when_asked_and_are_counted(tmp_path: Path) -> None:
    write_pair(tmp_path)
    with pytest.raises(CacheError, match="'val'"):
        run_probe(tmp_path, fractions=[0.5], seeds=1, select="val")
    write_features(tmp_path, split="val", n=40)
    (score,) = run_probe(tmp_path, fractions=[0.5], seeds=1, select="val").scores
    assert (score.select, score.n_labels) == ("val", 60 + 40)
    assert "val" in score.fingerprints


@pytest.mark.parametrize("name", ["dinov2-logreg", "thunder-knn", "dino-knn"])
def test_other_protocols_choose_on_validation_labels_too(tmp_path: Path, name: str) -> None:
    write_pair(tmp_path, n=60)
    write_features(tmp_path, split="val", n=40)
    study = run_probe(tmp_path, protocol=name, fractions=[1.0], select="val")
    outcome = store_of(study).fit(study.scores[0].fit).outcome
    assert outcome["selection"]["source"] == "val"
    assert outcome["select"] == "val"


def test_draws_are_written_and_read_back(tmp_path: Path) -> None:
    write_pair(tmp_path)
    file = tmp_path / "draws.json"
    first = run_probe(tmp_path, **QUICK, draw_file=file)
    again = run_probe(tmp_path, protocol="clip", draw_file=file)
    assert again.n_fitted == 2
    for one, two in zip(first.scores, again.scores, strict=True):
        assert (one.fraction, one.seed, one.value) == (two.fraction, two.seed, two.value)
        rows = store_of(first).fit(one.fit).rows
        assert rows.tolist() == store_of(again).fit(two.fit).rows.tolist()
    write_pair(tmp_path, "other")
    with pytest.raises(InputError, match="one dataset"):
        run_probe(tmp_path, draw_file=file)


def test_scores_by_subgroup(tmp_path: Path) -> None:
    columns = {"sex": ["F", "M", "", "M"] * 20, "age": np.linspace(20, 80, 80).tolist()}
    write_features(tmp_path)
    write_features(tmp_path, split="test", n=80, columns=columns)
    study = run_probe(tmp_path, **QUICK, by="sex")
    assert [s.subgroup for s in study.scores[:3]] == ["F", "M", "unknown"]
    assert [s.n_test for s in study.scores[:3]] == [20, 40, 20]
    fit = store_of(study).fit(study.scores[1].fit)
    cases = store_of(study).cases(fit.cases)
    rows = np.flatnonzero(np.array(cases.columns["sex"]) == "M")
    expected = metrics.score("roc_auc", cases.labels[rows], fit.probabilities[rows])
    assert study.scores[1].value == pytest.approx(expected)
    quarters = run_probe(tmp_path, **QUICK, by="age")
    assert (quarters.n_fitted, [s.n_test for s in quarters.scores[:4]]) == (0, [20] * 4)
    with pytest.raises(InputError, match="Columns: age, sex"):
        run_probe(tmp_path, **QUICK, by="site")


def test_a_subgroup_of_one_class_is_undefined_and_not_an_error(tmp_path: Path) -> None:
    write_features(tmp_path)
    path = write_features(tmp_path, split="test", n=80)
    labels = catalog.read_entry(path).open().labels
    write_features(tmp_path, split="test", n=80, columns={"same": [str(label) for label in labels]})
    scores = run_probe(tmp_path, **QUICK, by="same").scores
    assert all(np.isnan(score.value) and score.low is None for score in scores)


def test_one_prediction_a_patient(tmp_path: Path) -> None:
    write_pair(tmp_path, grouped=True)
    study = run_probe(tmp_path, **QUICK, level="group")
    (score, *_) = study.scores
    fit = store_of(study).fit(score.fit)
    cases = store_of(study).cases(fit.cases)
    names = sorted(set(cases.groups or []))
    member = np.array(cases.groups)
    p = [fit.probabilities[member == name].astype(float).mean() for name in names]
    y = [cases.labels[member == name].max() for name in names]
    assert (score.level, score.n_test) == ("group", 20)
    assert np.isnan(score.value) == (len(set(y)) < 2)
    if len(set(y)) == 2:
        assert score.value == pytest.approx(metrics.score("roc_auc", y, p), abs=1e-6)


def test_group_level_needs_groups_of_one_class(tmp_path: Path) -> None:
    write_pair(tmp_path)
    with pytest.raises(InputError, match="--level group"):
        run_probe(tmp_path, **QUICK, level="group")
    write_pair(tmp_path, "mixed", task="multiclass", n_classes=3, grouped=True)
    with pytest.raises(InputError, match="one class a group"):
        run_probe(tmp_path, **QUICK, datasets=["mixed"], level="group")


def test_training_on_one_dataset_and_testing_on_another(tmp_path: Path) -> None:
    write_features(tmp_path, "here")
    write_features(tmp_path, "there", split="test", n=80)
    write_features(tmp_path, "there", split="train")
    scores = run_probe(tmp_path, **QUICK, test_dataset="there").scores
    assert {(s.dataset, s.test_dataset) for s in scores} == {("here", "there")}
    write_features(tmp_path, "grades", split="test", task="ordinal", n_classes=4)
    with pytest.raises(InputError, match=r"--test-dataset grades needs the task and classes of here"):
        run_probe(tmp_path, **QUICK, datasets=["here"], test_dataset="grades")


def test_what_was_scored_before_an_interruption_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_pair(tmp_path)
    original, calls = prober.fit_probe, []

    def interrupted(*args: Any, **options: Any) -> Any:
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return original(*args, **options)

    monkeypatch.setattr(prober, "fit_probe", interrupted)
    with pytest.raises(KeyboardInterrupt, match="2 of 5 fits are kept"):
        run_probe(tmp_path, protocol="clip", fractions=[0.5], seeds=5)
    study = run_probe(tmp_path, protocol="clip", fractions=[0.5], seeds=5)
    assert (study.n_stored, study.n_fitted) == (2, 3)


def test_equal_names_are_told_apart_by_their_fingerprints(tmp_path: Path) -> None:
    write_pair(tmp_path)
    assert {s.dataset for s in run_probe(tmp_path, **QUICK).scores} == {"toy"}
    write_pair(tmp_path, location="/elsewhere", content="other")
    study = run_probe(tmp_path, **QUICK)
    names = {s.dataset for s in study.scores}
    assert (len(names), study.n_stored, study.n_fitted) == (2, 2, 2)
    assert all(name.startswith("toy@") for name in names)


def test_metrics_by_name(tmp_path: Path) -> None:
    write_pair(tmp_path)
    scores = run_probe(tmp_path, **QUICK, metrics=["brier", "f1"]).scores
    assert [s.metric for s in scores[:2]] == ["brier", "f1"]
    with pytest.raises(InputError, match="not defined for binary"):
        run_probe(tmp_path, **QUICK, metrics=["mean_ap"])
    with pytest.raises(InputError, match="Did you mean 'brier'"):
        run_probe(tmp_path, **QUICK, metrics=["brie"])


def test_a_read_only_cache_keeps_its_scores_elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from mt import folders

    cache = tmp_path / "cache"
    write_pair(cache)
    monkeypatch.setattr(folders.os, "access", lambda path, mode: False)
    monkeypatch.setattr(folders, "user_dir", lambda: tmp_path / "mine")
    assert run_probe(cache, **QUICK).store == tmp_path / "mine" / "scores.sqlite"
    assert not list(cache.glob("*.sqlite*"))
    assert run_probe(cache, **QUICK, scores=tmp_path / "here.sqlite").store == tmp_path / "here.sqlite"
