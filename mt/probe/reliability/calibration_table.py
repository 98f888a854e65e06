"""Prints the calibration of rows under a table of expected calibration errors, or as JSON."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from mt.probe.questions import Budget
from mt.probe.reliability.row_calibration import READING, TITLES, RowCalibration, calibration_of
from mt.probe.scores.score_tables import score_tables
from mt.probe.scores.scoring import Subject
from mt.results.store import ScoreStore

if TYPE_CHECKING:
    from mt.probe.request import Answers

_COLUMNS = ("dataset", "budget", "row", *TITLES.values())


def print_calibrations(answers: Answers) -> None:
    """Print the calibration of every row whose calibration error was asked for."""
    from rich.table import Table
    from rich.text import Text

    from mt.probe.tables import console, table_box

    with ScoreStore(answers.store) as store:
        found = list(_found(answers, store))
    out = console()
    out.print("Calibration", style="bold")
    table = Table(box=table_box(out))
    for name in _COLUMNS:
        table.add_column(name, overflow="fold")
    for subject, budget, row, one in found:
        table.add_row(*map(Text, (subject.title, str(budget), row, *one.texts())))
    out.print(table)
    out.print(READING, style="dim", markup=False)
    reasons = dict.fromkeys(one.reason for _, _, _, row in found for one in row.measures.values() if one.reason)
    for reason in reasons:
        out.print(f"Without an interval, or not defined: {reason}.", style="dim", markup=False)
    out.print()


def json_rows(answers: Answers, store: ScoreStore) -> Iterator[dict[str, Any]]:
    """Yield the same as JSON objects."""
    for subject, budget, row, one in _found(answers, store):
        yield {"calibration": row, **vars(subject), **vars(budget), **one.row()}


def _found(answers: Answers, store: ScoreStore) -> Iterator[tuple[Subject, Budget, str, RowCalibration]]:
    errors = [score for score in answers.scores if score.metric == "ece"]
    for table in score_tables(errors, store):
        for (row, budget), cell in table.cells.items():
            yield table.subject, budget, row, calibration_of(cell.scores, store)
