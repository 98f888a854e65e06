"""`mt fuse` on feature files: the rows of a study, its draws, joins, stores, refusals, and the saved models."""

from __future__ import annotations

import json
import pickle
import re
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from click.testing import CliRunner

from mt.cache.catalog import Catalog
from mt.errors import InputError, MtError
from mt.fuse import fuser
from mt.fuse.aligned import AlignedFeatures, _rows_like, join_pairs
from mt.fuse.cli import fuse
from mt.fuse.dvme import recipes
from mt.fuse.dvme.fit import DVMEOptions
from mt.fuse.fuser import REVISION, also_fitted, attention_by_class, identity_of
from mt.fuse.request import FuseRequest
from mt.fuse.rivals import METHODS
from mt.fuse.run import run_fuse
from mt.fuse.tables import print_attention
from mt.predict.load import load_model
from mt.probe.protocols import Fitting, get_protocol
from mt.probe.questions import find_pairs
from mt.probe.request import Answers
from mt.probe.run import fit_probe
from mt.results.store import ScoreStore
from tests.probe.features import probed, write_features, write_pair


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Train small networks for two epochs: the command's paths are tested here, not the method."""
    short = {name: replace(recipe, epochs=min(recipe.epochs, 2)) for name, recipe in recipes.RECIPES.items()}
    monkeypatch.setattr(recipes, "RECIPES", short)
    monkeypatch.setattr(fuser, "DVMEOptions", partial(DVMEOptions, width=32))


def _cache(folder: Path, models: tuple[str, ...] = ("m1", "m2"), **facts: Any) -> Path:
    for number, model in enumerate(models):
        for split, n in (("train", 210), ("test", 60)):
            write_features(folder, model=model, split=split, n=n, dim=6 + number, **facts)
    return folder


def _pair(cache: Path, **asked: Any) -> Any:
    return join_pairs(find_pairs(Catalog(cache), **asked))[0]


@pytest.mark.parametrize("task", ["binary", "multiclass", "ordinal", "multilabel"])
def test_a_study_holds_every_method_on_the_same_draws(tmp_path: Path, task: str) -> None:
    cache = _cache(tmp_path, task=task, n_classes=2 if task == "binary" else 3, grouped=True)
    study = run_fuse(FuseRequest(cache, fractions=[0.5], seeds=2))
    rows = {(score.method, score.model) for score in study.scores}
    both = "m1 + m2"
    assert rows == {
        ("probe", "m1"),
        ("probe", "m2"),
        ("best-single", both),
        ("average", both),
        ("concat", both),
        ("blend", both),
        ("dvme", both),
    }
    with ScoreStore(study.store) as store:
        for seed in (0, 1):
            fits = [store.fit(score.fit) for score in study.scores if score.seed == seed]
            assert len({fit.cases for fit in fits}) == 1
            assert all(np.array_equal(fit.rows, fits[0].rows) for fit in fits)


@pytest.mark.parametrize(
    ("methods", "rows"),
    [
        (["concat"], {"concat"}),
        (["average"], {"probe", "average"}),
        (["dvme"], {"probe", "best-single", "concat", "dvme"}),
        (["average", "concat"], {"probe", "average", "concat"}),
        (["blend"], {"blend"}),
    ],
)
def test_only_the_methods_asked_for_are_fitted(tmp_path: Path, methods: tuple[str, ...], rows: Any) -> None:
    study = run_fuse(FuseRequest(_cache(tmp_path), methods=methods, fractions=[0.5], seeds=1))
    assert {score.method for score in study.scores} == rows
    with ScoreStore(study.store) as store:
        assert {score.method for score in store.scores()} == rows


def test_options_of_dvme_are_refused_without_it(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"--ablations requires --method dvme"):
        run_fuse(FuseRequest(tmp_path, methods=["concat"], ablations=True))
    with pytest.raises(InputError, match=r"No method 'concta'\. Did you mean 'concat'"):
        run_fuse(FuseRequest(tmp_path, methods=["concta"]))


