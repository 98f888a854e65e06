"""Tables on the screen."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from mt.probe.scores.score_tables import judged_tables, score_tables
from mt.probe.tables import print_tables
from mt.terminal.tables import letters
from tests.report.stores import filled

RULE = "Newcombe's score interval"


@pytest.mark.parametrize(
    ("number", "letter"), [(0, "a"), (25, "z"), (26, "aa"), (27, "ab"), (51, "az"), (52, "ba"), (702, "aaa")]
)
def test_footnote_letters_go_on_after_z(number: int, letter: str) -> None:
    assert letters(number) == letter


def test_footnote_letters_are_distinct_words_of_letters() -> None:
    found = [letters(number) for number in range(1000)]
    assert len(set(found)) == 1000
    assert all(letter.isalpha() for letter in found)


@pytest.mark.parametrize(
    ("others", "said"),
    [
        ({}, ()),
        ({("dino", "1 %"): RULE}, (f"[ ] of dino at 1 %: {RULE}.", "[ ] of all other cells: ")),
        (
            {("dino", "1 %"): RULE, ("dino", "100 %"): RULE, ("swav", "1 %"): RULE},
            (f"[ ] of swav at 1 %; dino: {RULE}.", "[ ] of all other cells: "),
        ),
        (
            {("simclr", "1 %"): RULE, ("dino", "1 %"): "no interval"},
            (f"[ ] of simclr at 1 %: {RULE}.", "[ ] of dino at 1 %: no interval.", "[ ] of all other cells: "),
        ),
    ],
)
def test_each_kind_of_interval_names_its_cells(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    others: Mapping[tuple[str, str], str],
    said: tuple[str, ...],
) -> None:
    store = filled(tmp_path / "s.sqlite", seeds=1, budgets=(0.01, 1.0))
    (table,) = score_tables(store.scores(), store)
    cells = {
        (row, budget): replace(cell, interval=others.get((row, str(budget)), cell.interval))
        for (row, budget), cell in table.cells.items()
    }
    print_tables(judged_tables([replace(table, cells=cells)], store))
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("[ ]")]
    assert len(lines) == max(1, len(said))
    assert all(line.startswith(start) for line, start in zip(lines, said, strict=False))
    assert "95 % interval over 40 test groups" in lines[-1]
