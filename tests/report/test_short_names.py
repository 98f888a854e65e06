"""Short names of rows on several models are on every part of the page, and the page says what they stand for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from mt.report import ReportRequest, collect, write_report
from mt.report.charts.fusion import fusion
from mt.report.charts.palette import looks_of
from mt.report.short_names import ShortNames
from tests.report.stores import filled

THREE, TWO, OTHER_TWO = "aa + bb + cc", "aa + bb", "aa + dd"


def test_short_names_have_a_key(tmp_path: Path) -> None:
    path = tmp_path / "s.sqlite"
    for models in (THREE, TWO, OTHER_TWO):
        filled(path, models={models: 1.0}, method="concat", seeds=1, budgets=(0.1,))
    names = ShortNames.of(collect(filled(path, seeds=1, budgets=(0.1,))))
    short = {joined: names(f"concat: {joined}") for joined in (THREE, TWO, OTHER_TWO)}
    assert set(short.values()) == {"concat of 3", "concat of 2 A", "concat of 2 B"}
    key = dict(names.key([f"concat: {TWO}", f"dvme: {OTHER_TWO}", "dino"]))
    assert key == {
        f"… of {short[TWO].removeprefix('concat of ')}": TWO,
        f"… of {short[OTHER_TWO].removeprefix('concat of ')}": OTHER_TWO,
    }


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("dino", "dino"),
        ("concat: a + b", "concat of 2"),
        ("concat: a + b at 64 px, ungrouped", "concat of 2 at 64 px, ungrouped"),
        ("dvme: a + b, 10 %: network trained in 1 of 3 draws", "dvme of 2, 10 %: network trained in 1 of 3 draws"),
        ("concat: a + b + d", "concat: a + b + d"),
        ("concat: a + bc", "concat: a + bc"),
        ("concat: a + b (2)", "concat of 2 (2)"),
    ],
)
def test_only_a_whole_list_of_models_is_shortened(text: str, said: str) -> None:
    assert ShortNames({"a + b": "2"})(text) == said


@pytest.mark.parametrize("task", ["binary", "ordinal"])
def test_long_names_are_in_the_key_and_commands_alone(look: Any, tmp_path: Path, task: str) -> None:
    asked: dict[str, Any] = {"task": task, "class_names": ("none", "mild", "severe")[: 2 if task == "binary" else 3]}
    attention = {"models": ["aa", "bb", "cc"], "overall": [0.2, 0.3, 0.5], "classes": {}}
    for method in ("concat", "best-single", "dvme"):
        outcome = {"attention": attention} if method == "dvme" else None
        filled(tmp_path / "s.sqlite", models={THREE: 1.2}, method=method, outcome=outcome, **asked)
    store = filled(tmp_path / "s.sqlite", models={"aa": 0.5, "bb": 0.6, "cc": 0.7}, **asked)
    written = write_report(store, ReportRequest(tmp_path / "r.html", export=False))
    page = look(written.page)
    assert page.locator("#names").inner_text() == f"Short names: “… of 3” is {THREE}."
    page.evaluate("document.querySelectorAll('#names, pre, code').forEach((one) => one.remove())")  # commands are typed
    page.evaluate("document.querySelectorAll('details').forEach((one) => { one.open = true; })")
    text = page.locator("body").inner_text()
    assert THREE not in text
    assert text.count("concat of 3") > 3
    assert not [text for text in page.locator("option").all_inner_texts() if THREE in text]
    latex = [file.read_text() for file in written.files if file.suffix == ".tex"]
    assert latex
    assert all(table.count(THREE) == 1 and "concat of 3" in table for table in latex)
    assert THREE in (tmp_path / "r" / "scores.csv").read_text()


def test_pages_of_many_datasets_share_their_short_names(tmp_path: Path) -> None:
    for dataset, joined in (("one", TWO), ("two", OTHER_TWO), ("three", TWO)):
        filled(tmp_path / "s.sqlite", dataset=dataset, models={joined: 1.0}, method="concat", seeds=1)
    store = filled(tmp_path / "s.sqlite", dataset="one", models={"aa": 0.5}, seeds=1)
    written = write_report(store, ReportRequest(tmp_path / "r.html", export=False))
    words = ShortNames.of(collect(store)).words
    for dataset, joined in (("one", TWO), ("two", OTHER_TWO), ("three", TWO)):
        page = (tmp_path / "r" / f"{dataset}.html").read_text()
        assert f"“… of {words[joined]}” is {joined}." in page
        assert f"concat of {words[joined]}" in page
    assert written.page.read_text().count("“… of 2 ") == 2


HUB = "hf:example/path-foundation-large"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (HUB, "path-foundation-large"),
        (f"{HUB} at 64 px, ungrouped", "path-foundation-large at 64 px, ungrouped"),
        (f"concat: {HUB} + dino", "concat of 2"),
        (f"{HUB}-2", f"{HUB}-2"),
        (f"{HUB}:cls", f"{HUB}:cls"),
        (f"timm:{HUB}", f"timm:{HUB}"),
    ],
)
def test_a_model_from_a_hub_is_called_by_its_own_name(text: str, said: str) -> None:
    assert ShortNames({f"{HUB} + dino": "2"}, {HUB: "path-foundation-large"})(text) == said


def test_models_of_two_owners_keep_their_long_names(tmp_path: Path) -> None:
    path = tmp_path / "s.sqlite"
    models = {HUB: 0.5, "hf:one/same": 0.6, "hf:other/same": 0.7, "hf:owner/dino": 0.8, "dino": 0.9}
    store = filled(path, models=models, seeds=1, budgets=(0.1,))
    filled(path, models={f"{HUB} + dino": 1.0}, method="concat", seeds=1, budgets=(0.1,))
    names = ShortNames.of(collect(store))
    assert [names(model) for model in models] == ["path-foundation-large", *list(models)[1:]]
    assert names.key([HUB, "dino"]) == [("path-foundation-large", HUB)]
    assert names.key([f"concat: {HUB} + dino"]) == [("… of 2", f"{HUB} + dino")]
    written = write_report(store, ReportRequest(tmp_path / "r.html", export=False))
    page = written.page.read_text()
    assert f"“path-foundation-large” is {HUB}" in page
    assert f"<td>{HUB}</td>" in page, "provenance has the whole name"
    assert HUB in (tmp_path / "r" / "scores.csv").read_text()


def test_the_chart_of_attention_has_short_names(tmp_path: Path) -> None:
    shares = {"models": [HUB, "dino"], "overall": [0.4, 0.6], "classes": {}}
    path = tmp_path / "s.sqlite"
    one: dict[str, Any] = {"seeds": 1, "budgets": (0.1,)}
    filled(path, models={f"{HUB} + dino": 1.0}, method="dvme", outcome={"attention": shares}, **one)
    store = filled(path, models={f"{HUB} + dino": 0.9}, method="concat", **one)
    (panel,) = collect(store)
    section = fusion(store, panel, looks_of(panel.names), ShortNames.of([panel]))
    assert section is not None
    (table,) = (figure.tables["attention"] for figure in section.figures if figure.name == "attention")
    assert set(table["called"]) == {"path-foundation-large", "dino"}
    assert set(table["model"]) == {HUB, "dino"}, "the whole name is under the pointer"