def test_without_dvme_the_command_prints_no_empty_table(tmp_path: Path) -> None:
    arguments = ["--cache-dir", str(_cache(tmp_path)), "--method", "concat", "--fraction", "0.5", "--seeds", "1"]
    shown = CliRunner().invoke(fuse, arguments, catch_exceptions=False).stdout
    assert "concat: m1 + m2" in shown
    assert "Paired differences" not in shown


def test_probes_are_those_of_mt_probe_and_nothing_is_fitted_twice(tmp_path: Path) -> None:
    cache = _cache(tmp_path)
    alone = probed(cache, fractions=[0.5], seeds=2)
    study = run_fuse(FuseRequest(cache, fractions=[0.5], seeds=2))
    assert study.n_stored == len(alone.scores)
    assert {score.identity for score in alone.scores} <= {score.identity for score in study.scores}
    again = run_fuse(FuseRequest(cache, fractions=[0.5], seeds=2))
    assert again.n_fitted == 0
    assert [score.value for score in again.scores] == [score.value for score in study.scores]


def test_a_draw_of_every_row_is_fused_once(tmp_path: Path) -> None:
    cache = _cache(tmp_path)
    study = run_fuse(FuseRequest(cache, shots=[5000], seeds=3, methods=["average", "concat"]))
    rows = [(score.method, score.model, score.seed) for score in study.scores]
    assert len(rows) == len(set(rows)) == study.n_fitted
    assert {seed for _, _, seed in rows} == {0}
    again = run_fuse(FuseRequest(cache, shots=[5000], seeds=3, methods=["average", "concat"]))
    assert (again.n_fitted, again.n_stored) == (0, study.n_fitted)


def test_average_and_best_single_are_made_of_the_probes(tmp_path: Path) -> None:
    study = run_fuse(FuseRequest(_cache(tmp_path), fractions=[0.5], seeds=1))
    with ScoreStore(study.store) as store:
        fits = {(score.method, score.model): store.fit(score.fit) for score in study.scores}
    singles = {model: fits["probe", model] for model in ("m1", "m2")}
    mean = np.mean([fit.probabilities.astype(np.float64) for fit in singles.values()], axis=0)
    np.testing.assert_array_equal(fits["average", "m1 + m2"].probabilities, mean.astype(np.float32))
    best = max(singles, key=lambda model: max(singles[model].outcome["selection"]["scores"]))
    chosen = fits["best-single", "m1 + m2"]
    assert chosen.outcome["settings"]["model"] == best
    np.testing.assert_array_equal(chosen.probabilities, singles[best].probabilities)


@pytest.mark.parametrize("saved", [False, True])
def test_average_and_best_single_follow_ids_where_files_hold_them_in_other_orders(tmp_path: Path, saved: bool) -> None:
    """An imported file may hold the rows in another order: each row's probabilities, and each draw, are by id."""
    made: dict[str, dict[str, Any]] = {}
    for name, shuffled in (("ordered", False), ("shuffled", True)):
        for model in ("m1", "m2"):
            for split, n in (("train", 210), ("test", 60)):
                write_features(tmp_path / name, model=model, split=split, n=n, shuffled=shuffled and model == "m2")
        request = FuseRequest(
            tmp_path / name,
            fractions=[0.5],
            seeds=1,
            methods=["average", "dvme"],
            save=tmp_path / f"saved {name}" if saved else None,
        )
        study = run_fuse(request)
        with ScoreStore(study.store) as store:
            made[name] = {score.method: store.fit(score.fit) for score in study.scores}
            assert store.cases(made[name]["average"].cases).ids == [f"test-{row}" for row in range(60)]
    for method in ("average", "best-single"):
        one, two = (made[name][method] for name in ("ordered", "shuffled"))
        assert one.outcome["settings"] == two.outcome["settings"]
        np.testing.assert_allclose(one.probabilities, two.probabilities, atol=1e-6)


