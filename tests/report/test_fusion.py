"""What fusing gains is shown as the store's own comparisons and attention say."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mt.probe.scores.score_tables import comparisons
from mt.report import ReportRequest, collect, write_report
from mt.report.charts.figures import records
from mt.report.charts.fusion import _focus, fusion
from mt.report.panels import as_grid
from tests.report.stores import filled

TOGETHER = "simclr + swav"
ATTENTION = {"models": ["simclr", "swav"], "overall": [0.25, 0.75], "classes": {"tumour": [0.1, 0.9]}}


def fused(path: Path) -> Any:
    """Return a store with two models, their concatenation and their DVME."""
    filled(path, models={"simclr": 0.6, "swav": 0.9}, seeds=2)
    filled(path, models={TOGETHER: 1.0}, method="concat", seeds=2)
    filled(path, models={TOGETHER: 0.7}, method="best-single", seeds=2)
    return filled(path, models={TOGETHER: 1.3}, method="dvme", seeds=2, outcome={"attention": ATTENTION})


def test_gains_are_the_stores_comparisons(tmp_path: Path) -> None:
    store = fused(tmp_path / "scores.sqlite")
    (panel,) = collect(store)
    group = fusion(store, panel)
    assert group is not None
    gains = records(group.figures[0].tables["gains"])
    assert {(row["over"], row["budget"]) for row in gains} == {
        (over, budget) for over in ("concatenation", "best single model") for budget in ("1 %", "10 %", "100 %")
    }
    row = next(row for row in gains if row["budget"] == "10 %" and row["over"] == "concatenation")
    cells = [
        next(c for c in panel.headline if str(c.budget) == "10 %" and c.method.method == method)
        for method in ("dvme", "concat", "best-single")
    ]
    kept = next(pair for pair in comparisons([as_grid(cells)], store) if pair.b == cells[1].name)
    assert (row["gain"], row["low"], row["high"]) == (kept.difference, kept.low, kept.high)
    assert row["gain"] == cells[0].mean - cells[1].mean


def test_attention_is_shown_per_class(tmp_path: Path, look: Any) -> None:
    store = fused(tmp_path / "scores.sqlite")
    written = write_report(store, ReportRequest(tmp_path / "report.html"))
    page = look(written.page)
    page.locator("#p0-attention").scroll_into_view_if_needed()
    page.wait_for_selector("#p0-attention svg.marks")
    labels = page.eval_on_selector_all("#p0-attention svg text", "all => all.map(one => one.textContent)")
    assert {"25%", "75%", "10%", "90%", "all test cases", "tumour", "swav"} <= set(labels)
    commands = page.locator("#provenance pre").inner_text()
    assert "mt fuse --model simclr --model swav --dataset pcam --fraction 0.01" in commands


def test_without_fusion_there_is_no_such_part(tmp_path: Path) -> None:
    store = filled(tmp_path / "scores.sqlite", seeds=1)
    (panel,) = collect(store)
    assert fusion(store, panel) is None


def test_attention_is_shown_only_where_a_network_was_trained(tmp_path: Path) -> None:
    path = tmp_path / "scores.sqlite"
    kept = {"attention": ATTENTION, "settings": {"recipe": "concat", "epochs": 0}}
    filled(path, models={"simclr": 0.6, "swav": 0.9}, seeds=2)
    filled(path, models={TOGETHER: 1.3}, method="dvme", seeds=2, budgets=(0.1,), outcome=kept)
    trained = {"attention": ATTENTION, "settings": {"recipe": "gentle", "epochs": 30}}
    store = filled(path, models={TOGETHER: 1.3}, method="dvme", budgets=(1.0,), outcome=trained)
    (panel,) = collect(store)
    group = fusion(store, panel)
    assert group is not None
    assert [choice.options for choice in group.choices] == [
        [f"dvme: {TOGETHER}, 100 %: network trained in 1 of 1 draws"]
    ]
    assert "none of the draws at 30 labels" in group.text


def test_without_a_trained_network_in_any_draw_there_is_no_attention_panel(tmp_path: Path) -> None:
    path = tmp_path / "scores.sqlite"
    filled(path, models={TOGETHER: 1.0}, method="concat", seeds=2)
    kept = {"attention": ATTENTION, "settings": {"recipe": "concat", "epochs": 0}}
    store = filled(path, models={TOGETHER: 1.3}, method="dvme", seeds=2, outcome=kept)
    (panel,) = collect(store)
    group = fusion(store, panel)
    assert group is not None
    assert [figure.name for figure in group.figures] == ["gain"]
    assert not group.choices
    written = write_report(store, ReportRequest(tmp_path / "report.html", export=False))
    assert "p0-attention" not in written.page.read_text()


def test_gains_stand_on_the_axis_of_labels_on_a_scale_that_fits_them(tmp_path: Path) -> None:
    store = fused(tmp_path / "scores.sqlite")
    (panel,) = collect(store)
    group = fusion(store, panel)
    assert group is not None
    gains = records(group.figures[0].tables["gains"])
    assert {row["labels"] for row in gains} == {3, 30, 300}
    low, high, _ = _focus(gains)
    assert low < min(0, *(row["gain"] for row in gains))
    assert high > max(0, *(row["gain"] for row in gains))
    wide = [{**gains[0], "gain": 0.01, "low": -0.9, "high": 0.9}]
    assert _focus(wide)[2]
    assert _focus(wide)[1] < 0.05
