"""Prints decisions after the scores of a run: what thresholds achieve, and what scaling gained."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from mt.probe.decisions.achieved import achieved
from mt.probe.decisions.gains import Gain, differences, gains
from mt.probe.scores.comparisons import Comparison
from mt.results.store import ScoreStore

if TYPE_CHECKING:
    from mt.probe.request import Answers

EXPLAINED = (
    "Means over draws; lower is better. The scaling is fitted on the out-of-fold scores: only the test cases show what "
    "it gains. Its targets are smoothed, so the log loss out of fold can also rise, mostly where probabilities were "
    "calibrated already."
)


def print_decisions(answers: Answers, *, as_json: bool, compared: bool = False) -> None:
    """Print the operating points and the gains of scaling to stdout: tables, or JSON lines.

    compared: whether comparisons were printed, which then hold the gains.
    """
    decisions = answers.decisions
    assert decisions is not None
    with ScoreStore(answers.store) as store:
        points = list(achieved(answers.scores, decisions, store)) if decisions.rule else []
        scaled = gains(answers.scores, store) if decisions.calibrate else []
        pairs = differences(answers.scores, store) if decisions.calibrate and not compared else []
    if as_json:
        rows = [one.json_row(decisions) for one in points] + [one.json_row() for one in scaled]
        for row in (*rows, *(pair.row() for pair in pairs)):
            click.echo(json.dumps(row))
        return
    from mt.probe.decisions.achieved_tables import print_achieved

    print_achieved(points, decisions)
    _print_gains(scaled, pairs)


def _print_gains(scaled: Sequence[Gain], pairs: Sequence[Comparison]) -> None:
    from rich.table import Table
    from rich.text import Text

    from mt.probe.tables import console, print_comparisons, table_box

    if not scaled:
        return
    out = console()
    out.print("Gain of scaling", style="bold")
    table = Table(box=table_box(out))
    for name in ("dataset", "scaled", "budget", "1 / temperature", "log loss out of fold", "log loss on test cases"):
        table.add_column(name, overflow="fold")
    for one in scaled:
        losses = [f"{before:.3f} -> {after:.3f}" for before, after in (one.held_out, one.test)]
        slope = f"{one.slope:.2f}" + (f" ({one.scaled} of {one.draws} draws)" if one.scaled < one.draws else "")
        table.add_row(*map(Text, (one.subject.title, one.row, str(one.budget), slope, *losses)))
    out.print(table)
    out.print(
        EXPLAINED,
        style="dim",
    )
    out.print()
    if pairs:
        print_comparisons(pairs)