def test_a_draw_of_every_row_keeps_its_probes_whatever_their_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for model in ("m1", "m2"):
        for split, n in (("train", 210), ("test", 60)):
            write_features(tmp_path, model=model, split=split, n=n, shuffled=model == "m2")
    monkeypatch.setattr(fuser, "fit_probe", lambda *_, **__: pytest.fail("a kept probe was fitted again"))
    study = run_fuse(FuseRequest(tmp_path, fractions=[1.0], seeds=1, methods=["average"]))
    with ScoreStore(study.store) as store:
        kept = {(score.method, score.model): store.fit(score.fit) for score in study.scores}
        places = {name: row for row, name in enumerate(store.cases(kept["probe", "m2"].cases).ids)}
        ids = store.cases(kept["average", "m1 + m2"].cases).ids
    second = kept["probe", "m2"].probabilities[[places[name] for name in ids]]
    mean = (kept["probe", "m1"].probabilities.astype(np.float64) + second) / 2
    np.testing.assert_allclose(kept["average", "m1 + m2"].probabilities, mean, atol=1e-7)


@pytest.mark.parametrize(("task", "n_classes"), [("multiclass", 3), ("binary", 2)])
def test_blend_is_the_protocol_on_all_models_and_the_budget_recommends(
    tmp_path: Path, task: str, n_classes: int
) -> None:
    cache = _cache(tmp_path, task=task, n_classes=n_classes)
    study = run_fuse(FuseRequest(cache, methods=["blend", "concat"], fractions=[0.5], seeds=1))
    joined = AlignedFeatures.load(_pair(cache))
    with ScoreStore(study.store) as store:
        fits = {score.method: store.fit(score.fit) for score in study.scores}
    fit = fits["blend"]
    budget = joined.drawn(fit.rows)
    widths = tuple(X.shape[1] for X in budget.X)
    fitting = Fitting(get_protocol("blend-four"), widths=widths).on(task, n_classes)
    alone = fit_probe(budget.with_features(np.concatenate(budget.X, axis=1)), fitting, seed=0)
    np.testing.assert_array_equal(fit.probabilities, alone.probe.probabilities(joined.concatenated_test))
    assert ("no_lda" in fit.outcome["flags"]) == (task == "binary")
    hashes = {method: one.outcome["versions"].get("blend-four") for method, one in fits.items()}
    assert hashes == {"blend": get_protocol("blend-four").fingerprint[:12], "concat": None}
    losses = {method: fit.outcome["selection"]["log_loss"] for method, fit in fits.items()}
    arguments = ["--cache-dir", str(cache), "--fraction", "0.5", "--seeds", "1", "--method", "blend"]
    shown = CliRunner().invoke(fuse, [*arguments, "--method", "concat"], catch_exceptions=False).stdout
    assert f"lowest out-of-fold log loss): {min(losses, key=lambda one: losses[one])} in 1 of 1 draws" in shown
    assert "recommended" not in CliRunner().invoke(fuse, arguments, catch_exceptions=False).stdout


def test_blend_of_an_earlier_revision_stays_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    fitting = Fitting(get_protocol("default"))
    before = {method: identity_of(method, fitting, []) for method in ("concat", "blend", "dvme")}
    monkeypatch.setattr("mt.fuse.fuser.REVISION", REVISION + 1)
    after = {method: identity_of(method, fitting, []) for method in before}
    assert [method for method in before if before[method] != after[method]] == ["blend", "dvme"]


@pytest.mark.parametrize(
    ("method", "selection", "fitted"),
    [
        ("blend", {}, True),
        ("concat", {}, False),
        ("dvme", {"recipes": {"start": {}, "blend": {}}}, True),
        ("dvme", {"recipes": {"start": {}, "gentle": {}}}, False),
    ],
)
def test_the_hash_of_the_protocol_of_blend_is_stored_where_it_was_fitted(
    method: str, selection: dict[str, Any], *, fitted: bool
) -> None:
    hashed = {"blend-four": get_protocol("blend-four").fingerprint[:12]}
    assert also_fitted(method, selection) == (hashed if fitted else {})


