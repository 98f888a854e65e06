"""Stars, ties and differences rest on the draws that the compared rows have in common, and tables say so."""

from __future__ import annotations

from pathlib import Path

import pytest

from mt.probe import tables
from mt.probe.questions import Budget
from mt.probe.scores.score_tables import comparisons, competing, judged, score_tables
from mt.probe.tables import print_comparisons, print_tables
from mt.results.store import ScoreStore
from tests.report.stores import filled

TENTH = Budget(0.1)
LONG = "simclr + swav + a network with a long name + another network with a long name"


def store_of(path: Path, **draws: int) -> ScoreStore:
    """Return a store of models with `draws` draws each, at 10 %."""
    strength = {"simclr": 0.6, "swav": 0.9, "dino": 1.4}
    for model, seeds in draws.items():
        store = filled(path, models={model: strength[model]}, budgets=(0.1,), seeds=seeds)
    return store


def test_of_two_rows_the_shared_draws_are_compared(tmp_path: Path) -> None:
    store = store_of(tmp_path / "s.sqlite", simclr=2, dino=1)
    (table,) = score_tables(store.scores(), store)
    assert {row: len(cell.scores) for row, cell in competing(table, TENTH, store).items()} == {"simclr": 1, "dino": 1}
    (pair,) = comparisons([table], store)
    first = {row: table.cells[row, TENTH].scores[0].value for row in table.rows}
    assert pair.n_draws == 1
    assert pair.difference == pytest.approx(first[pair.a] - first[pair.b])
    (one,) = judged(store.scores(), store)
    assert (one.shared, one.apart) == ({TENTH: 1}, ())


def test_a_row_with_fewer_draws_than_most_is_apart_and_is_compared_pair_by_pair(tmp_path: Path) -> None:
    store = store_of(tmp_path / "s.sqlite", simclr=3, swav=3, dino=1)
    (table,) = score_tables(store.scores(), store)
    assert set(competing(table, TENTH, store)) == {"simclr", "swav"}
    assert judged(store.scores(), store)[0].apart == ("dino",)
    pairs = {frozenset((pair.a, pair.b)): pair for pair in comparisons([table], store)}
    assert {pair.n_draws for names, pair in pairs.items() if "dino" in names} == {1}
    assert pairs[frozenset(("simclr", "swav"))].n_draws == 3
    assert {pair.n_family for pair in pairs.values()} == {3}
    assert all(pair.p_holm >= pair.p for pair in pairs.values())


def test_plain_tables_mark_best_unequal_and_incomparable(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store = store_of(tmp_path / "s.sqlite", simclr=3, swav=3, dino=1)
    print_tables(judged(store.scores(), store))
    lines = {line.split()[0]: line for line in capsys.readouterr().out.splitlines() if line.split()}
    assert " * [" in lines["swav"]
    assert " † (1 draw) [" in lines["dino"]
    assert lines["*:"].startswith("*: best of the budget.")
    assert lines["†:"] == "†: not compared, because draws or test cases differ from those of most rows: dino."


def test_the_size_of_holms_family_is_said_with_pairs_that_are_not_printed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = store_of(tmp_path / "s.sqlite", simclr=2, swav=2, dino=2)
    pairs = comparisons(score_tables(store.scores(), store), store)
    print_comparisons(pairs[:1])
    said = " ".join(capsys.readouterr().out.split())
    assert "Holm: within one dataset, budget and metric, 3 pairs each, including pairs that are not printed." in said
    print_comparisons(pairs)
    assert "3 pairs each." in " ".join(capsys.readouterr().out.split())


def test_long_names_get_a_key_where_they_do_not_fit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "s.sqlite"
    filled(path, models={LONG: 1.0}, budgets=(0.1,), seeds=2, method="dvme")
    store = filled(path, models={LONG: 0.5}, budgets=(0.1,), seeds=2, method="concat")
    monkeypatch.setenv("COLUMNS", "90")
    print_tables(judged(store.scores(), store))
    print_comparisons(comparisons(score_tables(store.scores(), store), store))
    out = capsys.readouterr().out
    assert "dvme: all 4 models" in out
    assert f"all 4 models: {LONG.replace(' + ', ', ')}." in " ".join(out.split())
    assert max(map(len, out.splitlines())) <= 90
    monkeypatch.setattr(tables, "_WIDE", 250)
    monkeypatch.delenv("COLUMNS")
    print_tables(judged(store.scores(), store))
    assert f"dvme: {LONG}" in capsys.readouterr().out
