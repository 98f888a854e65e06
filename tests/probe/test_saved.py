"""Saved probes give the same predictions later, from two plain files that hold no code."""

from __future__ import annotations

import json
import pickle
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mt.cache.catalog import Catalog
from mt.errors import InputError
from mt.probe import run
from mt.probe.protocols import PROTOCOLS
from mt.probe.saved import FORMAT_VERSION, load_probe
from mt.probe.scores import scoring
from tests.open_stores import open_store
from tests.probe.brief import brief
from tests.probe.features import probed, store_of, write_pair


@pytest.mark.parametrize("name", PROTOCOLS)
def test_a_saved_probe_predicts_what_was_scored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setattr(run, "get_protocol", brief)
    write_pair(tmp_path, task="multiclass", n_classes=3, n=60)
    probed(tmp_path, protocol=name, fractions=[1.0])
    study = probed(tmp_path, protocol=name, fractions=[1.0], save=tmp_path / "saved")
    assert study.n_fitted == 1  # what is in the store has no weights: it is fitted again
    (file,) = (tmp_path / "saved").glob("*.json")
    probe = load_probe(file)
    (test,) = Catalog(tmp_path).entries(splits=["test"])
    kept = open_store(study.store).fit(study.scores[0].fit)
    np.testing.assert_allclose(probe.predict_proba(test.open().embeddings), kept.probabilities, atol=1e-6)
    assert probe.about["class_names"] == ["class 0", "class 1", "class 2"]
    assert probe.about["fingerprints"]["train"][0]["backbone"] == test.fingerprints["backbone"]
    assert probe.about["backbone"] == {"name": "m1"}


@pytest.mark.parametrize(
    ("asked", "expected"),
    [({}, 1), ({"metrics": ["accuracy"]}, 2), ({"metrics": ["accuracy", "roc_auc"]}, 2), ({"level": "group"}, 2)],
    ids=str,
)
def test_saving_scores_a_fit_once_per_metric_and_states_the_headline(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, asked: dict[str, Any], expected: int
) -> None:
    """The headline over all cases is stated in the file; it is computed again only if it is not asked for."""
    write_pair(tmp_path, grouped=True)
    count, score_fit = Counter[str](), scoring.score_fit

    def counted(*arguments: Any) -> Any:
        count["scored"] += 1
        return score_fit(*arguments)

    monkeypatch.setattr(scoring, "score_fit", counted)
    study = probed(tmp_path, protocol="clip", fractions=[1.0], **asked, save=tmp_path / "saved")
    assert count["scored"] == expected
    (file,) = (tmp_path / "saved").glob("*.json")
    (stated,) = json.loads(file.read_text())["scores"]
    assert stated["metric"] == "roc_auc"
    plain = probed(tmp_path, protocol="clip", fractions=[1.0]).scores[0]
    assert stated["value"] == plain.value
    assert len(store_of(study).scores()) == len({score.identity for score in study.scores} | {plain.identity})


def test_binary_and_multilabel_probes_return_a_column_a_class(tmp_path: Path) -> None:
    for dataset, task, n_classes in (("two", "binary", 2), ("many", "multilabel", 3)):
        write_pair(tmp_path, dataset, task=task, n_classes=n_classes)
        probed(tmp_path, datasets=[dataset], shots=[10], seeds=1, save=tmp_path / dataset)
        (file,) = (tmp_path / dataset).glob("*.json")
        p = load_probe(file).predict_proba(np.zeros((4, 8), dtype=np.float32))
        assert p.shape == (4, n_classes)


def test_files_of_others_are_refused_and_no_code_runs(tmp_path: Path) -> None:
    write_pair(tmp_path)
    probed(tmp_path, protocol="clip", fractions=[1.0], save=tmp_path / "saved")
    (file,) = (tmp_path / "saved").glob("*.json")
    about = json.loads(file.read_text())
    with pytest.raises(InputError, match="'m1'"):
        load_probe(file).predict_proba(np.zeros((4, 3)))
    file.write_text(json.dumps({**about, "format_version": FORMAT_VERSION + 1}))
    with pytest.raises(InputError, match="newer mt"):
        load_probe(file)
    file.write_text("{}")
    with pytest.raises(InputError, match="not a saved model"):
        load_probe(file)
    file.write_bytes(pickle.dumps(print))
    with pytest.raises(InputError, match="not a saved model"):
        load_probe(file)
    file.write_text(json.dumps(about))
    file.with_suffix(".safetensors").write_bytes(pickle.dumps(print))
    with pytest.raises(InputError, match="does not belong to"):
        load_probe(file)
    without = {name: value for name, value in about.items() if name != "tensors_sha256"}
    file.write_text(json.dumps(without))
    with pytest.raises(InputError, match="lacks 'tensors_sha256'"):
        load_probe(file)


def test_tensors_of_another_probe_are_refused(tmp_path: Path) -> None:
    write_pair(tmp_path)
    probed(tmp_path, shots=[10], seeds=2, save=tmp_path / "saved")
    one, other = sorted((tmp_path / "saved").glob("*.json"))
    other.with_suffix(".safetensors").replace(one.with_suffix(".safetensors"))
    with pytest.raises(InputError, match="does not belong to"):
        load_probe(one)
    with pytest.raises(InputError, match="found no such file"):
        load_probe(other)


def test_the_json_says_budget_choice_and_scores(tmp_path: Path) -> None:
    write_pair(tmp_path)
    study = probed(tmp_path, shots=[10], seeds=1, save=tmp_path / "saved")
    (file,) = (tmp_path / "saved").glob("toy-m1-probe-10-shots-seed0-*.json")
    about, (score,) = load_probe(file).about, study.scores
    assert (about["shots"], about["fraction"], about["seed"], about["n_labels"]) == (10, None, 0, score.n_labels)
    (kept,) = about["scores"]
    assert (kept["metric"], kept["value"], kept["low"]) == (score.metric, score.value, score.low)
    assert about["selection"]["scores"]
