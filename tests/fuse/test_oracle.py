"""The test-set oracle stands beside the best single model, labelled; it is never ranked, starred or compared."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from mt.cli import group
from mt.probe.scores.oracle import oracle_rows, with_oracle
from mt.probe.scores.score_tables import comparisons, judged_tables, score_tables
from mt.report import ReportRequest, collect, write_report
from mt.report.short_names import ShortNames
from mt.report.tables import as_latex
from tests.probe.features import write_features
from tests.report.stores import filled

TOGETHER = "simclr + swav"
SINGLES = {"simclr": 0.8, "swav": 0.9}


def _fuse(cache: Path, *words: str) -> Result:
    asked = ["fuse", "--cache-dir", str(cache), "--fraction", "0.5", "--seeds", "3", "--method", "dvme", *words]
    return CliRunner().invoke(group, asked, catch_exceptions=False)


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("oracle")
    for model in ("m1", "m2"):
        for split, n in (("train", 120), ("test", 60)):
            write_features(folder, model=model, split=split, n=n, signal=0.2)
    return folder


def test_it_is_the_best_single_model_of_each_draw_by_its_test_score(cache: Path) -> None:
    rows = [json.loads(line) for line in _fuse(cache, "--json").stdout.splitlines()]
    singles: dict[int, list[float]] = {}
    for row in rows:
        if row.get("method") == "probe":
            singles.setdefault(row["seed"], []).append(row["value"])
    (oracle,) = [row for row in rows if "oracle" in row]
    assert oracle["mean"] == pytest.approx(sum(map(max, singles.values())) / 3)
    assert (oracle["oracle"], oracle["n_draws"], sum(oracle["chosen"].values())) == ("m1 + m2", 3, 3)
    assert oracle["what"] == "chosen by the test labels: not a method, not ranked"
    best = [row["value"] for row in rows if row.get("method") == "best-single"]
    assert oracle["mean"] >= sum(best) / 3
    assert not any("oracle" in row["comparison"] for row in rows if "comparison" in row)


def test_the_table_shows_it_after_the_best_single_model_with_a_note(cache: Path) -> None:
    lines = _fuse(cache).stdout.splitlines()
    place = next(number for number, line in enumerate(lines) if "best-single" in line)
    assert "oracle-single" in lines[place + 1]
    assert "‡" in lines[place + 1]
    assert any("Test labels choose it: it is not a method and is not ranked" in line for line in lines)
    assert not any("†" in line for line in lines)


def test_it_takes_no_part_in_marks_and_comparisons(tmp_path: Path) -> None:
    store = filled(tmp_path / "scores.sqlite", models=SINGLES, seeds=3, budgets=[0.1])
    filled(tmp_path / "scores.sqlite", models={TOGETHER: 0.7}, method="best-single", seeds=3, budgets=[0.1])
    plain = score_tables(store.scores(), store)
    shown = [with_oracle(table, store) for table in plain]
    (judged,), (without,) = judged_tables(shown, store), judged_tables(plain, store)
    assert (judged.marks, judged.apart) == (without.marks, without.apart)
    assert len(shown[0].cells) == len(plain[0].cells) + 1
    assert comparisons(shown, store) == comparisons(plain, store)
    # Fewer is better, then the oracle is the least.
    filled(tmp_path / "loss.sqlite", models=SINGLES, seeds=2, budgets=[0.1], metrics=["log_loss"])
    other = filled(
        tmp_path / "loss.sqlite",
        models={TOGETHER: 0.7},
        method="best-single",
        seeds=2,
        budgets=[0.1],
        metrics=["log_loss"],
    )
    ((table,),) = (score_tables(other.scores(), other),)
    (row,) = oracle_rows(with_oracle(table, other))
    losses = [[s.value for s in other.scores() if s.model == model and s.method == "probe"] for model in SINGLES]
    assert row["mean"] == pytest.approx(sum(map(min, zip(*losses, strict=True))) / 2)


def test_without_one_of_its_models_there_is_none(tmp_path: Path) -> None:
    store = filled(tmp_path / "scores.sqlite", models={"simclr": 0.8}, seeds=2, budgets=[0.1])
    filled(tmp_path / "scores.sqlite", models={TOGETHER: 0.7}, method="best-single", seeds=2, budgets=[0.1])
    (table,) = score_tables(store.scores(), store)
    assert with_oracle(table, store) == table


def test_a_scaled_best_single_model_has_an_oracle_of_scaled_models(cache: Path) -> None:
    rows = [json.loads(line) for line in _fuse(cache, "--calibrate", "temperature", "--json").stdout.splitlines()]
    expected: dict[str, list[float]] = {}
    for row in rows:
        if row.get("method") == "probe" and row["metric"] == "log_loss":
            expected.setdefault(f"{row['protocol']} {row['seed']}", []).append(row["value"])
    oracles = {row["oracle"]: row["mean"] for row in rows if "oracle" in row and row["metric"] == "log_loss"}
    assert {len(values) for values in expected.values()} == {2}
    assert oracles == {
        name: pytest.approx(sum(min(expected[f"{protocol} {seed}"]) for seed in range(3)) / 3)
        for name, protocol in (("m1 + m2", "default"), ("m1 + m2, temperature", "default, temperature"))
    }


DRAWN = {"unit": "row", "n_units": 30, "n_rows": 30, "n_groups": None, "rows": [15, 15], "groups": None}


@pytest.mark.parametrize(
    "outcome",
    [
        {"protocol": "default, temperature"},
        {"protocol": "blend"},
        {"realised": {**DRAWN, "forced": [], "missing": [], "draw": "random"}},
        {"realised": {**DRAWN, "forced": [], "missing": [], "listed": "a1b2"}},
    ],
    ids=["scaled", "another protocol", "random draws", "listed draws"],
)
def test_single_models_of_another_recipe_do_not_stand_in(tmp_path: Path, outcome: dict[str, Any]) -> None:
    path = tmp_path / "scores.sqlite"
    filled(path, models={"simclr": 0.8}, seeds=2, budgets=[0.1])
    filled(path, models={"swav": 0.9}, seeds=2, budgets=[0.1], outcome=outcome)
    store = filled(path, models={TOGETHER: 0.7}, method="best-single", seeds=2, budgets=[0.1])
    (table,) = score_tables(store.scores(), store)
    assert not any(cell.oracle for cell in with_oracle(table, store).cells.values())
    assert all(not panel.oracles for panel in collect(store))


def test_the_reports_tables_show_it_and_its_charts_do_not(tmp_path: Path) -> None:
    store = filled(tmp_path / "scores.sqlite", models=SINGLES, seeds=3, budgets=[0.1])
    filled(tmp_path / "scores.sqlite", models={TOGETHER: 0.7}, method="best-single", seeds=3, budgets=[0.1])
    (panel,) = collect(store)
    name = f"oracle-single (chosen by the test labels: not a method, not ranked): {TOGETHER}"
    assert [cell.name for cell in panel.oracles] == [name]
    assert name not in panel.names
    names = ShortNames.of([panel])
    assert names(name) == "oracle-single (chosen by the test labels: not a method, not ranked) of 2"
    assert names(name) in as_latex(panel, names)
    written = write_report(store, ReportRequest(tmp_path / "report.html", export=False))
    rows = list(csv.DictReader((written.folder / "scores.csv").read_text().splitlines()))
    assert [row["mark"] for row in rows if row["kind"] == "oracle-single"] == ["oracle"]
    page = written.page.read_text()
    assert f'<th scope="row">{names(name)}<' in page
    assert f'data-method="best-single: {TOGETHER}" data-metric' in page
