"""What a margin shows: non-inferiority and equivalence of each row against a reference."""

from __future__ import annotations

from collections.abc import Sequence

from mt.errors import InputError, unknown
from mt.probe.margin_table import p_of, reading
from mt.probe.request import Margin
from mt.probe.scores.margins import margin_tests
from mt.probe.scores.score_tables import row_name
from mt.probe.tables import said
from mt.report.charts.figures import Section, table_section
from mt.report.panels import Panel, PanelCell, as_grid
from mt.results.store import ScoreStore


def margin_section(store: ScoreStore, panel: Panel, margin: Margin | None) -> Section | None:
    """Return the verdicts on a panel's rows; None without a margin, or where the panel lacks the reference."""
    references = references_of(panel, margin.reference) if margin else {}
    if margin is None or not references:
        return None
    found = [
        test
        for reference, cells in references.items()
        for test in margin_tests([as_grid(cells)], store, reference=reference, margin=margin.size)
    ]
    columns = ("method", "budget", "minus reference", "shown", "p non-inferior", "p equivalent")
    rows = [
        (test.pair.a, str(test.pair.budget), said(test.pair), test.verdict, *map(p_of, test.holm[:2])) for test in found
    ]
    title = f"Against {margin.reference}, margin {margin.size:g}"
    text = f"The unit is {panel.metric_label}. {reading(found)}"
    if len(references) > 1:
        text += " Each row is compared with the reference of its own protocol."
    return table_section("margin", title, text, columns, rows) if rows else None


def references_of(panel: Panel, name: str) -> dict[str, list[PanelCell]]:
    """Return each row with this name, model or method, and the cells that are compared with it; empty without one.

    Of several rows each is compared with the rows of its own protocol.  Raises InputError if a protocol has several.
    """
    cells = {cell.name: cell for cell in panel.headline}
    whole = [row for row, cell in cells.items() if name in (row, row_name(cell.scores[0]))]
    found = whole or [row for row, cell in cells.items() if name in (cell.method.method, cell.method.model)]
    if len(found) < 2:
        return {row: list(panel.headline) for row in found}
    protocols = [_protocol(cells[row]) for row in found]
    if len(set(protocols)) < len(found):
        raise InputError(f"--reference {name} names {len(found)} rows of {panel.title}: {'; '.join(found)}. Name one.")
    return {
        row: [cell for cell in panel.headline if _protocol(cell) == protocol]
        for row, protocol in zip(found, protocols, strict=True)
    }


def _protocol(cell: PanelCell) -> str:
    return cell.method.protocol.partition(", ")[0]  # what follows is the scaling


def check_reference(panels: Sequence[Panel], margin: Margin | None) -> None:
    """Raise InputError if no panel has the reference."""
    if margin is not None and not any(references_of(panel, margin.reference) for panel in panels):
        rows = dict.fromkeys(name for panel in panels for name in panel.names)
        raise unknown("row", margin.reference, rows, see="mt report --list")
