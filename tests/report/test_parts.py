"""What the report shows is what the database holds: cells, marks, curves, labels needed, tables, provenance, files."""

from __future__ import annotations

import csv
import io
import xml.etree.ElementTree as ElementTree
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.metrics import auc, confusion_matrix, roc_auc_score

from mt.errors import InputError
from mt.probe.scores.calibration import calibration_curve
from mt.probe.scores.metrics import metrics_for
from mt.probe.scores.operating import decision_curve
from mt.report import ReportRequest, collect, write_report
from mt.report.charts.curves import calibrated, confusion, net_benefits, predictions, reliability, roc
from mt.report.charts.efficiency import label_efficiency
from mt.report.charts.figures import Table, records
from mt.report.charts.palette import looks_of
from mt.report.labels_needed import Needed, _reached
from mt.report.panels import PanelCell
from mt.report.provenance import provenance
from mt.report.short_names import ShortNames
from mt.report.tables import ScoreRow, as_csv, as_latex, latex
from tests.open_stores import open_store
from tests.report.stores import filled, outcome_of


def of_cell(table: Table, cell: PanelCell) -> list[dict[str, Any]]:
    """Return a cell's rows of a chart's table."""
    return [row for row in records(table) if (row["method"], row["budget"]) == (cell.name, str(cell.budget))]


def test_a_cell_holds_its_draws_and_both_uncertainties(tmp_path: Path) -> None:
    store = filled(tmp_path / "s.sqlite")
    (panel,) = collect(store)
    some, whole = panel.curve("dino")[0], panel.curve("dino")[-1]
    values = [score.value for score in store.scores() if score.model == "dino" and score.fraction == 0.01]
    assert [score.value for score in some.scores] == values
    assert [some.mean, some.sd] == pytest.approx([np.mean(values), np.std(values, ddof=1)])
    assert some.low is not None
    assert some.high is not None
    assert some.low < some.mean < some.high
    assert (len(whole.scores), whole.sd) == (1, None)
    assert panel.names[0] == "dino"


def test_the_later_answer_to_a_question_counts(tmp_path: Path) -> None:
    store = filled(tmp_path / "s.sqlite", seeds=2)
    before = collect(store)[0].curve("dino")[0]
    filled(tmp_path / "s.sqlite", seeds=1, code=2, outcome={"versions": {"solver": 2}})
    after = collect(store)[0].curve("dino")[0]
    assert (len(before.scores), len(after.scores)) == (2, 1)
    assert after.scores[0].fit not in {score.fit for score in before.scores}


def test_draws_of_different_library_versions_are_one_cell(tmp_path: Path) -> None:
    filled(tmp_path / "s.sqlite", seeds=1)
    usual = outcome_of("binary", ("normal", "tumour"), 3)["versions"]
    newer = {**usual, "mt": "0.2.0", "torch": "2.14.0"}
    store = filled(tmp_path / "s.sqlite", seeds=3, outcome={"versions": newer})
    assert len(collect(store)[0].curve("dino")[0].scores) == 3


def test_listed_draws_do_not_mix_with_our_own_of_the_same_seeds(tmp_path: Path) -> None:
    filled(tmp_path / "s.sqlite", seeds=3)
    listed = {**outcome_of("binary", ("normal", "tumour"), 3)["realised"], "listed": True}
    store = filled(tmp_path / "s.sqlite", seeds=2, code=2, outcome={"realised": listed})
    (panel,) = collect(store)
    assert set(panel.names) == {f"{model}, listed draws" for model in ("dino", "swav", "simclr")}
    assert len(panel.curve("dino, listed draws")[0].scores) == 2
    assert {one.name for one in panel.others} == {f"{model}, stratified draws" for model in ("dino", "swav", "simclr")}
    assert all(ScoreRow(panel, cell).realised.endswith("; as a draw file lists them") for cell in panel.cells)


def test_one_method_of_each_budget_is_best_and_only_near_ones_are_tied(tmp_path: Path) -> None:
    models = {"weak": 0.1, "strong": 1.4, "same": 1.4}
    (panel,) = collect(filled(tmp_path / "s.sqlite", models=models, n_test=240))
    for budget in {cell.budget for cell in panel.headline}:
        marks = {cell.name: cell.mark for cell in panel.headline if cell.budget == budget}
        assert sorted(map(str, marks.values()))[-1] == "tied"
        assert list(marks.values()).count("best") == 1
        assert marks["weak"] == ""


def test_roc_curves_have_the_area_that_was_scored(tmp_path: Path) -> None:
    store = filled(tmp_path / "s.sqlite", n_test=400)
    (panel,) = collect(store)
    predicted = predictions(store, panel)
    for one in predicted:
        points = of_cell(roc(panel, predicted), one.cell)
        assert len(points) <= 82
        area = auc([r["x"] for r in points], [r["y"] for r in points])
        assert area == pytest.approx(roc_auc_score(one.y, one.p), abs=0.01)
        assert one.cell.scores[0].value == pytest.approx(roc_auc_score(one.y, one.p))


