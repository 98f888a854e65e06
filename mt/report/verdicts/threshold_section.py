"""What chosen thresholds achieve on the test cases: a table for each budget."""

from __future__ import annotations

from collections.abc import Sequence

from mt.probe.decisions.achieved import Achieved, achieved
from mt.probe.decisions.achieved_tables import counts_and_measures, explained, headings, threshold_of
from mt.probe.decisions.decided import Decisions
from mt.probe.questions import Budget
from mt.report.charts.figures import Section, table_section
from mt.report.contrast_sections import RowNames
from mt.report.panels import Panel
from mt.results.store import ScoreStore

_SQUARE = "TP FP\nFN TN"  # the layout of the counts
_RULE = "The rule is that of the last mt probe or mt fuse with --threshold on this dataset."


def threshold_sections(store: ScoreStore, panel: Panel) -> list[Section]:
    """Return a table per budget, few labels first; none if no threshold was asked for on the dataset."""
    decisions = panel.decisions
    if decisions is None or panel.task not in ("binary", "multilabel"):
        return []
    scores = [score for cell in panel.headline for score in cell.scores]
    found = list(achieved(scores, decisions, store, name=RowNames.of(panel), curves=False))
    sections: list[Section] = []
    said: set[str] = set()
    for budget in dict.fromkeys(cell.budget for cell in panel.headline):
        some = [one for one in found if one.budget == budget]
        lines = [line for line in (*explained(some, decisions), _RULE) if line not in said]
        said |= set(lines)
        sections.append(_section(panel, budget, some, decisions, lines))
    return sections


def _section(
    panel: Panel, budget: Budget, found: Sequence[Achieved], decisions: Decisions, lines: Sequence[str]
) -> Section:
    """Return the table of one budget.  lines: what explains it, without what an earlier table says."""
    order = {name: place for place, name in enumerate(panel.names)}
    some = sorted(found, key=lambda one: order[one.row])
    label = ("label",) if any(one.label for one in some) else ()
    names = headings(decisions) if any(one.point for one in some) else {}
    rows = [_row(one, list(names), labelled=bool(label)) for one in some]
    positive = "" if label else f" Positive: {some[0].positive}."
    counts = sorted({one.n_test for one in some})
    cases = f"{counts[0]:,}" if len(counts) == 1 else f"{counts[0]:,} to {counts[-1]:,}"
    text = " ".join([f"On {cases} labelled test cases.{positive}", *lines])
    columns = ("method", *label, "threshold", *((_SQUARE, *names.values()) if names else ()))
    place = f"{budget.fraction:g}" if budget.fraction else f"{budget.shots}-shots"
    return table_section(f"threshold-{place}", f"At the threshold {decisions.rule}, {budget}", text, columns, rows)


def _row(one: Achieved, names: Sequence[str], *, labelled: bool) -> list[str]:
    """Return the cells of one row; counts are laid out as the 2x2 table, and absent if no row has any."""
    *measures, counts = counts_and_measures(one, names)
    numbers = counts.split()
    square = "\n".join(filter(None, (" ".join(numbers[:2]), " ".join(numbers[2:]))))
    return [one.row, *([one.label] if labelled else []), threshold_of(one), *([square, *measures] if names else [])]
