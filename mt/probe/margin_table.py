"""What a margin shows: non-inferiority and equivalence of each row against the reference."""

from __future__ import annotations

import json
from collections.abc import Sequence

from mt.probe.request import Answers, Margin
from mt.probe.scores.declared import role_of_pair
from mt.probe.scores.margins import MarginTest, margin_tests
from mt.probe.scores.metrics import METRICS
from mt.probe.scores.score_tables import score_tables
from mt.probe.tables import console, said, table_box
from mt.results.store import ScoreStore

_WORDS = (
    "non-inferior: worse than the reference by less than the margin. equivalent: within the margin on either side. "
    "superior: better (two-sided, 5 %). inferior: worse by more than the margin. undecided: none of these is shown, "
    "which is not evidence of being as good. "
)


def reading(tests: Sequence[MarginTest]) -> str:
    """Return the note under a table of these tests: what the verdicts mean, and which number decides."""
    sizes = sorted({test.pair.n_family for test in tests})
    if not sizes or sizes[-1] < 2:
        return _WORDS + "Each follows from the 95 % interval of the paired difference: p is one-sided, at 2.5 %."
    count = "-".join(map(str, [*sizes[:1], *sizes[1:][-1:]]))
    return (
        f"{_WORDS}p decides (one-sided, 2.5 %), adjusted by Holm over {count} comparisons with the reference in one "
        "dataset, budget and metric. The 95 % interval is of one comparison alone: it can lie beyond the margin, or "
        "beyond 0, where p does not show it."
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
        p = map(p_of, test.holm[:2])
        table.add_row(*map(Text, (title, metric, str(pair.budget), pair.a, said(pair), test.verdict, *p)))
    out.print(table)
    out.print(reading(tests), style="dim", markup=False)
    out.print()


def p_of(value: float) -> str:
    """Return a p-value with four decimals; a dash if it is not defined."""
    return "–" if value != value else f"{value:.4f}"
