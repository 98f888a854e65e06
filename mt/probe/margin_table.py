"""What a margin shows: non-inferiority and equivalence of each row against the reference."""

from __future__ import annotations

import json
from collections.abc import Sequence

from mt.probe.request import Answers, Margin
from mt.probe.scores.declared import role_of_pair
from mt.probe.scores.margins import MarginTest, margin_tests
from mt.probe.scores.metrics import METRICS
from mt.probe.scores.score_tables import score_tables
from mt.probe.tables import console, table_box
from mt.results.store import ScoreStore

READING = (
    "non-inferior: worse than the reference by less than the margin. equivalent: within the margin on either side. "
    "superior: better (two-sided, 5 %). inferior: worse by more than the margin. undecided: none of these is shown, "
    "which is not evidence of being as good. Each follows from the 95 % interval of the paired difference (one-sided "
    "2.5 %); p is adjusted by Holm over the rows against the reference within one dataset, budget and metric."
)


def print_margins(answers: Answers, margin: Margin, *, as_json: bool) -> None:
    """Print every row against the reference, as a table or JSON lines.  Raises InputError for an unknown reference."""
    with ScoreStore(answers.store) as store:
        tables = score_tables(answers.scores, store)
        tests = margin_tests(tables, store, reference=margin.reference, margin=margin.size)
        roles = [role_of_pair(test.pair, store) for test in tests]
    if as_json:
        for test, role in zip(tests, roles, strict=True):
            print(json.dumps(test.row() | role))
    else:
        _print_table(tests, margin)


def _print_table(tests: Sequence[MarginTest], margin: Margin) -> None:
    from rich.table import Table
    from rich.text import Text

    out = console()
    out.print(f"Against {margin.reference}, margin {margin.size:g}", style="bold", markup=False)
    table = Table(box=table_box(out))
    numbers = ("minus reference [95 %]", "shown", "p non-inferior", "p equivalent")
    for name in ("dataset", "metric", "budget", "row", *numbers):
        table.add_column(name, overflow="fold")
    for test in tests:
        pair = test.pair
        title = pair.subject.title if pair.subject else ""
        metric = METRICS[pair.subject.metric].label if pair.subject else ""
        p = (f"{value:.4f}" for value in test.holm[:2])
        table.add_row(*map(Text, (title, metric, str(pair.budget), pair.a, difference_of(test), test.verdict, *p)))
    out.print(table)
    out.print(READING, style="dim", markup=False)
    out.print()


def difference_of(test: MarginTest) -> str:
    """Return a row minus the reference, with its interval: `+0.012 [-0.004, +0.028]`."""
    return f"{test.pair.difference:+z.3f} [{test.pair.low:+z.3f}, {test.pair.high:+z.3f}]"
