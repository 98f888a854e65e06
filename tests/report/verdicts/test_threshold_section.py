"""The page shows what thresholds achieve, by the rule of the last run with `--threshold`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from mt.probe.decisions.achieved import achieved
from mt.probe.decisions.decided import Decisions
from mt.report import ReportRequest, collect, write_report
from mt.report.verdicts.threshold_section import threshold_sections
from tests.probe.features import probed, store_of, write_features


def made(tmp_path: Path, **facts: Any) -> Path:
    for model in ("m1", "m2"):
        for split, n in (("train", 120), ("test", 200)):
            write_features(tmp_path, model=model, split=split, n=n, signal=0.4, **facts)
    return tmp_path


ASKED: dict[str, Any] = {"protocol": "clip", "fractions": [0.2, 0.5], "seeds": 2}


def test_there_is_a_table_per_budget_with_what_was_asked_for_last(tmp_path: Path, look: Any) -> None:
    cache = made(tmp_path, class_names=["well", "<b>ill</b>"])
    probed(cache, **ASKED, threshold="youden")
    study = probed(cache, **ASKED, threshold="sensitivity:0.9", prevalence=0.02)
    with store_of(study) as store:
        written = write_report(store, ReportRequest(tmp_path / "report.html", export=False))
        assert study.decisions is not None
        found = list(achieved(study.scores, study.decisions, store))
    page = look(written.page)
    text = page.locator("body").inner_text()
    assert text.count("At the threshold sensitivity:0.9, ") == 2
    assert text.count("the highest threshold with a sensitivity of at least 0.9, on out-of-fold scores") == 1
    assert text.count("Positive: <b>ill</b>.") == 2, "escaped"
    assert "youden" not in text
    for one in found:
        assert one.point is not None
        row = page.locator(f"[id='p0-threshold-{one.budget.fraction:g}-table'] tbody tr", has_text=one.row)
        cells = row.locator("td").all_inner_texts()
        measures = [one.point.measures[name] for name in ("sensitivity", "specificity", "ppv", "npv")]
        for cell, measure in zip(cells[2:6], measures, strict=True):
            assert cell == f"{measure.value:.3f}\n[{measure.low:.3f}, {measure.high:.3f}]"
        assert cells[1] == f"{one.point.tp:.1f} {one.point.fp:.1f}\n{one.point.fn:.1f} {one.point.tn:.1f}"
        assert len(cells) == 10, "with PPV and NPV at the prevalence"
    assert page.locator("[id='p0-threshold-0.2-table'] thead th").nth(2).inner_text() == "TP FP\nFN TN"
    file = (tmp_path / "report" / "toy-threshold-0.2.csv").read_text()
    assert file.startswith(
        "method,threshold,TP FP FN TN,sensitivity,specificity,PPV,NPV,LR+,LR-,PPV at 2 %,NPV at 2 %\n"
    )
    assert len(file.splitlines()) == 3


def test_a_rule_draws_the_report_anew_and_outlives_forgotten_scores(tmp_path: Path) -> None:
    cache = made(tmp_path)
    study = probed(cache, **ASKED, threshold="youden")
    asked = ReportRequest(tmp_path / "report.html", export=False, again=False)
    with store_of(study) as store:
        assert write_report(store, asked).drawn
        assert not write_report(store, asked).drawn
    study = probed(cache, **ASKED, threshold="cost:5")
    assert study.n_fitted == 0
    with store_of(study) as store:
        assert write_report(store, asked).drawn
        store.forget([score.fit for score in study.scores], [])
    with store_of(probed(cache, **ASKED)) as store:
        (panel,) = collect(store)
        assert panel.decisions == Decisions.of("cost:5", None, None)
        text = threshold_sections(store, panel)[0].table
        assert text is not None
        assert "no out-of-fold scores are stored" in text.text
        assert (text.columns, [row[1] for row in text.rows]) == (("method", "threshold"), ["none", "none"])


@pytest.mark.parametrize("facts", [{}, {"task": "multiclass", "n_classes": 3}], ids=["not asked", "several classes"])
def test_nothing_is_shown_where_no_threshold_was_asked_for(tmp_path: Path, facts: dict[str, Any]) -> None:
    study = probed(made(tmp_path, **facts), **ASKED)
    with store_of(study) as store:
        (panel,) = collect(store)
        assert panel.decisions is None
        assert threshold_sections(store, panel) == []


def test_labels_have_rows_of_their_own(tmp_path: Path) -> None:
    cache = made(tmp_path, task="multilabel", n_classes=2, class_names=["rash", "fever"])
    study = probed(cache, fractions=[0.5], seeds=1, threshold="specificity:0.8")
    with store_of(study) as store:
        (panel,) = collect(store)
        (section,) = threshold_sections(store, panel)
    assert section.table is not None
    assert section.table.columns[:3] == ("method", "label", "threshold")
    assert [row[1] for row in section.table.rows] == ["rash", "fever"] * 2
