"""What fusing gains is shown as the store's own comparisons and attention say."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from mt.probe.scores.comparisons import holm
from mt.probe.scores.score_tables import comparisons
from mt.report import ReportRequest, collect, write_report
from mt.report.answer.findings import answers
from mt.report.answer.sentences import sentence
from mt.report.charts.figures import records
from mt.report.charts.fusion import fusion
from mt.report.charts.paired_gains import focus, gain_figure, gain_table, gains, over_single
from mt.report.charts.palette import looks_of
from mt.report.panels import as_grid
from mt.report.short_names import ShortNames
from mt.report.tables import as_csv, rows
from mt.results.trained_networks import is_trained
from tests.report.stores import filled

TOGETHER = "simclr + swav"
ATTENTION = {"models": ["simclr", "swav"], "overall": [0.25, 0.75], "classes": {"tumour": [0.1, 0.9]}}


def fused(path: Path, metrics: Sequence[str] = ()) -> Any:
    """Return a store with two models, their concatenation and their DVME."""
    every: dict[str, Any] = {"seeds": 2, "metrics": metrics}
    filled(path, models={"simclr": 0.6, "swav": 0.9}, **every)
    filled(path, models={TOGETHER: 1.0}, method="concat", **every)
    filled(path, models={TOGETHER: 0.7}, method="best-single", **every)
    return filled(path, models={TOGETHER: 1.3}, method="dvme", outcome={"attention": ATTENTION}, **every)


def test_gains_are_the_stores_comparisons(tmp_path: Path) -> None:
    store = fused(tmp_path / "scores.sqlite")
    (panel,) = collect(store)
    found = {(one.fused.name, one.base.name, str(one.fused.budget)): one for one in gains(store, panel)}
    single, joined, dvme = (f"{method}: {TOGETHER}" for method in ("best-single", "concat", "dvme"))
    pairs = [(dvme, single), (dvme, joined), (joined, single)]
    assert set(found) == {(*pair, budget) for pair in pairs for budget in ("1 %", "10 %", "100 %")}
    cells = {cell.name: cell for cell in panel.headline if str(cell.budget) == "10 %"}
    for a, b in pairs:
        (kept,) = comparisons([as_grid([cells[a], cells[b]])], store)
        one = found[a, b, "10 %"]
        assert (one.value, one.low, one.high, one.p) == (kept.difference, kept.low, kept.high, kept.p)
        assert one.value == cells[a].mean - cells[b].mean
    adjusted = holm([found[a, b, "10 %"].p for a, b in pairs])
    assert [found[a, b, "10 %"].p_holm for a, b in pairs] == adjusted


def test_a_fusion_with_the_predictions_of_another_row_says_so(tmp_path: Path) -> None:
    path = tmp_path / "scores.sqlite"
    for method in ("best-single", "concat", "dvme"):
        store = filled(path, models={TOGETHER: 0.7}, method=method, seeds=2, budgets=[0.1])
    (panel,) = collect(store)
    found = gains(store, panel)
    assert {(one.value, one.said) for one in found} == {(0, "+0.000 (same predictions)")}
    assert {row[3] for row in gain_table(found).rows} == {"+0.000 (same predictions)"}
    figure = gain_figure(panel, looks_of(panel.names), over_single(found))
    drawn = records(figure.tables["gains"])
    assert {(row["gain"], row["low"], row["high"], row["p"]) for row in drawn} == {(0, None, None, None)}
    said = sentence(answers(store, panel), ShortNames.of([panel]))
    assert "changes nothing, +0.000 (same predictions)" in f"{said}"


def test_no_gain_is_concluded_where_a_draw_held_too_few_labels_to_choose_the_single_model(tmp_path: Path) -> None:
    path = tmp_path / "scores.sqlite"
    filled(path, models={"simclr": 0.6, "swav": 0.9}, seeds=2, budgets=[0.01, 0.1])
    filled(path, models={TOGETHER: 1.2}, method="dvme", seeds=2, budgets=[0.01, 0.1])
    filled(path, models={TOGETHER: 0.7}, method="best-single", seeds=2, budgets=[0.1])
    few = {"flags": ["fixed_C", "first_model"]}
    store = filled(path, models={TOGETHER: 0.7}, method="best-single", seeds=2, budgets=[0.01], outcome=few)
    (panel,) = collect(store)
    first, second = answers(store, panel)
    assert (first.gain, first.unchosen) == (None, True)
    assert (second.gain is None, second.unchosen) == (False, False)
    said = f"{sentence([first], ShortNames.of([panel]))}"
    assert "what fusing gains cannot be concluded: too few labels to choose a single model by" in said


def test_every_fusion_is_drawn_against_the_best_single_model(tmp_path: Path, look: Any) -> None:
    path = tmp_path / "scores.sqlite"
    every = ["concat", "average", "blend", "dvme", "dvme, unfrozen"]
    filled(path, models={"simclr": 0.6, "swav": 0.9}, seeds=2)
    start = {"attention": ATTENTION, "settings": {"recipe": "concat", "epochs": 0}}
    for method in every:
        filled(path, models={TOGETHER: 1 + len(method) / 20}, method=method, seeds=2, outcome=start)
    filled(path, models={f"{TOGETHER} + dino": 1.5}, method="concat", seeds=2)  # without a best single model
    store = filled(path, models={TOGETHER: 0.7}, method="best-single", seeds=2)
    (panel,) = collect(store)
    group = fusion(store, panel, looks_of(panel.names), ShortNames.of([panel]))
    assert group is not None
    (figure,) = group.figures
    drawn = records(figure.tables["gains"])
    assert {(row["method"], row["budget"]) for row in drawn} == {
        (f"{method}: {TOGETHER}", budget) for method in every for budget in ("1 %", "10 %", "100 %")
    }
    assert {row["over"] for row in drawn} == {f"best-single: {TOGETHER}"}
    assert all(row["low"] < row["gain"] < row["high"] for row in drawn)
    page = look(write_report(store, ReportRequest(tmp_path / "report.html", export=False)).page)
    page.locator("#p0-gain").scroll_into_view_if_needed()
    page.wait_for_selector("#p0-gain svg.marks")
    words = page.eval_on_selector_all("#p0-gain svg text", "all => all.map(one => one.textContent)")
    assert {f"{method} of 2" for method in every} <= set(words), "each line has its name"
    table = page.locator("#p0-gains-table").inner_text()
    assert "averaged probabilities" in table, "DVME is also compared with the other fusions"
    assert (tmp_path / "report" / "pcam-gains.csv").read_text().startswith("fusion,minus,budget,")


def test_a_loss_counts_as_a_gain_where_it_falls(tmp_path: Path) -> None:
    store = fused(tmp_path / "scores.sqlite", metrics=("log_loss",))
    (panel,) = collect(store)
    losses = [cell for cell in panel.cells if cell.metric == "log_loss"]
    turned = replace(panel, metric="log_loss", cells=tuple(losses))
    found = gains(store, turned)
    assert len(found) == 9
    for one in found:
        assert one.low < one.value < one.high
        assert one.value == pytest.approx(one.base.mean - one.fused.mean)


def test_without_a_pair_nothing_is_drawn(tmp_path: Path) -> None:
    store = filled(tmp_path / "scores.sqlite", models={TOGETHER: 1.0}, method="concat", seeds=1)
    (panel,) = collect(store)
    assert fusion(store, panel, looks_of(panel.names)) is None


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
    assert fusion(store, panel, looks_of(panel.names)) is None


def test_attention_is_shown_only_where_a_network_was_trained(tmp_path: Path) -> None:
    path = tmp_path / "scores.sqlite"
    kept = {"attention": ATTENTION, "settings": {"recipe": "concat", "epochs": 0}}
    filled(path, models={"simclr": 0.6, "swav": 0.9}, seeds=2)
    filled(path, models={TOGETHER: 1.3}, method="dvme", seeds=2, budgets=(0.1,), outcome=kept)
    trained = {"attention": ATTENTION, "settings": {"recipe": "gentle", "epochs": 30}}
    store = filled(path, models={TOGETHER: 1.3}, method="dvme", budgets=(1.0,), outcome=trained)
    (panel,) = collect(store)
    group = fusion(store, panel, looks_of(panel.names))
    assert group is not None
    assert [choice.options for choice in group.choices] == [
        [f"dvme: {TOGETHER}, 100 %: network trained in 1 of 1 draws"]
    ]
    assert "none of the draws at 30 labels" in group.text


def test_without_a_trained_network_in_any_draw_there_is_no_attention_panel(tmp_path: Path) -> None:
    path = tmp_path / "scores.sqlite"
    filled(path, models={TOGETHER: 1.0}, method="best-single", seeds=2)
    kept = {"attention": ATTENTION, "settings": {"recipe": "concat", "epochs": 0}}
    store = filled(path, models={TOGETHER: 1.3}, method="dvme", seeds=2, outcome=kept)
    (panel,) = collect(store)
    group = fusion(store, panel, looks_of(panel.names))
    assert group is not None
    assert [figure.name for figure in group.figures] == ["gain"]
    assert not group.choices
    written = write_report(store, ReportRequest(tmp_path / "report.html", export=False))
    assert "p0-attention" not in written.page.read_text()


def test_rows_say_in_how_many_draws_a_network_was_trained(tmp_path: Path) -> None:
    path = tmp_path / "scores.sqlite"
    filled(path, models={TOGETHER: 1.0}, method="concat", seeds=3, budgets=(0.1,))
    for seeds, epochs in ((1, 30), (3, 0)):  # the first of three draws is stored already when all are asked for
        settings = {"recipe": {"name": "gentle"}, "epochs": epochs}
        outcome = {"attention": ATTENTION, "settings": settings}
        store = filled(path, models={TOGETHER: 1.3}, method="dvme", seeds=seeds, budgets=(0.1,), outcome=outcome)
    (panel,) = collect(store)
    said = {row.cell.method.method: row.realised for row in rows([panel])}
    assert said["dvme"].endswith("network trained in 1 of 3 draws")
    assert "network" not in said["concat"]
    table = csv.DictReader(as_csv([panel]).splitlines())
    assert {row["kind"]: row["networks_trained"] for row in table} == {"dvme": "1", "concat": ""}


@pytest.mark.parametrize(
    ("method", "settings", "trained"),
    [
        ("dvme", {"epochs": 0}, False),
        ("dvme", {"epochs": 30}, True),
        ("dvme, unfrozen", {"epochs": 3}, True),
        ("dvme, unfrozen", {"epochs": 3, "trained": 2}, True),
        ("fine-tune", {"epochs": 3, "trained": 0}, False),
        ("fine-tune", {"epochs": 0}, False),
        ("dvme", {"test_folds": [{"epochs": 0}, {"epochs": 30}]}, True),
        ("dvme", {"test_folds": [{"epochs": 0}, {"epochs": 0}]}, False),
        ("dvme", {"C": 1.0}, None),
        ("probe", {"epochs": 30}, None),
    ],
)
def test_which_fits_trained_a_network(method: str, settings: dict[str, Any], trained: bool | None) -> None:
    assert is_trained(method, settings) is trained


def test_gains_stand_on_the_axis_of_labels_on_a_scale_that_fits_them(tmp_path: Path) -> None:
    store = fused(tmp_path / "scores.sqlite")
    (panel,) = collect(store)
    group = fusion(store, panel, looks_of(panel.names))
    assert group is not None
    found = over_single(gains(store, panel))
    assert {row["labels"] for row in records(group.figures[0].tables["gains"])} == {3, 30, 300}
    low, high, _ = focus(found)
    assert low < min(0, *(one.value for one in found))
    assert high > max(0, *(one.value for one in found))
    wide = [replace(found[0], value=0.01, low=-0.9, high=0.9)]
    assert focus(wide)[2]
    assert focus(wide)[1] < 0.05