def test_attention_and_the_choice_are_stored_and_printed(tmp_path: Path) -> None:
    cache = _cache(tmp_path)
    study = run_fuse(FuseRequest(cache, fractions=[0.5], seeds=2))
    with ScoreStore(study.store) as store:
        outcome = store.fit(next(s.fit for s in study.scores if s.method == "dvme")).outcome
    assert outcome["attention"]["models"] == ["m1", "m2"]
    assert sum(outcome["attention"]["overall"]) == pytest.approx(1, abs=1e-5)
    assert set(outcome["attention"]["classes"]) == {"class 0", "class 1"}
    assert set(outcome["selection"]["recipes"]) == {"start", "gentle", "bold"}
    arguments = ["--cache-dir", str(cache), "--fraction", "0.5", "--seeds", "2"]
    shown = CliRunner().invoke(fuse, arguments, catch_exceptions=False).stdout
    for words in ("dvme: m1 + m2", "concat: m1 + m2", "50 %: network trained in ", "dvme: m1 + m2 - concat: m1 + m2"):
        assert words in shown
    assert re.search(r"of 2 draws; mean out-of-fold log loss 0\.\d{3}, of best-single 0\.\d{3}\n", shown)
    lines = [json.loads(line) for line in CliRunner().invoke(fuse, [*arguments, "--json"]).stdout.splitlines()]
    assert {"attention", "comparison"} <= {key for line in lines for key in line}
    (attention,) = (line for line in lines if "attention" in line)
    rows = [line for line in lines if line.get("method") == "dvme" and "identity" in line]
    assert sum(row["network_trained"] for row in rows) == attention["trained"]
    assert all("network_trained" not in line for line in lines if line.get("method") == "concat")
    assert re.findall(r"trained \d/\d", shown) == [f"trained {attention['trained']}/2"], "in the row of DVME alone"


@pytest.mark.parametrize("trained", [0, 1])
def test_attention_is_shown_only_where_a_network_was_trained(trained: int, capsys: pytest.CaptureFixture[str]) -> None:
    row = {
        "attention": "toy",
        "method": "dvme",
        "fraction": 0.5,
        "shots": None,
        "models": ["m1", "m2"],
        "overall": [0.5, 0.5],
        "classes": {"class 0": [0.5, 0.5]},
        "draws": 2,
        "trained": trained,
        "recipes": ["start"],
    }
    print_attention(row)
    shown = capsys.readouterr().out
    assert f"toy, dvme, 50 %: network trained in {trained} of 2 draws, the start" in shown
    assert ("attention received by each model" in shown) == ("class 0" in shown) == bool(trained)


def test_attention_is_the_mean_over_all_cases_and_over_those_of_each_class() -> None:
    received = np.array([[0.9, 0.1], [0.7, 0.3], [0.2, 0.8]])
    pair: Any = SimpleNamespace(model="m1 + m2")

    def by_class(labels: np.ndarray, names: list[str]) -> dict[str, Any]:
        first = SimpleNamespace(cases=SimpleNamespace(y=labels), train=SimpleNamespace(class_names=names))
        features: Any = SimpleNamespace(first=first)
        return attention_by_class(pair, features, received)

    found = by_class(np.array([0, 0, 2]), ["a", "b", "c"])
    assert found == {"models": ["m1", "m2"], "overall": [0.6, 0.4], "classes": {"a": [0.8, 0.2], "c": [0.2, 0.8]}}
    several = by_class(np.array([[1, 0], [0, 0], [1, 1]]), ["x", "y"])
    assert several["classes"] == {"x": [0.55, 0.45], "y": [0.2, 0.8]}


