"""A primary analysis is declared once and stored with its time; all other results are marked as exploratory."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from mt.cli import group
from mt.errors import InputError
from mt.probe.questions import Budget
from mt.probe.scores.declared import Primary, declarations
from mt.report import ReportRequest, write_report
from mt.study.study_file import parse_study
from tests.probe.features import probed, store_of, write_pair

ASKED = {"protocol": "clip", "seeds": 1}


@pytest.mark.parametrize(
    ("text", "metric", "budget"),
    [
        ("roc_auc@0.01", "roc_auc", Budget(0.01)),
        ("roc_auc@1%", "roc_auc", Budget(0.01)),
        (" accuracy@ 50 % ", "accuracy", Budget(0.5)),
        ("macro_auc@5shots", "macro_auc", Budget(shots=5)),
        ("log_loss@1", "log_loss", Budget(1.0)),
    ],
)
def test_a_primary_is_a_metric_at_a_budget(text: str, metric: str, budget: Budget) -> None:
    assert Primary.parsed(text) == Primary(metric, budget)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("roc_auc", r"--primary is METRIC@BUDGET: .* got 'roc_auc'"),
        ("roc_auc@few", r"--primary is METRIC@BUDGET"),
        ("roc_auc@1.2.3", r"expected a number after @, found '1\.2\.3'"),
        ("roc_acu@1%", r"No metric 'roc_acu'\. Did you mean 'roc_auc'"),
        ("roc_auc@300%", r"--fraction must be above 0"),
    ],
)
def test_what_is_no_primary_is_refused(text: str, said: str) -> None:
    with pytest.raises(InputError, match=said):
        Primary.parsed(text)


def test_its_budget_must_be_asked_for(tmp_path: Path) -> None:
    write_pair(tmp_path)
    with pytest.raises(InputError, match=r"the budgets are 50 %\. Add this one: --fraction 0\.2"):
        probed(tmp_path, fractions=[0.5], primary="roc_auc@20%")


def test_a_declaration_is_kept_with_what_was_known_by_then(tmp_path: Path) -> None:
    write_pair(tmp_path)
    for primary in ("roc_auc@0.5", "roc_auc@0.5", "accuracy@0.2", "roc_auc@0.2"):
        study = probed(tmp_path, fractions=[0.2, 0.5], primary=primary, **ASKED)
    with store_of(study) as store:
        found = declarations("toy", store)
        assert [str(one.primary) for one in found] == ["roc_auc at 50 %", "accuracy at 20 %", "roc_auc at 20 %"]
        assert [one.n_before for one in found] == [0, 0, 1]
        assert "before any of its scores" in found[0].said
        assert "when 1 of its scores were stored" in found[2].said
        store.forget([score.fit for score in store.scores()], [])
        assert len(declarations("toy", store)) == 3


def test_tables_and_json_mark_all_else_as_exploratory(tmp_path: Path) -> None:
    write_pair(tmp_path)

    def said(*words: str) -> str:
        asked = ["probe", "--cache-dir", str(tmp_path), "--fraction", "0.2", "--fraction", "0.5", "--protocol", "clip"]
        asked += ["--seeds", "1", "--metric", "accuracy", "--primary", "roc_auc@20%", *words]
        return CliRunner().invoke(group, asked, catch_exceptions=False).stdout

    table = said()
    assert "toy: accuracy on 80 test cases (exploratory)" in table
    assert "toy: ROC AUC on 80 test cases\n" in table
    assert [line.split() for line in table.splitlines() if "primary " in line] == [["model", "primary", "exploratory"]]
    assert "Primary: roc_auc at 20 %, declared" in table
    roles = {(row["metric"], row["fraction"]): row["role"] for row in map(json.loads, said("--json").splitlines())}
    assert roles == {
        ("roc_auc", 0.2): "primary",
        ("roc_auc", 0.5): "exploratory",
        ("accuracy", 0.2): "exploratory",
        ("accuracy", 0.5): "exploratory",
    }


def test_the_report_says_what_was_declared_or_that_nothing_was(tmp_path: Path) -> None:
    write_pair(tmp_path)
    study = probed(tmp_path, fractions=[0.2, 0.5], **ASKED)
    with store_of(study) as store:
        page = write_report(store, ReportRequest(tmp_path / "a.html", export=False)).page.read_text()
        assert "No primary metric and budget were declared" in page
    probed(tmp_path, fractions=[0.2, 0.5], primary="roc_auc@0.5", **ASKED)
    with store_of(study) as store:
        written = write_report(store, ReportRequest(tmp_path / "b.html", export=False))
    assert "Primary: roc_auc at 50 %, declared" in written.page.read_text()
    rows = csv.DictReader((written.folder / "scores.csv").read_text().splitlines())
    assert {row["budget"]: row["role"] for row in rows} == {"20 %": "exploratory", "50 %": "primary"}


def test_a_study_declares_it_in_its_file(tmp_path: Path) -> None:
    text = 'datasets = ["digits"]\nmodels = ["dino"]\nprimary = "{}"\ndraw = "random"\n'
    study = parse_study(text.format("accuracy@1%"), tmp_path / "study.toml")
    assert (study.primary, study.draws.draw, study.fused.draw) == ("accuracy@1%", "random", "random")
    with pytest.raises(InputError, match="primary: --primary is METRIC@BUDGET"):
        parse_study(text.format("accuracy"), tmp_path / "study.toml")


def test_what_is_declared_decides_the_sentence_of_the_report(tmp_path: Path) -> None:
    for model in ("m1", "m2"):
        write_pair(tmp_path, model=model)
    asked = {**ASKED, "metrics": ["roc_auc", "accuracy"]}
    study = probed(tmp_path, fractions=[0.2, 0.5], primary="accuracy@0.5", **asked)
    with store_of(study) as store:
        page = write_report(store, ReportRequest(tmp_path / "a.html", export=False)).page.read_text()
    said = page.split('<ul class="answers">')[1].split("</ul>")[0]
    assert "at 60 labels, accuracy 0." in said