def test_confusion_and_reliability_count_every_case(tmp_path: Path) -> None:
    store = filled(tmp_path / "s.sqlite", task="multiclass", class_names=("a", "b", "c"))
    (panel,) = collect(store)
    predicted = predictions(store, panel)
    first = predicted[0]
    mine = of_cell(confusion(panel, predicted), first.cell)
    counts = confusion_matrix(first.y, first.p.argmax(axis=1))
    assert [r["n"] for r in mine] == counts.ravel().tolist()
    table = of_cell(reliability(panel, predicted), first.cell)
    assert sum(r["n"] for r in table) == len(first.y)
    right = sum(r["n"] * r["y"] for r in table) / len(first.y)
    assert right == pytest.approx(first.cell.scores[0].value, abs=1e-3)


@pytest.mark.parametrize(
    ("curve", "target", "needed"),
    [
        ([(10, 0.5), (100, 0.7), (1000, 0.9)], 0.8, Needed(317)),
        ([(10, 0.5), (100, 0.7)], 0.7, Needed(100)),
        ([(10, 0.5), (100, 0.7)], 0.4, Needed(10, "≤")),
        ([(10, 0.5), (100, 0.7)], 0.71, Needed(100, ">")),
        ([(10, 0.5), (100, 0.4), (1000, 0.6)], 0.5, Needed(10, "≤")),
    ],
)
def test_labels_needed(curve: Sequence[tuple[int, float]], target: float, needed: Needed) -> None:
    assert _reached(curve, target) == needed


def test_labels_needed_is_in_the_folder_too_and_says_nothing_of_a_single_budget(tmp_path: Path) -> None:
    written = write_report(filled(tmp_path / "s.sqlite", seeds=1), ReportRequest(tmp_path / "r.html", export=False))
    head, first, *_ = csv.reader(io.StringIO((written.folder / "pcam-needed.csv").read_text(encoding="utf-8")))
    assert (head, first[:2]) == (["to match", "dino", "swav", "simclr"], ["dino", "300"])
    tex = (written.folder / "pcam-needed.tex").read_text(encoding="utf-8")
    assert r"dino & 300 & $>$ 300" in tex
    assert "Labels needed" in written.page.read_text(encoding="utf-8")
    alone = filled(tmp_path / "1.sqlite", budgets=(0.1,))
    one = write_report(alone, ReportRequest(tmp_path / "one.html", export=False))
    assert not list(one.folder.glob("*needed*"))
    assert "Labels needed" not in one.page.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("budgets", "alone"),
    [((0.1,), {"10 %"}), ((0.1, 1.0), {"10 %"}), ((0.01, 0.1, 1.0), set()), ((1.0,), set())],
)
def test_a_deviation_that_no_band_can_show_is_drawn_by_itself(
    tmp_path: Path, budgets: tuple[float, ...], alone: set[str]
) -> None:
    (panel,) = collect(filled(tmp_path / "s.sqlite", budgets=budgets))
    (figure,) = label_efficiency(panel, looks_of(panel.names)).figures
    rows = records(figure.tables["curves"])
    assert {row["budget"] for row in rows if row["alone"]} == alone


def test_a_band_stays_within_what_the_metric_can_be(tmp_path: Path) -> None:
    (panel,) = collect(filled(tmp_path / "s.sqlite"))
    wide = [
        replace(cell, summary=replace(cell.summary, spread=replace(cell.summary.spread, sd=2.0)))
        for cell in panel.cells
    ]
    wide_panel = replace(panel, cells=tuple(wide))
    (figure,) = label_efficiency(wide_panel, looks_of(panel.names)).figures
    rows = records(figure.tables["curves"])
    assert all(0 == row["sd_low"] < row["mean"] < row["sd_high"] == 1 for row in rows)


def test_csv_holds_every_cell_in_full(tmp_path: Path) -> None:
    store = filled(tmp_path / "s.sqlite", metrics=("all",))
    panels = collect(store)
    rows = list(csv.DictReader(io.StringIO(as_csv(panels))))
    assert len(rows) == len(panels[0].cells) == 9 * len(metrics_for("binary"))
    for row, cell in zip(rows[:9], panels[0].headline, strict=True):
        assert (row["method"], float(row["mean"])) == (cell.name, cell.mean)


def test_latex_is_a_booktabs_table_with_names_escaped(tmp_path: Path) -> None:
    (panel,) = collect(filled(tmp_path / "s.sqlite", models={"a_b & 50%": 1.0, "plain": 0.2}))
    table = as_latex(panel, ShortNames())
    assert r"\toprule" in table
    assert r"a\_b \& 50\%" in table
    assert r"\textbf{" in table
    assert latex("\\x{$^~\n") == r"\textbackslash{}x\{\$\textasciicircum{}\textasciitilde{}"