def test_ablations_add_their_rows(tmp_path: Path) -> None:
    cache = _cache(tmp_path, ("m1", "m2", "m3"))
    study = run_fuse(FuseRequest(cache, fractions=[0.5], seeds=1, ablations=True))
    every = "m1 + m2 + m3"
    with ScoreStore(study.store) as store:
        found = {(score.method, score.model): store.fit(score.fit).outcome for score in study.scores}
    random, plain, uniform = (found[f"dvme-{name}", every] for name in ("random", "plain", "uniform"))
    assert [one["settings"]["recipe"]["start"] for one in (random, plain)] == ["random", "plain"]
    assert not plain["settings"]["recipe"]["residual"]
    np.testing.assert_allclose(uniform["attention"]["overall"], 1 / 3, atol=1e-6)
    assert not np.allclose(random["attention"]["overall"], 1 / 3, atol=1e-6)
    fewer = {("dvme", "m2 + m3"), ("dvme", "m1 + m3"), ("dvme", "m1 + m2")}
    assert fewer <= set(found)
    again = run_fuse(FuseRequest(cache, models=["m1", "m3"], methods=["dvme"], fractions=[0.5], seeds=1))
    left_out = {score.identity for score in study.scores if (score.method, score.model) == ("dvme", "m1 + m3")}
    assert left_out == {score.identity for score in again.scores if score.method == "dvme"}


def test_files_are_joined_by_id(tmp_path: Path) -> None:
    cache = _cache(tmp_path)
    pair = _pair(cache)
    joined = AlignedFeatures.load(pair)
    second = pair.train[1].open()
    order = np.random.default_rng(0).permutation(210)

    shuffled = SimpleNamespace(
        backbone="m2",
        split="train",
        dataset="toy",
        ids=[second.ids[row] for row in order],
        labels=second.labels[order],
        embeddings=second.embeddings[order],
        task="binary",
        class_names=second.class_names,
    )
    np.testing.assert_array_equal(_rows_like(pair.train[0].open(), shuffled), joined.train[1])
    shuffled.class_names = second.class_names[::-1]
    with pytest.raises(InputError, match=r"have other classes: \('class 0', 'class 1'\) and \('class 1', 'class 0'\)"):
        _rows_like(pair.train[0].open(), shuffled)


def test_other_labels_and_other_cases_are_refused_with_the_first_differences(tmp_path: Path) -> None:
    cache = _cache(tmp_path)
    labels = _pair(cache).train[1].open().labels.copy()
    labels[[3, 7]] = 1 - labels[[3, 7]]
    write_features(cache, model="m2", split="train", n=210, dim=7, labels=labels)
    with pytest.raises(InputError, match=r"disagree on 2 labels: train-3: . and ., train-7"):
        AlignedFeatures.load(_pair(cache))
    write_features(cache, model="m2", split="train", n=209, dim=7)
    with pytest.raises(InputError, match=r"hold other cases: 1 only in the first \(train-209\)"):
        AlignedFeatures.load(_pair(cache))


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ({"models": ["m1"]}, "at least two models, found one"),
        ({"models": ["m1", "m1"]}, "named twice"),
        ({"models": ["m1", "m9"]}, "mt featurize --model m9"),
        ({"datasets": ["other"]}, "No dataset 'other'"),
        ({"device": "cuda:9"}, "No device 'cuda:9'"),
        ({"draw_file": "none.csv"}, "No draw file none.csv"),
        ({"metrics": ["accuracies"]}, "accurac"),
    ],
)
def test_bad_input_is_said_in_one_line(tmp_path: Path, asked: dict[str, Any], words: str) -> None:
    with pytest.raises(MtError, match=words) as caught:
        run_fuse(FuseRequest(_cache(tmp_path), **asked))
    assert "\n" not in str(caught.value)


def test_a_draw_file_of_other_budgets_is_refused(tmp_path: Path) -> None:
    cache, listed = _cache(tmp_path), tmp_path / "draws.csv"
    probed(cache, fractions=[0.5], seeds=1, draw_file=listed)
    with pytest.raises(MtError, match=r"lists draws of 50 %; asked for were 20 %"):
        run_fuse(FuseRequest(cache, fractions=[0.2], draw_file=listed))


def test_datasets_of_other_content_are_not_fused(tmp_path: Path) -> None:
    write_features(tmp_path, model="m1", split="train")
    write_features(tmp_path, model="m1", split="test")
    write_features(tmp_path, model="m2", split="train", content="other")
    write_features(tmp_path, model="m2", split="test", content="other")
    with pytest.raises(InputError, match="at least two models on 'toy@"):
        run_fuse(FuseRequest(tmp_path, fractions=[1.0]))


