"""What `mt cache export` writes, an import reads back: the same rows, and the same scores."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mt.cache.catalog import Catalog
from mt.cache.exporting import export
from mt.cache.feature_file.read import open_features
from mt.importing.request import LabelRules
from tests.importing import elsewhere as sample
from tests.probe.features import QUICK, probed, write_features


@pytest.mark.parametrize("form", ["npy", "csv", "parquet"])
@pytest.mark.parametrize("task", ["binary", "multiclass", "multilabel", "ordinal"])
def test_a_round_trip_gives_the_same_scores(tmp_path: Path, form: str, task: str) -> None:
    if form == "parquet":
        pytest.importorskip("pyarrow")
    theirs, ours = tmp_path / "theirs", tmp_path / "ours"
    columns = {"sex": ["f", "m"] * 60}
    kind: dict[str, Any] = {
        "task": task,
        "n_classes": 2 if task == "binary" else 3,
        "grouped": True,
        "columns": columns,
    }
    exported = []
    for split in ("train", "test"):
        file = write_features(theirs, split=split, **kind)
        export(open_features(file), tmp_path / f"{split}.{form}", form)
        exported.append(f"{split}={tmp_path / split}.{form}")
    task_said = LabelRules(task="ordinal") if task == "ordinal" else None
    sample.imported(ours, *exported, dataset="toy", model="m1", rules=task_said)
    for split in ("train", "test"):
        (one,), (two,) = (Catalog(cache).entries(splits=[split]) for cache in (theirs, ours))
        a, b = one.open(), two.open()
        assert (a.ids, a.groups, a.task) == (b.ids, b.groups, b.task)
        assert np.array_equal(a.labels, b.labels)
        assert np.array_equal(a.embeddings, b.embeddings)
        assert b.columns == a.columns
    asked = QUICK if task != "multilabel" else {**QUICK, "protocol": "default"}
    scores = [[(score.value, score.low) for score in probed(cache, **asked).scores] for cache in (theirs, ours)]
    assert scores[0] == scores[1]


def test_names_that_an_export_made_inert_come_back(tmp_path: Path) -> None:
    names = ["=1+1", "@x", "-1.5", "'quoted", "+a"]
    table = sample.write_table(
        tmp_path / "labels.csv",
        {
            "id": names,
            "label": list("ababa"),
            "split": ["train"] * 5,
        },
    )
    np.savez(tmp_path / "x.npz", x=sample.matrix(5), ids=names)
    sample.imported(tmp_path / "one", tmp_path / "x.npz", labels=[table])
    for form in ("csv", "npy"):
        export(sample.opened(tmp_path / "one"), tmp_path / f"out.{form}", form)
        text = (tmp_path / ("out.csv" if form == "csv" else "out.rows.csv")).read_text()
        assert "\n'=1+1," in text
        sample.imported(tmp_path / form, tmp_path / f"out.{form}", split="train")
        assert sample.opened(tmp_path / form).ids == names
