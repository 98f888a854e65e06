"""Paired comparisons of the rows of a table, from what the store keeps: nothing is fitted."""

from __future__ import annotations

import itertools
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np

from mt.cache.fingerprint import digest
from mt.probe.questions import Budget
from mt.probe.scores import comparisons as comparing
from mt.probe.scores.cells import Cell, ScoreTable, left_out, score_tables, scored
from mt.probe.scores.comparisons import Comparison, Replicates, holm, replicate_scores
from mt.probe.scores.intervals import over_draws
from mt.probe.scores.metrics import METRICS
from mt.results.store import Score, ScoreStore
from mt.terminal import progress

Mark = Literal["best", "tied", ""]
RESAMPLES = 10_000
QUICK_RESAMPLES = 1_000  # for the marks in a table: a quick answer
_TABLES = ("subject", "budget", "p_holm", "n_family")  # what a comparison says of its table, not kept with its numbers


@dataclass(frozen=True)
class JudgedTable:
    """A table with the mark of each row that can be compared, by budget, and what a reader should know of the others.

    left_out: classes or labels that a mean leaves out.  apart: rows that cannot be compared with the others.
    shared: of each budget where some compared row has more, the number of draws that rows were compared on.
    """

    table: ScoreTable
    marks: dict[Budget, dict[str, Mark]]
    left_out: tuple[str, ...]
    apart: tuple[str, ...]
    shared: dict[Budget, int]


def judged(scores: Iterable[Score], store: ScoreStore) -> list[JudgedTable]:
    """Return the tables that these scores make, with the best rows and those tied with them."""
    tables = score_tables(scores, store)
    found = []
    with progress.bar("comparing", len(tables), unit="tables") as advance:
        for table in tables:
            found.append(_judged(table, store))
            advance(1)
    return found


def _judged(table: ScoreTable, store: ScoreStore) -> JudgedTable:
    found = {budget: marks(table, budget, store) for budget in table.budgets}
    shared = {budget: _fewer(table, budget, competing(table, budget, store)) for budget in table.budgets}
    defined = [place for place, cell in table.cells.items() if not np.isnan(cell.spread.mean)]
    apart = sorted({row for row, budget in defined if row not in found[budget]})
    return JudgedTable(table, found, tuple(left_out(table, store)), tuple(apart), _stated(shared))


def _fewer(table: ScoreTable, budget: Budget, cells: dict[str, Cell]) -> int:
    """Return how many draws rows were compared on, 0 where each of them has no more."""
    fewer = any(len(cell.scores) < len(table.cells[row, budget].scores) for row, cell in cells.items())
    return min((len(cell.scores) for cell in cells.values()), default=0) if fewer else 0


def _stated(shared: dict[Budget, int]) -> dict[Budget, int]:
    return {budget: draws for budget, draws in shared.items() if draws}


def competing(table: ScoreTable, budget: Budget, store: ScoreStore) -> dict[str, Cell]:
    """Return the rows that can be compared at a budget, each with the draws that all of them have.

    These are defined, on the same test cases and the same draws of the same train rows.  Where rows differ in that
    (features of some images only, fewer draws), the draws count that most rows have and no others; of equally many
    rows, those that most others have too.  A row that has these and more takes part with these.
    """
    cells = {row: cell for (row, b), cell in table.cells.items() if b == budget and not np.isnan(cell.spread.mean)}
    if not cells:
        return {}
    drawn = _drawn(cells, store)
    sets = [frozenset(own.items()) for own in drawn.values()]
    common = max(dict.fromkeys(sets), key=lambda one: (sets.count(one), sum(one <= other for other in sets), len(one)))
    return {
        row: _only(cell, {seed for seed, _ in common})
        for row, cell in cells.items()
        if common <= frozenset(drawn[row].items())
    }


def _drawn(cells: dict[str, Cell], store: ScoreStore) -> dict[str, dict[int, str]]:
    """Return, for each row, what its draws can be paired by: train rows, test cases and the rows drawn, by seed."""
    found = store.origins(score.fit for cell in cells.values() for score in cell.scores)
    return {row: {score.seed: found[score.fit] for score in cell.scores} for row, cell in cells.items()}


