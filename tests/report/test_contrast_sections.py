"""The page shows differences between subgroups, and what scores lose on another dataset."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from mt.report import collect
from mt.report.contrast_sections import subgroup_section
from mt.report.request import ReportRequest
from mt.report.writing import write_report
from tests.probe.features import QUICK, probed, store_of, write_features


def test_differences_between_subgroups_are_on_the_page(tmp_path: Path) -> None:
    write_features(tmp_path)
    write_features(tmp_path, split="test", n=80, columns={"sex": ["F", "M"] * 40})
    probed(tmp_path, **QUICK)
    with store_of(probed(tmp_path, **QUICK)) as store:
        plain = write_report(store, ReportRequest(tmp_path / "plain.html", export=False))
    assert "Differences between subgroups" not in plain.page.read_text()
    with store_of(probed(tmp_path, **QUICK, by="sex")) as store:
        written = write_report(store, ReportRequest(tmp_path / "by.html", export=False))
    page = written.page.read_text()
    assert "Differences between subgroups" in page
    assert "sex: F - M" in page
    assert page.count(">Differences between subgroups<") == 1, "one heading"
    (table,) = [file for file in written.files if file.name.endswith("subgroups.csv")]
    assert table.read_text().splitlines()[0] == "method,budget,difference of,difference,p,p (Holm),note"


def test_the_drop_on_another_dataset_is_on_its_page(tmp_path: Path) -> None:
    for dataset, split in (("here", "train"), ("here", "test"), ("there", "test")):
        write_features(tmp_path, dataset, split=split, n=100)
    probed(tmp_path, **QUICK, datasets=["here"])
    with store_of(probed(tmp_path, **QUICK, datasets=["here"], test_dataset="there")) as store:
        written = write_report(store, ReportRequest(tmp_path / "page.html", export=False))
    assert written.page.read_text().count("<h3>Internal and external test</h3>") == 1
    (table,) = [file for file in written.files if file.name.endswith("drop.csv")]
    assert table.read_text().splitlines()[0] == 'method,budget,"internal, external",difference,p,p (Holm),note'


def test_experiments_on_other_features_are_never_joined(tmp_path: Path) -> None:
    asked = {**QUICK, "scores": tmp_path / "scores.sqlite"}
    for seen in ("at 64 pixels", "at 96 pixels"):
        write_features(tmp_path / seen, seen=seen)
        write_features(tmp_path / seen, split="test", n=80, columns={"sex": ["F", "M"] * 40}, seen=seen)
        probed(tmp_path / seen, **asked)
        study = probed(tmp_path / seen, **asked, by="sex")
    with store_of(study) as store:
        (panel,) = collect(store, names=["m1"])
        assert len(panel.names) == 2
        section = subgroup_section(store, panel)
    assert section is not None
    assert section.table is not None
    assert sorted(row[0] for row in section.table.rows) == sorted(panel.names)


def test_on_a_phone_a_difference_stands_in_the_first_column(look: Any, tmp_path: Path) -> None:
    write_features(tmp_path)
    write_features(tmp_path, split="test", n=200, columns={"sex": ["F", "M"] * 100})
    probed(tmp_path, **QUICK)
    with store_of(probed(tmp_path, **QUICK, by="sex")) as store:
        written = write_report(store, ReportRequest(tmp_path / "by.html", export=False))
    assert ">note<" not in written.page.read_text(), "no column without a note"
    table = look(written.page, width=390).locator("#p0-subgroups-table")
    shown = table.locator("tbody tr").first.locator(":is(th, td):visible")
    assert shown.count() == 1
    lines = shown.inner_text().splitlines()
    assert lines[2] == "difference of sex: F - M"
    assert re.fullmatch(r"difference [-+]\d\.\d{3} \[[-+]\d\.\d{3}, [-+]\d\.\d{3}\].*", lines[3])
    assert re.fullmatch(r"p \d\.\d+", lines[4])
    box = shown.locator("small").last.bounding_box()
    assert 0 <= box["x"] < box["x"] + box["width"] <= 390
