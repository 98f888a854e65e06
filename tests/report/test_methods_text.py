"""The methods text states what store and feature files hold, escaped, and names the items they cannot answer."""

from __future__ import annotations

import csv
import io
import json
import re
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

import mt.report.paper
from mt.cli import group
from mt.probe.protocols import PROTOCOLS
from mt.probe.scores.declared import Primary, declare
from mt.report import ReportRequest, collect, write_report
from mt.report.paper.checklists import GUIDELINES, Guideline, answered, unanswered
from mt.report.paper.citations import effective_size, with_references
from mt.report.paper.escaped import md
from mt.report.paper.facts import dataset_facts
from mt.report.paper.methods_text import methods, write_methods
from mt.report.paper.paragraph import OF_PROTOCOLS
from mt.report.paper.references import REFERENCES, of_backbone
from tests.probe.features import QUICK, probed, store_of, write_features
from tests.report.stores import filled
from tests.report.test_fusion import fused

HOSTILE = "<script>alert(1)</script>|`*"


def test_the_paragraph_holds_the_counts_of_the_store(tmp_path: Path) -> None:
    store = fused(tmp_path / "scores.sqlite")
    written = write_methods(store, ReportRequest(tmp_path / "r.html"))
    text = written.text.read_text(encoding="utf-8")
    assert "pcam is a binary task with 2 classes (normal, tumour)." in text
    assert "drawn from 300 cases without known patients or groups" in text
    assert "the test split has 120 cases of 40 patients or groups" in text
    assert "1 % (3 labels, 2 draws), 10 % (30 labels, 2 draws), 100 % (300 labels, 1 draw)" in text
    assert f"Protocol default (hash {PROTOCOLS['default'].fingerprint[:12]})" in text
    assert "dvme: DVME" in text
    assert "torch 2.6.0 [@paszke2019pytorch]" in text


def test_scaling_and_the_declared_primary_are_stated(tmp_path: Path) -> None:
    path = tmp_path / "s.sqlite"
    store = filled(path)
    declare(Primary.parsed("roc_auc@10%"), ["pcam"], store)
    filled(path, code=2, outcome={"protocol": "default, temperature"})
    text = methods(store, collect(store), None)[0]
    assert (
        "Probabilities were also scaled, by temperature scaling [@guo2017calibration] with Platt's targets "
        "[@platt1999probabilistic], fitted on out-of-fold scores of the label budget."
    ) in text
    assert "Protocol default, temperature" not in text
    assert "Protocol default; 7 draws of the labels over all budgets." in text
    assert re.search(r"Primary: roc\\_auc at 10 %, declared .*, when \d+ of its scores were stored", text)


@pytest.mark.parametrize(("epochs", "trained"), [(0, 0), (5, 7)])
def test_how_often_a_network_was_trained_is_stated(tmp_path: Path, epochs: int, trained: int) -> None:
    outcome = {"settings": {"epochs": epochs}}
    store = filled(tmp_path / "s.sqlite", method="dvme", models={"a + b": 1.0}, outcome=outcome)
    text = methods(store, collect(store), None)[0]
    assert f"A network was trained in {trained} of 7 fits; in the others its start predicts." in text


@pytest.mark.parametrize(
    ("task", "names", "said"),
    [("binary", ("a", "b"), "mean of logistic regressions"), ("multiclass", ("a", "b", "c"), "discriminant analyses")],
)
def test_blend_is_described_as_it_is_fitted(tmp_path: Path, task: str, names: tuple[str, ...], said: str) -> None:
    store = filled(tmp_path / "s.sqlite", task=task, class_names=names, method="blend", models={"a + b": 1.0})
    (sentence,) = re.findall(r"Methods on several models: blend: [^;]*\.", methods(store, collect(store), None)[0])
    assert said in sentence
    assert ("discriminant" in sentence) == (task == "multiclass")