def test_a_dataset_with_one_model_is_omitted_with_a_note_unless_it_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cache = _cache(tmp_path)
    write_pair(cache, "lonely", "m1")
    asked = FuseRequest(cache, shots=[5], seeds=1, methods=["concat"])
    assert {score.dataset for score in run_fuse(asked).scores} == {"toy"}
    assert "lonely is omitted. Fusion needs at least two models on 'lonely'" in capsys.readouterr().err
    with pytest.raises(InputError, match="at least two models on 'lonely'"):
        run_fuse(replace(asked, datasets=["toy", "lonely"]))


class Saved(NamedTuple):
    cache: Path
    study: Answers
    file: Path


@pytest.fixture
def saved(tmp_path: Path) -> Saved:
    cache = _cache(tmp_path / "cache")
    study = run_fuse(FuseRequest(cache, fractions=[0.5], seeds=1, save=tmp_path / "models"))
    (file,) = (tmp_path / "models").glob("*-dvme-*.json")
    return Saved(cache, study, file)


@pytest.mark.parametrize("task", ["binary", "multiclass", "multilabel"])
@pytest.mark.parametrize("grouped", [False, True])
def test_every_method_is_saved_and_predicts_the_scored_bits(tmp_path: Path, task: str, grouped: bool) -> None:
    cache, folder = tmp_path / "cache", tmp_path / "models"
    for model, dim in (("m1", 6), ("m2", 9), ("m3", 4)):
        write_pair(cache, model=model, dim=dim, task=task, n_classes=3 - (task == "binary"), grouped=grouped)
    asked = FuseRequest(cache, methods=["concat", "average"], fractions=[0.5], seeds=2)
    plain = run_fuse(asked)  # what is stored before is what is saved
    study = run_fuse(replace(asked, methods=[*METHODS], save=folder))
    features = AlignedFeatures.load(_pair(cache))
    with ScoreStore(study.store) as store:
        fits = {score.fit: score for score in study.scores if score.method != "probe"}
        assert {score.fit for score in plain.scores if score.method != "probe"} < set(fits)
        for fit, score in fits.items():
            (file,) = folder.glob(f"*-{score.method}-50pct-seed{score.seed}-{fit[:8]}.json")
            loaded = load_model(file)
            names = [backbone["name"] for backbone in loaded.backbones]
            test = [X for name, X in zip(("m1", "m2", "m3"), features.test, strict=True) if name in names]
            p = loaded.predict_proba(test)
            np.testing.assert_array_equal(p[:, 1] if task == "binary" else p, store.fit(fit).probabilities)
            assert len(names) == (1 if score.method == "best-single" else 3)
    assert {score.method for score in fits.values()} == {"best-single", "average", "concat", "blend", "dvme"}
    assert len(list(folder.glob("*.json"))) == len(fits) == 10


def test_a_folder_stands_for_its_dvme(saved: Saved, capsys: pytest.CaptureFixture[str]) -> None:
    _, _, file = saved
    assert load_model(file.parent).about["method"] == "dvme"
    assert f"{file.name}: the dvme of 5 models in" in capsys.readouterr().err
    file.unlink()
    with pytest.raises(InputError, match=r"holds 4 models\. Name one of them"):
        load_model(file.parent)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"rule": "concat"}, "rule concat with 2 probes"),
        ({"rule": "sum"}, "rule sum"),
        ({"probes": []}, "with 0 probes"),
        ({"format_version": 9}, "Install a newer mt"),
        ({"backbones": None}, "does not fit together"),
    ],
)
def test_a_rival_that_says_something_else_is_refused(saved: Saved, change: dict[str, Any], words: str) -> None:
    (file,) = saved[2].parent.glob("*-average-*.json")
    file.write_text(json.dumps(json.loads(file.read_text()) | change))
    with pytest.raises(InputError, match=words):
        load_model(file)


