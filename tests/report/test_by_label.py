"""Scores label by label are scikit-learn's on the kept predictions; labels that have none are said to be omitted."""

from __future__ import annotations

import csv
import io
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, roc_auc_score

from mt.report import ReportRequest, collect, write_report
from mt.report.charts.by_label import by_label, label_scores
from mt.report.charts.curves import precision_recall, predictions, reliability, roc
from mt.types import MISSING
from tests.report.stores import filled

FINDINGS = ("Mass", "Nodule", "Hernia")
TASKS = [("multilabel", FINDINGS), ("multiclass", ("a", "b", "c")), ("ordinal", ("none", "mild", "severe"))]


@pytest.mark.parametrize(("task", "names"), TASKS)
def test_each_label_is_scored_against_the_rest(tmp_path: Path, task: str, names: tuple[str, ...]) -> None:
    store = filled(tmp_path / "s.sqlite", task=task, class_names=names, seeds=1)
    (panel,) = collect(store)
    predicted = predictions(store, panel)
    scores = label_scores(panel, predicted)
    assert len(scores) == len(predicted) * 3
    for one, mine in zip(predicted, zip(*[iter(scores)] * 3, strict=True), strict=True):
        assert [score.label for score in mine] == list(names)
        for k, score in enumerate(mine):
            truth = one.y[:, k] if one.y.ndim == 2 else one.y == k
            assert (score.method, score.positives, score.cases) == (one.cell.name, truth.sum(), 120)
            assert score.auc == pytest.approx(roc_auc_score(truth, one.p[:, k]))
            assert score.ap == pytest.approx(average_precision_score(truth, one.p[:, k]))


def test_a_label_without_both_kinds_of_cases_is_left_out(tmp_path: Path) -> None:
    store = filled(tmp_path / "s.sqlite", task="multilabel", class_names=FINDINGS, seeds=1)
    (panel,) = collect(store)
    predicted = [replace(one, y=one.y * np.array([1, 1, 0])) for one in predictions(store, panel)]
    table = by_label(panel, predicted)
    assert table is not None
    assert table.rows[2] == ("Hernia", "0 of 120", "omitted", "omitted", "omitted")
    assert "omitted" not in table.rows[0]
    hernias = [row for row in csv.DictReader(io.StringIO(table.file)) if row["label"] == "Hernia"]
    assert {(row["roc_auc"], row["average_precision"]) for row in hernias} == {("", "")}
    assert len(hernias) == 9


def test_a_label_is_shown_for_the_cases_that_know_it(tmp_path: Path) -> None:
    store = filled(tmp_path / "s.sqlite", task="multilabel", class_names=FINDINGS, seeds=1)
    (panel,) = collect(store)
    holes = np.zeros((120, 3), dtype=bool)
    holes[:50, 0] = holes[:, 1] = True
    predicted = [replace(one, y=np.where(holes, MISSING, one.y)) for one in predictions(store, panel)]
    mass, nodule, hernia = label_scores(panel, predicted)[:3]
    first = predicted[0]
    assert (mass.positives, mass.cases) == (first.y[50:, 0].sum(), 70)
    assert mass.auc == pytest.approx(roc_auc_score(first.y[50:, 0], first.p[50:, 0]))
    assert (nodule.positives, nodule.cases, hernia.cases) == (0, 0, 120)
    assert np.isnan(nodule.auc)
    for table in (roc(panel, predicted), precision_recall(panel, predicted), reliability(panel, predicted)):
        assert set(table["label"]) == {"Mass", "Hernia"}
    counted = reliability(panel, predicted)
    rows = zip(counted["method"], counted["budget"], counted["label"], counted["n"], strict=True)
    shown = (first.cell.name, str(first.cell.budget), "Mass")
    assert sum(n for *where, n in rows if tuple(where) == shown) == 70


def test_a_binary_task_has_no_such_table(tmp_path: Path) -> None:
    store = filled(tmp_path / "s.sqlite", seeds=1)
    (panel,) = collect(store)
    assert by_label(panel, predictions(store, panel)) is None


def test_the_page_shows_it_and_the_folder_holds_it(tmp_path: Path, look: Any) -> None:
    store = filled(tmp_path / "s.sqlite", task="multilabel", class_names=FINDINGS, seeds=1)
    written = write_report(store, ReportRequest(tmp_path / "r.html", export=False))
    (panel,) = collect(store)
    best = next(score for score in label_scores(panel, predictions(store, panel))[::-1] if score.label == "Mass")
    page = look(written.page)
    table = page.locator("#p0-labels-table")
    assert [row.split("\t")[0] for row in table.inner_text().splitlines()[1:]] == list(FINDINGS)
    assert f"{best.auc:.3f} ({best.ap:.3f})" in table.inner_text()
    page.get_by_role("checkbox", name="dino").uncheck()
    assert "dino" not in table.inner_text()
    assert "Mass & " in (written.folder / "pcam-labels.tex").read_text(encoding="utf-8")
    rows = list(csv.DictReader(io.StringIO((written.folder / "pcam-labels.csv").read_text())))
    assert len(rows) == 3 * 3 * 3
