"""Printed tables of what thresholds achieve: one per dataset, each row with its budget."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

import numpy as np

from mt.probe.decisions.achieved import Achieved
from mt.probe.decisions.decided import Decisions
from mt.probe.name_key import shortened
from mt.probe.scores.calibration import Measure
from mt.probe.tables import console, table_box
from mt.terminal.progress import counted

_LONG = 24  # characters of a name
_COLUMNS = {
    "sensitivity": "sensitivity",
    "specificity": "specificity",
    "ppv": "PPV",
    "npv": "NPV",
    "lr_positive": "LR+",
    "lr_negative": "LR-",
    "ppv_at_prevalence": "PPV at {}",
    "npv_at_prevalence": "NPV at {}",
}


def print_achieved(found: Sequence[Achieved], decisions: Decisions) -> None:
    """Print the tables to stdout, with notes that explain the numbers."""
    from rich.table import Table
    from rich.text import Text

    out = console()
    names = headings(decisions)
    for _, several in groupby(found, key=lambda one: one.subject.title):
        some = list(several)
        labels = any(one.label for one in some)
        rows, key = _short_rows(some)
        out.print(_title(some[0], decisions), style="bold", markup=False)
        table = Table(box=table_box(out))
        for name in ("model", "budget", *(["label"] if labels else []), "threshold", *names.values(), "TP FP FN TN"):
            table.add_column(name, overflow="fold")
        for one in some:
            cells = [rows[one.row], str(one.budget), *([one.label] if labels else []), threshold_of(one)]
            table.add_row(*map(Text, [*cells, *counts_and_measures(one, list(names))]))
        out.print(table)
        for line in [*key, *explained(some, decisions)]:
            out.print(line, style="dim", markup=False)
        out.print()


def _short_rows(some: Sequence[Achieved]) -> tuple[dict[str, str], list[str]]:
    """Return the name of each row, and the key to them; lists of models are shortened, as many columns need room."""
    rows = list(dict.fromkeys(one.row for one in some))
    return shortened(rows) if max(map(len, rows)) > _LONG else ({row: row for row in rows}, [])


def headings(decisions: Decisions) -> dict[str, str]:
    """Return the heading of each measure."""
    prevalence = _prevalence(decisions)
    return {key: name.format(prevalence) for key, name in _COLUMNS.items() if prevalence or "{}" not in name}


def _prevalence(decisions: Decisions) -> str:
    return "" if decisions.prevalence is None else f"{100 * decisions.prevalence:g} %"


def _title(one: Achieved, decisions: Decisions) -> str:
    cases = "groups" if one.subject.level == "group" else "test cases"
    label = "" if one.label else f", positive: {one.positive}"
    return f"{one.subject.title}: at the threshold {decisions.rule}, on {one.n_test:,} {cases}{label}"


def threshold_of(one: Achieved) -> str:
    """Return the mean of the draws' thresholds with its standard deviation; "none" if no draw has one."""
    values = [chosen.value for chosen in one.chosen if chosen.value is not None]
    if not values:
        return "none"
    spread = f" ± {np.std(values, ddof=1):.3f}" if len(values) > 1 else ""
    return f"{np.mean(values):.3f}{spread}" + (f" ({len(values)} draws)" if one.omitted else "")


def counts_and_measures(one: Achieved, names: Sequence[str]) -> list[str]:
    """Return these measures, each with its interval on a second line, then the 2x2 counts."""
    if one.point is None:
        return ["" for _ in names] + [""]
    digits = 1 if len(one.chosen) > 1 else 0  # of a mean over draws
    counts = " ".join(f"{getattr(one.point, name):.{digits}f}" for name in ("tp", "fp", "fn", "tn"))
    return [*(_text(one.point.measures[name], ratio=name.startswith("lr")) for name in names), counts]


def _text(found: Measure, *, ratio: bool) -> str:
    if found.reason and np.isnan(found.value):
        return "not defined"
    digits = ".2f" if ratio else ".3f"

    def number(value: float) -> str:
        return "inf" if np.isinf(value) else format(value, digits)

    between = "" if np.isnan(found.low) else f"\n[{number(found.low)}, {number(found.high)}]"
    return number(found.value) + between


def explained(some: Sequence[Achieved], decisions: Decisions) -> list[str]:
    """Return sentences on a table: the rule in words, its intervals, and why numbers are absent."""
    assert decisions.rule is not None
    prevalence = _prevalence(decisions)
    independent = {one.subject.level for one in some}
    notes = [
        f"Threshold: {decisions.rule.meaning}, on out-of-fold scores of the budget; positive from the threshold on"
        + (", on the mean of each group." if independent == {"group"} else "."),
        "[ ] 95 % interval over test cases, or groups if they are known, with the thresholds held fixed.",
    ]
    if any(len(one.chosen) > 1 for one in some):
        notes.append("Means over draws; each LR is that of the mean sensitivity and specificity.")
    if prevalence:
        notes.append(f"At {prevalence}: predictive values in a population of that prevalence, computed from the LR.")
    reasons = dict.fromkeys(one.reason for one in some if one.reason)
    notes += [f"Without a threshold: {_omitted(some, reason)}: {reason}." for reason in reasons]
    undefined = {m.reason for one in some if one.point for m in one.point.measures.values() if m.reason}
    return [*notes, *(f"Not defined: {reason}." for reason in sorted(undefined))]


def _omitted(some: Sequence[Achieved], reason: str) -> str:
    count = sum(one.omitted for one in some if one.reason == reason)
    return counted(count, "draw")
