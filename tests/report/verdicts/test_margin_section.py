"""Verdicts of a margin stand on the page that `mt report --margin` draws."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from mt.cli import group
from mt.errors import InputError
from mt.probe.request import Margin
from mt.probe.scores.margins import margin_tests
from mt.report import ReportRequest, collect, write_report
from mt.report.panels import as_grid
from mt.report.verdicts.margin_section import margin_section
from tests.report.stores import filled


def test_the_page_shows_the_verdicts_of_the_tests(tmp_path: Path) -> None:
    store = filled(tmp_path / "s.sqlite", seeds=2)
    (panel,) = collect(store)
    section = margin_section(store, panel, Margin(0.05, "swav"))
    assert section is not None
    assert section.table is not None
    tests = margin_tests([as_grid(panel.headline)], store, reference="swav", margin=0.05)
    assert [(row[0], row[1], row[3]) for row in section.table.rows] == [
        (test.pair.a, str(test.pair.budget), test.verdict) for test in tests
    ]
    assert len(tests) == 6
    assert "undecided: none of these is shown" in section.table.text
    out = str(tmp_path / "r.html")
    asked = ["report", "--scores", str(store.path), "--out", out, "--map-points", "0", "--margin", "0.05"]
    ran = CliRunner().invoke(group, [*asked, "--reference", "swav"], catch_exceptions=False)
    assert ran.exit_code == 0, ran.output
    assert "Against swav, margin 0.05" in Path(out).read_text(encoding="utf-8")
    assert (tmp_path / "r" / "pcam-margin.csv").read_text().count("swav") == 0
    again = ReportRequest(tmp_path / "r.html", margin=Margin(0.05, "swav")).command(store.path)
    assert "--margin 0.05 --reference swav" in again, "what redraws a page draws its verdicts"


def test_a_reference_of_two_protocols_serves_the_rows_of_each(tmp_path: Path) -> None:
    path = tmp_path / "s.sqlite"
    filled(path, seeds=1, budgets=(0.1,))
    store = filled(path, seeds=1, budgets=(0.1,), outcome={"protocol": "clip"}, code=2)
    (panel,) = collect(store)
    section = margin_section(store, panel, Margin(0.05, "swav"))
    assert section is not None
    assert section.table is not None
    shown = {row[0] for row in section.table.rows}
    assert shown == {f"{model}, {protocol}" for model in ("simclr", "dino") for protocol in ("default", "clip")}
    one = margin_section(store, panel, Margin(0.05, "swav, clip"))
    assert one is not None
    assert one.table is not None
    assert {row[0] for row in one.table.rows} == shown | {"swav, default"}


@pytest.mark.parametrize("name", ["swaf", "probe"])
def test_a_reference_that_is_not_there_or_not_unique_is_refused_before_anything_is_drawn(
    tmp_path: Path, name: str
) -> None:
    store = filled(tmp_path / "s.sqlite", seeds=1, budgets=(0.1,))
    with pytest.raises(InputError, match=name):
        write_report(store, ReportRequest(tmp_path / "r.html", margin=Margin(0.05, name)))
    assert not (tmp_path / "r.html").exists()
    (panel,) = collect(store)
    assert margin_section(store, panel, None) is None
