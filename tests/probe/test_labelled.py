"""Rows without a label: in the file, outside every budget, fold and score; a test split of such rows alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mt.cache.catalog import Catalog
from mt.errors import InputError
from mt.fuse.request import FuseRequest
from mt.fuse.run import run_fuse
from mt.probe.labelled import labelled
from mt.types import MISSING
from tests.probe.features import QUICK, embeddings_and_labels, probed, store_of, write_features, write_pair

N = 120


def with_unlabelled(cache: Path, split: str, *, task: str, n: int = N, model: str = "m1") -> None:
    """Write the features of `write_features` with more rows, which have no label and other values, between its rows."""
    shape: dict[str, Any] = {"n": n, "task": task, "n_classes": 3 if task != "binary" else 2}
    X, y = embeddings_and_labels("toy", model, split, dim=8, signal=0.7, **shape)
    rows = np.arange(0, n, 4)
    write_features(
        cache,
        split=split,
        model=model,
        embeddings=np.insert(X, rows, 1e3, axis=0),
        labels=np.insert(y, rows, MISSING, axis=0),
        ids=np.insert(
            np.array([f"{split}-{row}" for row in range(n)], dtype=object),
            rows,
            [f"unlabelled-{split}-{row}" for row in rows],
        ).tolist(),
        **shape,
    )


@pytest.mark.parametrize("task", ["binary", "multiclass", "ordinal", "multilabel"])
@pytest.mark.parametrize("how", [QUICK, {**QUICK, "test_folds": 3}, {**QUICK, "shots": [3], "threshold": "youden"}])
def test_unlabelled_rows_change_no_draw_and_no_score(tmp_path: Path, task: str, how: dict[str, object]) -> None:
    if "threshold" in how and task != "binary":
        pytest.skip("thresholds are of binary tasks")
    if task == "multilabel":
        how = {**how, "protocol": "default"}  # the quick one is not defined for several labels
    shape: dict[str, Any] = {"task": task, "n_classes": 3 if task != "binary" else 2}
    write_features(tmp_path / "a", n=N, **shape)
    write_features(tmp_path / "a", split="test", n=80, **shape)
    with_unlabelled(tmp_path / "b", "train", task=task)
    with_unlabelled(tmp_path / "b", "test", task=task, n=80)
    one, two = (probed(tmp_path / name, **how) for name in "ab")
    assert [score.value for score in one.scores] == [score.value for score in two.scores]
    for first, second in zip(one.scores, two.scores, strict=True):
        kept, found = (store_of(study).fit(score.fit) for study, score in ((one, first), (two, second)))
        np.testing.assert_array_equal(kept.probabilities, found.probabilities)
        assert list(store_of(two).cases(found.cases).ids) == list(store_of(one).cases(kept.cases).ids)


def test_fusing_leaves_them_out_too(tmp_path: Path) -> None:
    for model in ("m1", "m2"):
        write_pair(tmp_path / "a", model=model)
        with_unlabelled(tmp_path / "b", "train", task="binary", model=model)
        with_unlabelled(tmp_path / "b", "test", task="binary", model=model, n=80)
    asked: dict[str, Any] = {"fractions": [0.5], "seeds": 1, "methods": ("concat", "average")}
    one, two = (run_fuse(FuseRequest(tmp_path / name, **asked)) for name in "ab")
    assert [score.value for score in one.scores] == [score.value for score in two.scores]


def test_the_labelled_rows_keep_what_is_known_of_them(tmp_path: Path) -> None:
    labels = np.array([0, MISSING, 1, 0, MISSING, 1])
    write_features(tmp_path, n=6, labels=labels, grouped=True, columns={"age": [1, 2, 3, 4, 5, 6]})
    (entry,) = Catalog(tmp_path).entries()
    whole = entry.open()
    found = labelled(whole)
    assert (found.labels.tolist(), found.columns) == ([0, 1, 0, 1], {"age": [1, 3, 4, 6]})
    assert found.ids == [whole.ids[row] for row in (0, 2, 3, 5)]
    assert found.groups == [f"train-patient-{number}" for number in (0, 0, 0, 1)]
    np.testing.assert_array_equal(found.embeddings, whole.embeddings[[0, 2, 3, 5]])
    write_features(tmp_path, dataset="other", n=6)
    (every,) = Catalog(tmp_path).entries(datasets=["other"])
    assert labelled(opened := every.open()) is opened


def test_a_test_split_without_labels_has_nothing_to_score(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_features(tmp_path)
    write_features(tmp_path, split="test", n=40, labels=np.full(40, MISSING))
    with pytest.raises(InputError, match=r"Nothing to score: no test row has a label \(40 of 'toy'\)") as caught:
        probed(tmp_path, **QUICK)
    assert "\n" not in str(caught.value)
    assert probed(tmp_path, **QUICK, test_folds=3).scores
    write_pair(tmp_path, "other")
    assert {score.dataset for score in probed(tmp_path, **QUICK).scores} == {"other"}
    assert "Nothing to score" in capsys.readouterr().err
