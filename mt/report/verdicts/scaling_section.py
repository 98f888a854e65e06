"""What scaling gained: log loss before and after, out of fold and on the test cases, with the paired difference."""

from __future__ import annotations

from mt.probe.decisions.gains import Gain, gains
from mt.probe.decisions.printed import EXPLAINED
from mt.probe.margin_table import p_of
from mt.probe.scores.comparisons import Comparison
from mt.probe.scores.score_tables import comparisons
from mt.probe.tables import said
from mt.report.charts.figures import Section, table_section
from mt.report.contrast_sections import RowNames
from mt.report.panels import Panel, PanelCell, as_grid
from mt.results.store import ScoreStore

_DIFFERENCE = (
    "Difference: the log loss on the test cases after scaling minus before. [ ] 95 % interval over test cases and "
    "draws; p is two-sided and not adjusted."
)
_COLUMNS = ("method", "budget", "1 / temperature", "out of fold", "on test cases", "difference", "p")


def scaling_section(store: ScoreStore, panel: Panel) -> Section | None:
    """Return the gains of the scaled rows of a panel; None without any."""
    names = RowNames.of(panel)
    scores = [score for cell in panel.headline if cell.scores[0].scaling for score in cell.scores]
    found = gains(scores, store, name=names) if scores else []
    if not found:
        return None
    losses = {(cell.name, cell.budget): cell for cell in panel.cells if cell.metric == "log_loss"}
    by_fit = {score.fit: cell for cell in losses.values() for score in cell.scores}
    rows = [_row(one, _difference(losses.get((one.row, one.budget)), by_fit, store)) for one in found]
    return table_section("scaling", "Gain of scaling", f"{EXPLAINED} {_DIFFERENCE}", _COLUMNS, rows)


def _row(one: Gain, pair: Comparison | None) -> tuple[str, ...]:
    draws = f" ({one.scaled} of {one.draws} draws)" if one.scaled < one.draws else ""
    losses = (f"{before:.3f} → {after:.3f}" for before, after in (one.held_out, one.test))
    difference, p = ("–", "–") if pair is None else (said(pair), p_of(pair.p))
    return one.row, str(one.budget), f"{one.slope:.2f}{draws}", *losses, difference, p


def _difference(scaled: PanelCell | None, by_fit: dict[str, PanelCell], store: ScoreStore) -> Comparison | None:
    """Return the paired difference of a row and the row that it scales; None if log loss is not stored for both."""
    if scaled is None:
        return None
    plain = by_fit.get(str(store.fit(scaled.scores[0].fit).outcome.get("unscaled")))
    if plain is None or plain.name == scaled.name:
        return None
    found = comparisons([as_grid([scaled, plain])], store)
    return next((one for one in found if one.a == scaled.name), None)
