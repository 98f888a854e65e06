"""The page shows what scaling gained, as the store's own numbers say; rows of another revision of it stay apart."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from mt.probe.decisions.gains import gains
from mt.report import ReportRequest, collect, write_report
from mt.report.verdicts.scaling_section import scaling_section
from tests.probe.features import QUICK, probed, store_of, write_features
from tests.report.stores import filled


@pytest.mark.parametrize(("task", "n_classes"), [("binary", 2), ("multiclass", 3)])
def test_gains_are_in_a_table_with_the_paired_difference(tmp_path: Path, task: str, n_classes: int) -> None:
    for split, n in (("train", 120), ("test", 80)):
        write_features(tmp_path, split=split, n=n, task=task, n_classes=n_classes)
    with store_of(probed(tmp_path, **QUICK)) as store:
        (panel,) = collect(store)
        assert scaling_section(store, panel) is None
    study = probed(tmp_path, **QUICK, calibrate="temperature")
    with store_of(study) as store:
        (panel,) = collect(store)
        section = scaling_section(store, panel)
        found = {(one.row, str(one.budget)): one for one in gains(study.scores, store)}
        page = write_report(store, ReportRequest(tmp_path / "r.html", export=False)).page.read_text(encoding="utf-8")
        losses = {(cell.name, str(cell.budget)): cell.mean for cell in panel.cells if cell.metric == "log_loss"}
    assert section is not None
    assert section.table is not None
    assert len(section.table.rows) == len(found) > 0
    for name, budget, slope, held, test, difference, _ in section.table.rows:
        (one,) = [gain for (_, where), gain in found.items() if where == budget]
        assert slope.startswith(f"{one.slope:.2f}")
        assert held == f"{one.held_out[0]:.3f} → {one.held_out[1]:.3f}"
        assert test == f"{one.test[0]:.3f} → {one.test[1]:.3f}"
        plain = next(other for other, where in losses if where == budget and other != name)
        change = losses[name, budget] - losses[plain, budget]
        assert float(difference.partition(" ")[0]) == pytest.approx(change, abs=6e-4)
    assert page.count(">Gain of scaling<") == 1
    assert "only the test cases show what it gains" in page
    assert "optimistic" not in page


def test_rows_of_an_earlier_scaling_stay_apart(tmp_path: Path) -> None:
    several: dict[str, Any] = {"task": "multiclass", "class_names": ("a", "b", "c"), "models": {"simclr": 0.6}}
    outcome = {"protocol": "default, temperature", "versions": {"mt": "0.1.0"}}
    filled(tmp_path / "s.sqlite", **several, outcome=outcome)
    newer = {**outcome, "versions": {"mt": "0.1.0", "scaling": 2}}
    store = filled(tmp_path / "s.sqlite", **several, outcome=newer, code=2)
    (panel,) = collect(store)
    shown = {score.versions.get("scaling") for cell in panel.cells for score in cell.scores}
    assert shown == {2}
    assert {score.versions.get("scaling") for one in panel.others for score in one.scores} == {None}