def test_another_dataset_answers_the_item_of_external_tests_alone(tmp_path: Path) -> None:
    for dataset, split in (("here", "train"), ("here", "test"), ("there", "test")):
        write_features(tmp_path, dataset, split=split, n=100)
    probed(tmp_path, **QUICK, datasets=["here"])
    with store_of(probed(tmp_path, **QUICK, datasets=["here"], test_dataset="there")) as store:
        facts = {panel.title: dataset_facts(store, panel) for panel in collect(store)}
    claim = next(one for one in GUIDELINES if one.name == "CLAIM 2024")
    numbers = {title: {number for number, _, _ in answered(one, claim)} & {"32", "33"} for title, one in facts.items()}
    assert numbers == {"here": {"32"}, "here → there": {"33"}}


def test_every_citation_has_an_entry_and_every_entry_is_cited(tmp_path: Path) -> None:
    store = fused(tmp_path / "scores.sqlite")
    written = write_methods(store, ReportRequest(tmp_path / "r.html"))
    text, entries = (path.read_text(encoding="utf-8") for path in (written.text, written.references))
    cited = set(re.findall(r"@([\w-]+)", text))
    assert {"truong2021transferable", "backbone-simclr", "collins2024tripod"} <= cited
    assert set(re.findall(r"^@\w+\{([^,]+),", entries, re.MULTILINE)) == cited
    assert entries.count("{") == entries.count("}")


def test_methods_that_a_note_names_have_their_references(tmp_path: Path) -> None:
    for groups, author in ((True, "Obuchowski's [@obuchowski1997"), (False, "DeLong's [@delong1988")):
        note = f"95 % interval over 9 test {'groups of cases' if groups else 'cases'} (Wilson, {author[:10]}"
        assert effective_size(note + " variance)")
    assert with_references("(Wilson, DeLong's or binormal variance; classes combined by MOVER)") == (
        "(Wilson [@wilson1927probable], DeLong's [@delong1988comparing] or binormal [@hanley1982meaning] variance; "
        "classes combined by MOVER [@zou2008construction])"
    )
    assert with_references("(Newcombe's score interval)") == (
        "(Newcombe's [@newcombe2006confidence; @hanley1982meaning] score interval)"
    )
    store = filled(tmp_path / "s.sqlite", seeds=2)
    text = methods(store, collect(store), None)[0]
    for key in ("wilson1927probable", "obuchowski1997nonparametric", "korn1998confidence", "holm1979simple"):
        assert f"@{key}" in text


def test_every_key_in_the_code_has_an_entry() -> None:
    code = [path.read_text(encoding="utf-8") for path in Path(mt.report.paper.__file__).parent.glob("*.py")]
    keys = {key for text in code for key in re.findall(r"@([a-z]+\d{4}\w+)", text)}
    keys |= {key for several in OF_PROTOCOLS.values() for key in several} | {one.key for one in GUIDELINES}
    keys |= set(re.findall(r'"([a-z]+\d{4}[a-z]+)"', "".join(code)))
    assert keys == set(REFERENCES)


@pytest.mark.parametrize("key", sorted(REFERENCES))
def test_volume_pages_and_doi_are_fields(key: str) -> None:
    entry = REFERENCES[key].bibtex(key)
    names = re.findall(r"^  (\w+) = ", entry, re.MULTILINE)
    assert len(set(names)) == len(names)
    assert "note" not in names
    assert {"author", "title", "year"} <= set(names)
    if entry.startswith("@article"):
        assert {"journal", "volume", "pages"} <= set(names)
    assert all(re.fullmatch(r"10\.\d{4,}/\S+", doi) for doi in re.findall(r"doi = \{(.*)\}", entry))


def test_a_panel_without_the_metric_of_its_task_has_another(tmp_path: Path) -> None:
    store = filled(tmp_path / "s.sqlite", seeds=1, metrics=("log_loss",))
    (panel,) = collect(store)
    assert panel.metric == "log_loss"
    assert "The headline metric is log loss." in methods(store, [panel], None)[0]
    assert write_report(store, ReportRequest(tmp_path / "r.html", export=False)).page.exists()


