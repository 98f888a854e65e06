"""The numbers under the calibration curves are those of `mt.calibration` on the predictions of the shown methods."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import pytest

from mt.probe.scores.calibration import calibration
from mt.report import ReportRequest, collect, write_report
from mt.report.charts.calibration_numbers import calibration_numbers
from tests.report.stores import filled

TASKS: dict[str, dict[str, Any]] = {
    "binary": {},
    "multiclass": {"task": "multiclass", "class_names": ("a", "b", "c")},
    "multilabel": {"task": "multilabel", "class_names": ("Mass", "Nodule")},
}


@pytest.mark.parametrize("task", TASKS)
def test_a_row_holds_what_the_public_function_returns(tmp_path: Path, task: str) -> None:
    store = filled(tmp_path / "s.sqlite", seeds=2, budgets=(0.1, 1.0), **TASKS[task])
    (panel,) = collect(store)
    section = calibration_numbers(store, panel)
    assert section is not None
    assert section.table is not None
    found = [dict(zip(section.table.columns, row, strict=True)) for row in section.table.rows]
    labels = panel.class_names if task == "multilabel" else ("",)
    assert len(found) == (3 * len(labels) if task == "multilabel" else 6)
    for row in (row for row in found if row["budget"] == "100 %"):
        cell = next(one for one in panel.curve(row["method"]) if str(one.budget) == row["budget"])
        fit = store.fit(cell.scores[0].fit)
        cases, p = store.cases(fit.cases), fit.probabilities.astype(float)
        y = cases.y
        if task == "multilabel":
            y, p = (part[:, labels.index(row["finding"])] for part in (y, p))
        own = calibration(y, p, groups=cases.groups)
        assert row["error, debiased"] == f"{own.ece_debiased:.3f}"
        chance = own.ece_if_calibrated
        assert row["by chance"] == f"{chance.value:.3f} ({chance.low:.3f}-{chance.high:.3f})"
        for name, one in (
            ("intercept", own.intercept),
            ("slope", own.slope),
            ("observed/expected", own.observed_expected),
        ):
            assert row[name] == f"{one.value:.2f} [{one.low:.2f}, {one.high:.2f}]"


def test_the_page_and_its_folder_have_them(tmp_path: Path) -> None:
    store = filled(tmp_path / "s.sqlite", seeds=1, budgets=(0.1,))
    written = write_report(store, ReportRequest(tmp_path / "report.html", export=False))
    assert "<h3>Calibration in numbers</h3>" in written.page.read_text(encoding="utf-8")
    rows = list(csv.DictReader((written.folder / "pcam-calibration.csv").read_text(encoding="utf-8").splitlines()))
    assert {row["method"] for row in rows} == {"simclr", "swav", "dino"}