def _only(cell: Cell, seeds: Collection[int]) -> Cell:
    """Return a cell with some of its draws only."""
    if len(seeds) == len(cell.scores):
        return cell
    scores = tuple(score for score in cell.scores if score.seed in seeds)
    return replace(cell, scores=scores, spread=over_draws([score.value for score in scores]))


def marks(table: ScoreTable, budget: Budget, store: ScoreStore) -> dict[str, Mark]:
    """Return of each row that can be compared at a budget whether its mean is best or, by max-T, tied with the best.

    One row alone is neither.
    """
    cells = competing(table, budget, store)
    if len(cells) < 2:
        return dict.fromkeys(cells, "")
    names = {row: _identities(cell) for row, cell in cells.items()}
    key = digest({"not worse than best": names, "revision": comparing.REVISION})
    tied = store.recall(key)
    if tied is None:
        tied = list(_replicates(table.subject.metric, cells, store, n_resamples=QUICK_RESAMPLES).not_worse_than_best())
        store.remember(key, tied)
    means = {row: cell.spread.mean for row, cell in cells.items()}
    best = (max if METRICS[table.subject.metric].greater_is_better else min)(means.values())
    return {row: "best" if mean == best else "tied" if row in tied else "" for row, mean in means.items()}


def comparisons(tables: Iterable[ScoreTable], store: ScoreStore) -> list[Comparison]:
    """Return every pair of rows of every table and budget that has a draw in common, on the draws that both have.

    Holm's family is one dataset, budget and metric: the tables of all its subgroups together.
    """
    families: dict[tuple[tuple[str, str, str, str], Budget], list[Comparison]] = {}
    for table in tables:
        for budget in table.budgets:
            family = families.setdefault((table.subject.family, budget), [])
            cells = competing(table, budget, store)
            family += _pairs(table, budget, cells, store)
            for both in _others(table, budget, cells, store):
                family += _pairs(table, budget, both, store)
    return [
        replace(pair, p_holm=p_holm, n_family=len(family))
        for family in families.values()
        for pair, p_holm in zip(family, holm([pair.p for pair in family]), strict=True)
    ]


def _others(
    table: ScoreTable, budget: Budget, compared: dict[str, Cell], store: ScoreStore
) -> Iterator[dict[str, Cell]]:
    """Yield the pairs of rows that are not compared with all others, on the draws that the two have in common."""
    cells = {row: cell for (row, b), cell in table.cells.items() if b == budget and not np.isnan(cell.spread.mean)}
    if len(cells) == len(compared):
        return
    drawn = _drawn(cells, store)
    for a, b in itertools.combinations(cells, 2):
        seeds = {seed for seed, _ in drawn[a].items() & drawn[b].items()}
        if seeds and not {a, b} <= compared.keys():
            yield {row: _only(cells[row], seeds) for row in (a, b)}


def _pairs(table: ScoreTable, budget: Budget, cells: dict[str, Cell], store: ScoreStore) -> list[Comparison]:
    if len(cells) < 2:
        return []
    names = {row: _identities(cell) for row, cell in cells.items()}
    key = digest({"comparisons": names, "resamples": RESAMPLES, "revision": comparing.REVISION})
    found = store.recall(key)
    if found is None:
        found = _compared(table.subject.metric, cells, store)
        store.remember(key, found)
    return [Comparison(**numbers, subject=table.subject, budget=budget) for numbers in found]


def _compared(metric: str, cells: dict[str, Cell], store: ScoreStore) -> list[dict[str, Any]]:
    replicates = _replicates(metric, cells, store, n_resamples=RESAMPLES)
    pairs = [replicates.compare(a, b) for a, b in itertools.combinations(cells, 2)]
    return [{name: value for name, value in vars(pair).items() if name not in _TABLES} for pair in pairs]


def _replicates(metric: str, cells: dict[str, Cell], store: ScoreStore, *, n_resamples: int) -> Replicates:
    """Return the rows' scores on joint resamples of draws and test groups."""
    draws = {row: scored(cell.scores, store) for row, cell in cells.items()}
    cases = next(iter(draws.values()))[0]
    predictions = {row: [draw.p for draw in drawn] for row, drawn in draws.items()}
    return replicate_scores(metric, cases.y, predictions, groups=cases.groups, n_resamples=n_resamples)


def _identities(cell: Cell) -> list[str]:
    return [score.identity for score in cell.scores]