def test_table_1_is_by_split_and_draw(tmp_path: Path) -> None:
    store = filled(tmp_path / "scores.sqlite", seeds=2)
    written = write_methods(store, ReportRequest(tmp_path / "r.html"))
    (path,) = (path for path in written.files if path.suffix == ".csv")
    rows = list(csv.DictReader(io.StringIO(path.read_text(encoding="utf-8"))))
    assert [row["of"] for row in rows] == [
        "train",
        "test",
        "1 %, draw 0",
        "1 %, draw 1",
        "10 %, draw 0",
        "10 %, draw 1",
        "100 %, draw 0",
    ]
    (panel,) = collect(store)
    fit = store.fit(panel.headline[0].scores[0].fit)
    pool, cases = store.cases(fit.pool), store.cases(fit.cases)
    assert rows[0]["tumour"] == f"{int(pool.y.sum())} ({pool.y.mean():.1%})"
    assert rows[1]["tumour"] == f"{int(cases.y.sum())} ({cases.y.mean():.1%})"
    assert rows[2]["tumour"] == f"{int(pool.y[fit.rows].sum())} ({pool.y[fit.rows].mean():.1%})"
    assert [row["cases"] for row in rows] == ["300", "120", "3", "3", "30", "30", "300"]


def test_missing_labels_are_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    labels = np.random.default_rng(0).integers(-1, 2, (300, 2)).astype(np.int8)
    monkeypatch.setattr("tests.report.stores._labels", lambda task, k, n: labels[:n])
    store = filled(tmp_path / "s.sqlite", task="multilabel", class_names=("Mass", "Nodule"), seeds=1)
    (panel,) = collect(store)
    facts = dataset_facts(store, panel)
    assert facts.train.unknown == (("labels", int((labels == -1).sum())),)
    claim = {number: answer for number, _, answer in answered(facts, GUIDELINES[0])}
    assert f"labels of {int((labels == -1).sum()):,} train cases" in claim["12"]


@pytest.mark.parametrize("guideline", GUIDELINES, ids=lambda one: one.name)
def test_items_are_answered_once_or_named_as_left_out(tmp_path: Path, guideline: Guideline) -> None:
    store = filled(tmp_path / "s.sqlite", seeds=1)
    (panel,) = collect(store)
    facts = dataset_facts(store, panel)
    there = [number for number, _, _ in answered(facts, guideline)]
    assert there == sorted(set(there), key=guideline.items.index)
    left = unanswered(guideline, [facts])
    assert sorted([*there, *left]) == sorted(guideline.items)
    text = methods(store, [panel], None)[0]
    assert f"- {guideline.name}: {', '.join(left)}" in text
    table = text.partition(f"### {guideline.name} ")[2].partition("\n\n")[2]
    assert table.startswith("| item (number not checked) | topic | answer |")


def test_the_numbers_of_the_guidelines() -> None:
    """44 items of CLAIM 2024, 27 of TRIPOD+AI, 40 of STARD-AI, parts by letter."""
    assert [len({re.sub("[a-z]", "", item) for item in one.items}) for one in GUIDELINES] == [44, 27, 40]
    assert {"12g", "18f", "23a"} <= set(GUIDELINES[1].items)
    assert {"15d", "40b", "24"} <= set(GUIDELINES[2].items)


def test_hostile_names_are_text(tmp_path: Path) -> None:
    store = filled(tmp_path / "s.sqlite", dataset=f"folder:{HOSTILE}", class_names=("ok", HOSTILE), seeds=1)
    text, references, _ = methods(store, collect(store), None)
    assert "<script>" not in text
    assert md(HOSTILE) in text
    assert HOSTILE not in references
    entry = of_backbone("a}, @evil{b", "x\\y", "{").bibtex("key")
    assert entry.count("{") == entry.count("}") == 1 + len(entry.splitlines()) - 2
    assert all(
        reference.bibtex("k").count("{") == reference.bibtex("k").count("}") for reference in REFERENCES.values()
    )


def test_the_command_writes_the_text_and_no_page(tmp_path: Path) -> None:
    filled(tmp_path / "scores.sqlite", seeds=1)
    asked = ["report", "--methods-text", "--json", "--scores", str(tmp_path / "scores.sqlite")]
    asked += ["--cache-dir", str(tmp_path / "cache"), "--out", str(tmp_path / "r.html")]
    found = CliRunner().invoke(group, asked)
    assert found.exit_code == 0, found.output
    facts = json.loads(found.output)
    assert Path(facts["methods"]) == tmp_path / "r" / "methods.md"
    assert all(Path(path).exists() for path in facts["files"])
    assert not (tmp_path / "r.html").exists()