def test_a_saved_model_predicts_the_same_bits(saved: Saved) -> None:
    cache, study, file = saved
    model = load_model(file.parent)
    p = model.predict_proba(AlignedFeatures.load(_pair(cache)).test)
    with ScoreStore(study.store) as store:
        kept = store.fit(next(s.fit for s in study.scores if s.method == "dvme")).probabilities
    np.testing.assert_array_equal(p[:, 1], kept)
    assert [backbone["name"] for backbone in model.backbones] == ["m1", "m2"]
    with pytest.raises(InputError, match="reads embeddings of m1, m2"):
        model.predict_proba([np.zeros((2, 3))])


def test_files_that_do_not_fit_together_and_newer_ones_are_refused(saved: Saved) -> None:
    _, _, file = saved
    numbers = file.with_suffix(".safetensors")
    content = numbers.read_bytes()
    numbers.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(InputError, match="does not belong to"):
        load_model(file)
    about = json.loads(file.read_text())
    file.write_text(json.dumps(about | {"format_version": 99}))
    with pytest.raises(InputError, match="Install a newer mt"):
        load_model(file)
    file.write_text("[1]")
    with pytest.raises(InputError, match="not a saved model"):
        load_model(file)
    for one in file.parent.glob("*.json"):
        one.unlink()
    with pytest.raises(InputError, match="No saved model"):
        load_model(file.parent)


def test_a_json_that_says_something_else_is_refused_in_one_line(saved: Saved) -> None:
    _, _, file = saved
    about = json.loads(file.read_text())
    for change, words in (
        ({"backbones": None}, "does not fit together"),
        ({"backbones": []}, "does not fit together"),
        ({"class_names": ["one"]}, "1 class names for 2 classes"),
        ({"shape": {"n_outputs": 3, "width": 32, "heads": 8}}, "does not fit together .*size mismatch"),
        ({"recipe": {"name": "start", "speed": 1}}, "does not fit together"),
        ({"format": "mt-else"}, "expected a JSON with format 'mt-fusion'"),
        ({"format_version": 0}, "Save the model again"),
        ({"tensors_sha256": 7}, "does not belong to"),
    ):
        without = {name: value for name, value in about.items() if name not in change}
        for one, said in ((about | change, words), (without, "saved model|lacks|format")):
            file.write_text(json.dumps(one))
            with pytest.raises(InputError, match=said) as caught:
                load_model(file)
            assert "\n" not in str(caught.value)


def test_the_json_says_all_that_using_and_judging_it_takes(saved: Saved) -> None:
    _, study, file = saved
    about = json.loads(file.read_text())
    assert file.name.startswith("toy-m1-m2-")
    assert "-dvme-50pct-seed0-" in file.name
    (score,) = (score for score in study.scores if score.method == "dvme")
    (kept,) = about["scores"]
    assert (kept["metric"], kept["value"]) == (score.metric, score.value)
    assert about["n_labels"] == score.n_labels
    assert [one["fingerprint"] for one in about["backbones"]] == [
        entry["backbone"] for entry in score.fingerprints["train"]
    ]
    assert {"task", "class_names", "fraction", "seed", "settings", "selection", "attention", "versions"} <= set(about)


def test_loading_unpickles_nothing(saved: Saved, monkeypatch: pytest.MonkeyPatch) -> None:
    _, _, file = saved

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("unpickled")

    monkeypatch.setattr(pickle, "Unpickler", refuse)
    monkeypatch.setattr(pickle, "loads", refuse)
    monkeypatch.setattr(torch, "load", refuse)
    assert load_model(file).task == "binary"


def test_a_saved_probe_loads_the_same_way(tmp_path: Path) -> None:
    cache = _cache(tmp_path / "cache")
    probed(cache, models=["m1"], fractions=[0.5], seeds=1, save=tmp_path / "models")
    model = load_model(tmp_path / "models")
    assert model.backbones[0]["name"] == "m1"
    assert model.predict_proba([np.zeros((3, 6), dtype=np.float32)]).shape == (3, 2)
