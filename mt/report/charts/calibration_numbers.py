"""The table under the calibration curves: each shown method's debiased error, intercept, slope and ratio."""

from __future__ import annotations

from collections.abc import Sequence

from mt.probe.reliability.row_calibration import READING, TITLES, calibration_of
from mt.report.charts.curves import MOST, close_up
from mt.report.charts.figures import Section, table_section
from mt.report.panels import Panel, PanelCell
from mt.results.store import ScoreStore

_COLUMNS = ("error, debiased", "by chance", *TITLES.values())
_SAYS = (
    "Expected calibration error (15 bins), minus the part that chance adds; by chance: the plain error that a "
    "calibrated model with these probabilities would have, its mean and 95 % range."
)


def calibration_numbers(store: ScoreStore, panel: Panel) -> Section | None:
    """Return the calibration of the methods whose curves are drawn, at every budget; None without any.

    A multilabel task has a row per finding, at its largest budget.
    """
    cells = close_up(panel)
    labelled = panel.task == "multilabel"
    if labelled:
        cells = [cell for cell in cells if cell.budget == cells[-1].budget]
    labels: Sequence[str] = panel.class_names if labelled else ("",)
    rows = [
        (
            cell.name,
            *([label] if labelled else []),
            str(cell.budget),
            *_numbers(store, cell, place if labelled else None),
        )
        for place, label in enumerate(labels)
        for cell in cells
    ]
    columns = ("method", *(["finding"] if labelled else []), "budget", *_COLUMNS)
    few = f" The best {MOST} methods of each budget." if len(panel.names) > MOST else ""
    text = f"{_SAYS} {READING}{few}"
    return table_section("calibration", "Calibration in numbers", text, columns, rows) if rows else None


def _numbers(store: ScoreStore, cell: PanelCell, label: int | None) -> list[str]:
    """Return the numbers of a row."""
    found = calibration_of(cell.scores, store, label=label)
    return [f"{found.ece.debiased:.3f}", found.ece.by_chance, *found.texts()]
