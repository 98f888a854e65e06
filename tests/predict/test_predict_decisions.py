"""A saved probe predicts scaled probabilities, and the class at its threshold; an older mt would refuse it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mt.errors import InputError
from mt.predict.load import load_model, stated
from mt.predict.predicted import Predictions
from mt.probe.saved import load_probe
from mt.results.model_files import check_format
from tests.probe.features import probed, store_of, write_features


def saved(tmp_path: Path, **asked: Any) -> tuple[Path, Any]:
    kind = {"task": asked.pop("task", "binary"), "n_classes": asked.pop("n_classes", 2)}
    for split, n in (("train", 120), ("test", 100)):
        write_features(tmp_path, split=split, n=n, signal=0.4, **kind)
    study = probed(tmp_path, fractions=[0.5], seeds=1, save=tmp_path / "models", **asked)
    (file,) = (tmp_path / "models").glob("*.json")
    return file, study


@pytest.mark.parametrize("task", ["binary", "multilabel"])
def test_the_saved_model_predicts_what_was_scored(tmp_path: Path, task: str) -> None:
    file, study = saved(tmp_path, task=task, calibrate="platt", threshold="sensitivity:0.9")
    model = load_model(file)
    X = write_features(tmp_path / "again", split="test", n=100, signal=0.4, task=task)
    from mt.cache import open_features

    p = model.predict_proba([open_features(X).embeddings])
    with store_of(study) as store:
        scaled = store.fit(next(score.fit for score in study.scores if score.protocol.endswith("platt")))
    kept = scaled.probabilities if task == "multilabel" else np.column_stack([1 - scaled.probabilities] * 2)
    np.testing.assert_allclose(p[:, -1], scaled.probabilities if task == "binary" else kept[:, -1], atol=1e-6)
    np.testing.assert_array_equal(p, load_probe(file).predict_proba(open_features(X).embeddings))
    assert len(model.thresholds) == (1 if task == "binary" else 2)
    assert [line.split(" (")[0] for line in stated(model)] == [
        "Probabilities are scaled",
        "Predicted at thresholds chosen out of fold",
    ]


def test_the_predicted_class_is_that_of_the_threshold() -> None:
    p = np.array([[0.9, 0.1], [0.7, 0.3], [0.2, 0.8]], dtype=np.float32)
    plain = Predictions(["a", "b", "c"], p, ("no", "yes"), "binary")
    assert plain.predicted == ["no", "no", "yes"]
    own = Predictions(["a", "b", "c"], p, ("no", "yes"), "binary", thresholds=(0.25,))
    assert own.predicted == ["no", "yes", "yes"]
    assert Predictions(["a", "b", "c"], p, ("no", "yes"), "binary", thresholds=(None,)).predicted == plain.predicted
    labels = Predictions(["a", "b", "c"], p, ("x", "y"), "multilabel", thresholds=(0.8, None))
    assert labels.predicted == ["x", "", "y"]


def test_without_decisions_the_file_is_what_it_was(tmp_path: Path) -> None:
    about = json.loads(saved(tmp_path)[0].read_text())
    assert about["format_version"] == 1
    assert not {"calibration", "decision"} & about.keys()


def test_an_mt_that_knows_no_decisions_refuses_the_file(tmp_path: Path) -> None:
    file, _ = saved(tmp_path, threshold="youden")
    about = json.loads(file.read_text())
    assert about["format_version"] == 2
    check_format(file, about, "mt-probe", 1)
    unknown = {name: value for name, value in about.items() if name != "decision"}
    with pytest.raises(InputError, match="Install a newer mt"):
        check_format(file, unknown, "mt-probe", 1)


def test_a_damaged_decision_is_one_line(tmp_path: Path) -> None:
    file, _ = saved(tmp_path, calibrate="temperature")
    about = json.loads(file.read_text())
    del about["calibration"]["slope"]
    file.write_text(json.dumps(about))
    with pytest.raises(InputError, match="does not fit together"):
        load_model(file)
