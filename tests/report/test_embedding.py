"""The maps of embeddings: the number of points, their test cases, and the marked ones."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from mt.cache.catalog import Catalog
from mt.report import collect
from mt.report.charts import embedding
from mt.report.charts.embedding import Maps, embedding_map
from mt.report.charts.figures import records
from mt.report.charts.palette import colours_of_class
from mt.results.store import ScoreStore
from mt.types import MISSING
from tests.probe.features import QUICK, probed, write_features, write_pair


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of two models, probed; their maps show two of their features."""
    for model in ("a", "b"):
        write_pair(tmp_path, model=model, signal=0.3)
    probed(tmp_path, **QUICK)
    monkeypatch.setattr(embedding, "project", lambda X: np.asarray(X[:, :2], dtype=np.float64))
    return tmp_path


def drawn(cache: Path, points: int = 2000) -> list[dict[str, object]]:
    with ScoreStore(cache / "scores.sqlite") as store:
        (panel,) = collect(store)
        group = embedding_map(store, panel, Maps(Catalog(cache), points=points, show_ids=True))
    return records(group.figures[0].tables["map"]) if group else []


def test_rows_without_a_label_are_no_points(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    labels = np.where(np.arange(80) % 8 == 0, MISSING, np.arange(80) % 2)
    write_features(tmp_path)
    write_features(tmp_path, split="test", n=80, labels=labels)
    probed(tmp_path, **QUICK)
    monkeypatch.setattr(embedding, "project", lambda X: np.asarray(X[:, :2], dtype=np.float64))
    assert [row["case"] for row in drawn(tmp_path)] == [f"test-{row}" for row in range(80) if row % 8]


def test_every_test_case_of_every_model_is_a_point_and_wrong_ones_are_marked(cache: Path) -> None:
    rows = drawn(cache)
    assert len(rows) == 2 * 80
    with ScoreStore(cache / "scores.sqlite") as store:
        (panel,) = collect(store)
        for cell in panel.headline:
            fit = store.fit(cell.scores[0].fit)
            cases = store.cases(fit.cases)
            answers = zip(cases.ids, cases.y, fit.probabilities > 0.5, strict=True)
            wrong = {name for name, y, guess in answers if y != guess}
            assert {row["case"] for row in rows if row["model"] == cell.name and row["wrong"]} == wrong
            assert wrong


def test_classes_of_one_colour_are_filled_differently() -> None:
    assert len({colours_of_class(number) for number in range(21)}) == 21


def test_maps_share_the_points_that_a_page_can_hold(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedding, "MOST", 60)
    assert [row["model"] for row in drawn(cache)] == ["a"] * 30 + ["b"] * 30
    assert len(drawn(cache, points=20)) == 2 * 20
    assert drawn(cache, points=0) == []


def test_rows_that_were_pooled_to_cases_are_no_points(tmp_path: Path) -> None:
    """The predictions are one per case: beside the rows of the file they would mark others."""
    for split, n in (("train", 120), ("test", 80)):
        write_features(
            tmp_path,
            split=split,
            n=n,
            labels=np.arange(n) // 4 % 2,
            columns={
                "slide": [f"{split} {row // 4}" for row in range(n)],
            },
        )
    probed(tmp_path, **QUICK, bag="slide")
    assert drawn(tmp_path) == []
