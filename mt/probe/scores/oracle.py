"""The test-set oracle: for each draw, the single model with the best *test* score.

Only the test labels can make this choice.  Compared with `best-single`, which is chosen inside the budget, it shows how
much better a choice could be, and how much a choice by test labels inflates the score.  It is not ranked.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from mt.probe.questions import Budget
from mt.probe.scores.metrics import METRICS
from mt.probe.scores.score_tables import Cell, ScoreTable, cell_of
from mt.results.store import ScoreStore

ORACLE = "oracle-single"
CHOSEN_BY = "chosen by the test labels: not a method, not ranked"
_BESIDE = "best-single"


def with_oracle(table: ScoreTable, store: ScoreStore) -> ScoreTable:
    """Return the table with an oracle row after each `best-single` row, chosen among models of the same recipe."""
    cells: dict[tuple[str, Budget], Cell] = {}
    for (row, budget), cell in table.cells.items():
        cells[row, budget] = cell
        first = cell.scores[0]
        if first.method == _BESIDE:
            singles = {
                other.scores[0].model: other
                for (_, b), other in table.cells.items()
                if b == budget and other.scores[0].method == "probe" and recipe_of(other) == recipe_of(cell)
            }
            oracle = oracle_of(first.model, singles, store)
            if oracle is not None:
                cells[f"{ORACLE}: {row.removeprefix(f'{_BESIDE}: ')}", budget] = oracle
    return replace(table, cells=cells)


def recipe_of(cell: Cell) -> tuple[Any, ...]:
    """Return what models must share to be candidates of one choice: the protocol, its scaling, the kind of draws."""
    first = cell.scores[0]
    return first.protocol, first.realised.get("listed", False), first.realised.get("draw", False)


def oracle_of(models: str, singles: Mapping[str, Cell], store: ScoreStore) -> Cell | None:
    """Return the cell of the model that scores best on the test cases of each draw, among `models` ("a + b").

    Only draws that all of these models have count.  None if there are none, or if a model or a score is missing.
    """
    members = [singles.get(model) for model in models.split(" + ")]
    by_seed = [{score.seed: score for score in cell.scores} for cell in members if cell is not None]
    if not by_seed or len(by_seed) < len(members):
        return None
    seeds = [seed for seed in by_seed[0] if all(seed in one for one in by_seed)]
    choices = [[one[seed] for one in by_seed] for seed in seeds]
    if not choices or any(score.value != score.value for several in choices for score in several):
        return None
    greatest = METRICS[choices[0][0].metric].greater_is_better
    best = [(max if greatest else min)(several, key=lambda score: score.value) for several in choices]
    return replace(cell_of(best, store), oracle=True)


def chosen(cell: Cell) -> dict[str, int]:
    """Return in how many draws each model was chosen, the most frequent first."""
    return dict(Counter(score.model for score in cell.scores).most_common())


def oracle_rows(table: ScoreTable) -> list[dict[str, Any]]:
    """Return the oracle's cells as JSON objects."""
    return [
        {
            "oracle": row.removeprefix(f"{ORACLE}: "),
            "what": CHOSEN_BY,
            **vars(table.subject),
            **vars(budget),
            "mean": cell.spread.mean,
            "sd": cell.spread.sd,
            "low": cell.low,
            "high": cell.high,
            "n_draws": cell.spread.n_draws,
            "chosen": chosen(cell),
        }
        for (row, budget), cell in table.cells.items()
        if cell.oracle
    ]
