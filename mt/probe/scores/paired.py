"""Paired comparisons of the rows of a table, from what the store keeps: nothing is fitted."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from mt.cache.fingerprint import digest
from mt.probe.questions import Budget
from mt.probe.scores.cells import Cell, Grid, scored
from mt.probe.scores.metrics import METRICS
from mt.results.store import ScoreStore

if TYPE_CHECKING:
    from mt.probe.scores.comparisons import Replicates

Mark = Literal["best", "tied", ""]
RESAMPLES = 10_000
QUICK_RESAMPLES = 1_000  # for the marks in a table, which are wanted at once


@dataclass(frozen=True)
class Paired:
    """Row a less row b at one budget: the mean difference over draws, its interval, p, and p adjusted by Holm.

    n_resamples: joint resamples that the interval and p rest on; redrawn: those that were undefined at first.
    """

    dataset: str
    test_dataset: str
    metric: str
    fraction: float | None
    shots: int | None
    level: str
    by: str | None
    subgroup: str | None
    a: str
    b: str
    difference: float
    low: float
    high: float
    p: float
    p_holm: float
    n_draws: int
    n_units: int
    n_resamples: int
    redrawn: int
    independent: bool

    def row(self) -> dict[str, Any]:
        """Return the comparison as one flat JSON object; a number that is undefined is null."""
        found = {"comparison": f"{self.a} - {self.b}", **asdict(self)}
        return {name: None if value != value else value for name, value in found.items()}


def competing(grid: Grid, budget: Budget, store: ScoreStore) -> dict[str, Cell]:
    """Return the rows that can be compared at a budget: defined, on the same test cases and the same draws.

    Where rows differ in these (features of some images only, say), those that most rows share.
    """
    cells = {row: cell for (row, b), cell in grid.cells.items() if b == budget and not np.isnan(cell.spread.mean)}
    if not cells:
        return {}
    found = store.origins(score.fit for cell in cells.values() for score in cell.scores)
    origins = [tuple((score.seed, found[score.fit]) for score in cell.scores) for cell in cells.values()]
    common = max(dict.fromkeys(origins), key=origins.count)
    return {row: cell for (row, cell), origin in zip(cells.items(), origins, strict=True) if origin == common}


def marks(grid: Grid, budget: Budget, store: ScoreStore) -> dict[str, Mark]:
    """Return of each row that can be compared at a budget whether its mean is best or, by max-T, tied with the best.

    One row alone is neither.
    """
    cells = competing(grid, budget, store)
    if len(cells) < 2:
        return dict.fromkeys(cells, "")
    key = digest({"not worse than best": {row: _identities(cell) for row, cell in cells.items()}})
    tied = store.recall(key)
    if tied is None:
        tied = list(_replicates(grid.metric, cells, store, n_resamples=QUICK_RESAMPLES).not_worse_than_best())
        store.remember(key, tied)
    means = {row: cell.spread.mean for row, cell in cells.items()}
    best = (max if METRICS[grid.metric].greater_is_better else min)(means.values())
    return {row: "best" if mean == best else "tied" if row in tied else "" for row, mean in means.items()}


def comparisons(grids: Iterable[Grid], store: ScoreStore) -> list[Paired]:
    """Return every pair of rows of every table and budget.

    Holm's family is one dataset, budget and metric: the tables of all its subgroups together.
    """
    from mt.probe.scores.comparisons import holm

    families: dict[tuple[str, str, str, str, Budget], list[Paired]] = {}
    for grid in grids:
        for budget in grid.budgets:
            family = families.setdefault((grid.dataset, grid.test_dataset, grid.metric, grid.level, budget), [])
            family += _pairs(grid, budget, competing(grid, budget, store), store)
    return [
        replace(pair, p_holm=p_holm)
        for family in families.values()
        for pair, p_holm in zip(family, holm([pair.p for pair in family]), strict=True)
    ]


def _pairs(grid: Grid, budget: Budget, cells: dict[str, Cell], store: ScoreStore) -> list[Paired]:
    if len(cells) < 2:
        return []
    names = {row: _identities(cell) for row, cell in cells.items()}
    key = digest({"comparisons": names, "resamples": RESAMPLES})
    found = store.recall(key)
    if found is None:
        found = _compared(grid.metric, cells, store)
        store.remember(key, found)
    place = {name: getattr(grid, name) for name in ("dataset", "test_dataset", "metric", "level", "by", "subgroup")}
    here = {**place, "fraction": budget.fraction, "shots": budget.shots, "p_holm": np.nan}
    return [Paired(**here, **numbers) for numbers in found]


def _compared(metric: str, cells: dict[str, Cell], store: ScoreStore) -> list[dict[str, Any]]:
    replicates = _replicates(metric, cells, store, n_resamples=RESAMPLES)
    shown = ("difference", "low", "high", "p", "n_draws", "n_units", "n_resamples", "redrawn", "independent")
    pairs = {(a, b): replicates.compare(a, b) for a, b in itertools.combinations(cells, 2)}
    return [{"a": a, "b": b, **{name: getattr(found, name) for name in shown}} for (a, b), found in pairs.items()]


def _replicates(metric: str, cells: dict[str, Cell], store: ScoreStore, *, n_resamples: int) -> Replicates:
    """Return the rows' scores on joint resamples of draws and test groups."""
    from mt.probe.scores.comparisons import replicate_scores

    draws = {row: scored(cell.scores, store) for row, cell in cells.items()}
    cases = next(iter(draws.values()))[0]
    predictions = {row: [draw.p for draw in drawn] for row, drawn in draws.items()}
    return replicate_scores(metric, cases.y, predictions, groups=cases.groups, n_resamples=n_resamples)


def _identities(cell: Cell) -> list[str]:
    return [score.identity for score in cell.scores]