def test_non_commercial_weights_are_marked(tmp_path: Path) -> None:
    blocks = {block.title: block for block in provenance(collect(filled(tmp_path / "s.sqlite")))}
    licences = blocks["Backbones and licences"]
    assert licences.text == "Weights that allow no commercial use: swav."
    assert [row[1] for row in licences.rows if row[0] == "swav"] == ["⚠ CC-BY-NC-4.0: no commercial use"]
    models = "--model dino --model simclr --model swav"
    asked = f"mt probe {models} --dataset pcam --fraction 0.01 --fraction 0.1 --fraction 1 --seeds 3"
    assert asked in blocks["Reproduce"].commands
    assert any("C 0.1" in row for row in blocks["Recipes"].rows)


def test_an_undefined_score_is_shown_as_such(tmp_path: Path) -> None:
    store = filled(tmp_path / "s.sqlite", one_class=True, seeds=2)
    written = write_report(store, ReportRequest(tmp_path / "r.html", export=False))
    assert "NaN" not in written.page.read_text(encoding="utf-8").partition('id="charts"')[2].partition("</script>")[0]
    assert next(csv.DictReader(io.StringIO((written.folder / "scores.csv").read_text())))["mean"] == ""


CHARTS = ("labels", "roc", "pr", "reliability", "decisions")


def test_calibration_and_decision_curves_are_those_of_the_library(tmp_path: Path) -> None:
    store = filled(tmp_path / "s.sqlite", seeds=1)
    (panel,) = collect(store)
    predicted = predictions(store, panel)
    first = predicted[0]
    cases = store.cases(store.fit(first.cell.scores[0].fit).cases)
    curve = calibration_curve(cases.y, first.p, groups=cases.groups, points=25)
    rows = of_cell(calibrated(panel, predicted), first.cell)
    for mine, theirs in (("x", "p"), ("y", "observed"), ("low", "low"), ("high", "high")):
        assert [row[mine] for row in rows] == np.round(curve[theirs], 4).tolist()
    benefits, everybody = net_benefits(panel, predicted)
    rows = of_cell(benefits, first.cell)
    decisions = decision_curve(cases.y, first.p, groups=cases.groups, thresholds=[row["x"] for row in rows])
    assert [row["y"] for row in rows] == np.round(decisions.model, 4).tolist()
    assert [row["low"] for row in rows] == np.round(decisions.low, 4).tolist()
    assert everybody["y"] == np.round(decisions.treat_all, 4).tolist()


def test_every_chart_is_exported_with_its_legend(tmp_path: Path) -> None:
    written = write_report(filled(tmp_path / "s.sqlite", seeds=1), ReportRequest(tmp_path / "r.html"))
    pictures = {path.name: path for path in written.files if path.suffix in (".svg", ".png")}
    assert {f"pcam-{name}.{kind}" for name in CHARTS for kind in ("svg", "png")} == set(pictures)
    svg = pictures["pcam-labels.svg"].read_text(encoding="utf-8")
    ElementTree.fromstring(svg)
    assert all(name in svg for name in ("dino", "swav", "simclr"))
    assert pictures["pcam-labels.png"].read_bytes().startswith(b"\x89PNG")


def test_a_report_of_the_same_scores_is_left_as_it_is_where_nothing_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "r.html"
    store = filled(tmp_path / "s.sqlite", seeds=1)

    def drawn_again(**options: Any) -> bool:
        return write_report(store, ReportRequest(out, **{"export": False, "again": False, **options})).drawn

    first = write_report(store, ReportRequest(out, export=False))
    assert first.drawn
    assert not drawn_again()
    assert write_report(store, ReportRequest(out, export=False, again=False)).files == first.files
    assert drawn_again(export=True)
    assert drawn_again()
    (first.folder / "scores.csv").unlink()
    assert drawn_again()
    (first.folder / "drawn.json").write_text("{", encoding="utf-8")
    assert drawn_again()
    store = filled(tmp_path / "more.sqlite", seeds=2)
    with monkeypatch.context() as patch:
        patch.setattr("mt.report.writing._tables", lambda *_: 1 / 0)  # interrupted after the page
        with pytest.raises(ZeroDivisionError):
            drawn_again()
    store = filled(tmp_path / "s.sqlite", seeds=1)
    assert drawn_again()
    assert not drawn_again()


def test_asking_for_what_is_not_there_says_how_to_make_it(tmp_path: Path) -> None:

    with pytest.raises(InputError, match=r"No scores in .* Make them: mt probe"):
        collect(open_store(tmp_path / "none.sqlite"))
    with pytest.raises(
        InputError, match=r"No scores of dataset 'x' .* There are: pcam\. Make them: mt probe --dataset x"
    ):
        collect(filled(tmp_path / "s.sqlite", seeds=1), datasets=["x"])
