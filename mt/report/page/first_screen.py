"""The first screen: the sentence of each dataset, and the table across datasets and budgets."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mt.report.answer.findings import BudgetAnswer
from mt.report.answer.sentences import overview, sentence
from mt.report.short_names import ShortNames

_RANKED = 12  # methods whose ranks the first screen shows, the best on average
_KEY = (
    "Best: of the single models, on the draws and test cases that they share; level: not significantly worse (max-T). "
    "[ ]: 95 % interval, of a score over test cases, of a gain over draws and test cases. Gain of fusion: over the "
    "model chosen inside the budget, whose score follows, or over the named one, which the test cases chose; *: the "
    "interval excludes 0, one comparison per row, not adjusted for the number of rows. More labels: how many that "
    "model needs beyond its own to gain as much, read off its curve. Rank 1 is best; =: shared. ?: nothing can be "
    "concluded."
)


def answer(found: Sequence[Sequence[BudgetAnswer]], names: ShortNames) -> dict[str, Any]:
    """Return what the template shows first; nothing without answers."""
    if not found:
        return {}
    order, rows = overview(found, names)
    few = f" The best {_RANKED} of {len(order)} methods are ranked here." if len(order) > _RANKED else ""
    return {
        "sentences": [sentence(some, names) for some in found],
        "columns": [names(name) for name in order[:_RANKED]],
        "rows": [vars(row) | {"ranks": row.ranks[:_RANKED]} for row in rows],
        "key": _KEY + few,
    }
