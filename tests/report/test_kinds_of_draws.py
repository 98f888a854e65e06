"""Rows on draws of two kinds are never compared: stratified and random draws of one seed hold other rows."""

from __future__ import annotations

import csv
import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mt.report import ReportRequest, collect, write_report
from mt.report.answer.findings import answers
from mt.report.answer.sentences import overview
from mt.report.charts.paired_gains import gains
from mt.report.labels_needed import labels_needed
from mt.report.panels import Panel
from mt.report.short_names import ShortNames
from mt.results.store import ScoreStore
from tests.probe.features import probed, store_of, write_pair
from tests.report.stores import filled

ASKED: dict[str, Any] = {"protocol": "clip", "fractions": [0.2, 0.5], "seeds": 2}
BOTH = "simclr + swav"
M1, M2, M3 = "m1, random draws", "m2, stratified draws", "m3, stratified draws"


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("kinds")
    for model, signal in (("m1", 0.3), ("m2", 0.6), ("m3", 0.4)):
        write_pair(folder, model=model, signal=signal)
    return folder


@pytest.fixture(scope="module")
def store(cache: Path) -> Iterator[ScoreStore]:
    """A store with one model on random draws and two on stratified ones, of the same seeds."""
    probed(cache, **ASKED, models=["m1"], draw="random")
    with ScoreStore(probed(cache, **ASKED, models=["m2", "m3"]).store) as store:
        yield store


@pytest.fixture
def panel(store: ScoreStore) -> Panel:
    (panel,) = collect(store)
    return panel


def test_every_row_names_its_kind_where_two_are_stored(panel: Panel) -> None:
    assert set(panel.names) == {M1, M2, M3}


def test_labels_needed_are_not_compared_across_kinds(panel: Panel) -> None:
    assert labels_needed(panel, M1, M2) is None
    assert labels_needed(panel, M2, M1) is None
    assert labels_needed(panel, M2, M3) is not None


def test_curves_without_a_common_budget_are_compared_by_kind(cache: Path) -> None:
    once = {**ASKED, "scores": cache / "apart.sqlite", "protocol": "default"}
    for models, fractions, draw in ((["m1"], [0.2], "random"), (["m2"], [0.5], "stratified"), (["m3"], [0.2], None)):
        asked = {**once, "models": models, "fractions": fractions}
        study = probed(cache, **asked, **({"draw": draw} if draw else {}))
    with store_of(study) as store:
        (panel,) = collect(store)
    assert labels_needed(panel, M1, M2) is None
    assert labels_needed(panel, M3, M2) is not None


def test_ranks_marks_and_the_best_are_among_rows_of_one_kind(store: ScoreStore, panel: Panel) -> None:
    assert {cell.name for cell in panel.headline if cell.mark is None} == {M1}
    for one in answers(store, panel):
        assert set(one.ranks) == {M2, M3}
    order, _ = overview([answers(store, panel)], ShortNames.of([panel]))
    assert set(order) == {M2, M3}


def test_the_page_says_not_compared(store: ScoreStore, tmp_path: Path) -> None:
    written = write_report(store, ReportRequest(tmp_path / "report.html"))
    with (tmp_path / "report" / "toy-needed.csv").open(encoding="utf-8", newline="") as file:
        cells = {row["to match"]: row for row in csv.DictReader(file)}
    for goal, method in itertools.permutations((M1, M2, M3), 2):
        assert (cells[goal][method] == "not compared") is (M1 in (goal, method))
    assert M1 in written.page.read_text(encoding="utf-8")


def test_a_fusion_is_compared_with_rows_on_its_own_draws(tmp_path: Path) -> None:
    """The best single model on other draws does not count, although it is stored first and better."""
    path = tmp_path / "s.sqlite"
    kinds = {"stratified draws": False, "random draws": True}
    for at_random in kinds.values():
        asked: dict[str, Any] = {"at_random": at_random, "code": 1 + at_random, "budgets": (0.1,), "seeds": 2}
        filled(path, models={"swav": 0.9, "simclr": 0.6}, **asked)
        for method in ("average", "concat", "best-single"):
            store = filled(path, models={BOTH: 0.7 if at_random else 0.9}, method=method, **asked)
    (panel,) = collect(store, names=[f"{method}: {BOTH}" for method in ("average", "concat", "best-single")])
    assert {(one.fused.name, one.base.name) for one in gains(store, panel)} == {
        (f"{method}: {BOTH}, {kind}", f"best-single: {BOTH}, {kind}")
        for method in ("average", "concat")
        for kind in kinds
    }
    (answer,) = answers(store, panel)
    assert answer.gain is not None
    assert answer.gain.base.how_drawn == answer.gain.fused.how_drawn


def test_the_base_that_test_cases_choose_is_on_the_draws_of_fusion(tmp_path: Path) -> None:
    """Better single models on other draws do not count."""
    path = tmp_path / "s.sqlite"
    asked: dict[str, Any] = {"budgets": (0.1,), "seeds": 2}
    filled(path, models={"swav": 0.9}, code=2, at_random=True, **asked)
    filled(path, models={"simclr": 0.6}, **asked)
    store = filled(path, models={BOTH: 1.1}, method="concat", **asked)
    (answer,) = answers(store, *collect(store))
    assert answer.gain is not None
    assert (answer.gain.base.name, answer.gain.by_test) == ("simclr, stratified draws", True)
