"""Tables of scores: the draws of one method at one budget make a cell; the rows of a table are compared in pairs.

Works for any method whose scores are in the store.  Nothing is fitted, and slow results are stored there too.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from mt.cache.names import digest
from mt.probe.questions import Budget
from mt.probe.scores import comparisons as comparing
from mt.probe.scores import sample
from mt.probe.scores.calibration import EceFacts, ece_facts
from mt.probe.scores.comparisons import Comparison, Replicates, holm, replicate_scores
from mt.probe.scores.metrics import METRICS, Spread, over_cases, over_draws, per_class, with_draws
from mt.probe.scores.scoring import LEVEL, REVISION, Subject, View, fold_of, too_few, views
from mt.results.store import Score, ScoreStore
from mt.terminal import progress
from mt.types import Array, ScoredRows

if TYPE_CHECKING:
    from mt.probe.scores.declared import Declaration


@dataclass(frozen=True)
class Cell:
    """Mean and standard deviation over draws, the interval of the mean over test cases, and that over both.

    low, high: the interval over test cases, None without one; `interval` describes it, or says why there is none.
    expected: the interval of the expected score over draws and test cases, None at one draw.
    ece: for an expected calibration error, its debiased mean over draws, and what a calibrated model would have.
    shares: for budgets of groups, the least and the greatest share of the train rows that a draw got.
    oracle: whether test labels chose what is shown; such a cell is not compared with others.
    """

    scores: tuple[Score, ...]
    spread: Spread
    low: float | None
    high: float | None
    interval: str
    expected: Sequence[float] | None = None
    ece: EceFacts | None = None
    shares: tuple[float, float] | None = None
    oracle: bool = False

    @property
    def flags(self) -> set[str]:
        return {flag for score in self.scores for flag in score.flags}


@dataclass(frozen=True)
class ScoreTable:
    """One table: the cells of one subject by (row, budget), in the order in which they were asked for."""

    subject: Subject
    cells: dict[tuple[str, Budget], Cell]

    @property
    def rows(self) -> list[str]:
        return list(dict.fromkeys(row for row, _ in self.cells))

    @property
    def budgets(self) -> list[Budget]:
        return list(dict.fromkeys(budget for _, budget in self.cells))


def score_tables(
    scores: Iterable[Score], store: ScoreStore, *, name: Callable[[Score], str] | None = None
) -> list[ScoreTable]:
    """Return the tables that these scores make.

    name: of a score's row; by default `row_name`, which experiments on other features share.
    Draws that took every row (a fraction that rounds up to all rows, or enough shots) count as one draw.
    """
    tables: dict[Subject, dict[tuple[str, Budget], list[Score]]] = {}
    for score in scores:
        place = (name or row_name)(score), Budget(score.fraction, score.shots)
        tables.setdefault(Subject.of(score), {}).setdefault(place, []).append(score)
    return [
        ScoreTable(subject, {place: cell_of(_distinct(draws), store) for place, draws in cells.items()})
        for subject, cells in tables.items()
    ]


def row_name(score: Score) -> str:
    """Return the name of a score's table row: the model, or the method and its models; then the scaling, if any."""
    name = score.model if score.method == "probe" else f"{score.method}: {score.model}"
    scaling = score.protocol.partition(", ")[2]
    return f"{name}, {scaling}" if scaling else name


def scored(scores: Sequence[Score], store: ScoreStore) -> list[ScoredRows]:
    """Return for each score the test cases and stored predictions that it was computed from."""
    found = []
    for score in scores:
        fit = store.fit(score.fit)
        view = View(score.level, score.by)
        parts = dict(views(fit.probabilities, store.cases(fit.cases), fit.outcome["task"], view, fold_of(fit)))
        found.append(parts[score.subgroup])
    return found


def json_row(score: Score, store: ScoreStore) -> dict[str, Any]:
    """Return a score as one JSON object, with the numbers that it needs beside it.

    A mean over classes comes with the score of each class, None if the mean omits it.  The expected calibration error
    comes with its debiased estimate, and with the mean and range of a calibrated model's.
    """
    if score.metric == "ece":
        facts = _ece_facts(score, store)
        own = {"debiased": facts.debiased, "if_calibrated": facts.if_calibrated}
        return score.row() | own | {"if_calibrated_95": [facts.low, facts.high]}
    if METRICS[score.metric].mean_of is None:
        return score.row()
    key = digest({"per class": score.identity})
    found = store.recall(key)
    if found is None:
        (cases,) = scored([score], store)
        values = per_class(score.metric, cases.y, cases.p, cases.fold).tolist()
        names = store.fit(score.fit).outcome["class_names"]
        found = {name: None if value != value else value for name, value in zip(names, values, strict=True)}
        store.remember(key, found)
    return score.row() | {"per_class": found}


def _ece_facts(score: Score, store: ScoreStore) -> EceFacts:
    """Return the debiased estimate of an expected calibration error, and what a calibrated model would have."""
    key = digest({"error facts": score.identity, "revision": REVISION})
    found = store.recall(key)
    if found is None:
        (cases,) = scored([score], store)
        found = vars(ece_facts(*sample.checked(cases.y, cases.p)))
        store.remember(key, found)
    return EceFacts(**found)


def left_out(table: ScoreTable, store: ScoreStore) -> list[str]:
    """Return the names of the classes or labels that a mean omits: no test case has them, or all have."""
    if METRICS[table.subject.metric].mean_of is None:
        return []
    (score, *_), *_ = (cell.scores for cell in table.cells.values())
    key = digest({"left out": score.identity})
    found = store.recall(key)
    if found is None:
        (cases,) = scored([score], store)
        names = store.fit(score.fit).outcome["class_names"]
        found = [names[k] for k in sample.left_out(cases.y, cases.p)]
        store.remember(key, found)
    return list(found)


def _distinct(draws: list[Score]) -> list[Score]:
    return draws[:1] if all(score.realised.get("everything") for score in draws) else draws


HOW_DRAWN = {"random": "rows drawn at random", "random-groups": "groups drawn at random"}


def _shares(draws: Sequence[Score], store: ScoreStore) -> tuple[float, float] | None:
    """Return the range of the shares of rows that draws of groups got; None for draws of rows."""
    realised = draws[0].realised
    if realised.get("unit") != "group" or "test_folds" in realised:
        return None
    n_rows = len(store.cases(store.fit(draws[0].fit).pool))
    shares = [score.realised["n_rows"] / n_rows for score in draws]
    return min(shares), max(shares)


def spoken_shares(shares: tuple[float, float]) -> str:
    """Return a range of shares in words: `9.2-11.4 %`."""
    low, high = (f"{100 * share:.3g}" for share in shares)
    return f"{low} %" if low == high else f"{low}-{high} %"


def cell_of(draws: list[Score], store: ScoreStore) -> Cell:
    """Return the cell that the draws of one row at one budget make."""
    shares = _shares(draws, store)
    spread = over_draws([score.value for score in draws])
    ece = EceFacts.mean([_ece_facts(one, store) for one in draws]) if draws[0].metric == "ece" else None
    if len(draws) == 1:
        (score,) = draws
        return Cell((score,), spread, score.low, score.high, score.interval, ece=ece, shares=shares)
    key = digest({"interval of the mean": [score.identity for score in draws], "revision": REVISION})
    found = store.recall(key)
    if found is None:
        found = _over_draws_and_cases(draws, scored(draws, store))
        store.remember(key, found)
    return Cell(tuple(draws), spread, **found, ece=ece, shares=shares)


def _over_draws_and_cases(draws: list[Score], cases: list[ScoredRows]) -> dict[str, Any]:
    """Return the interval of the mean over test cases, and that of the expected score over draws and test cases."""
    predictions = [draw.p for draw in cases]
    folds = _folds(cases)
    _, found = over_cases(draws[0].metric, cases[0].y, predictions, groups=cases[0].groups, level=LEVEL, folds=folds)
    if found.reason:
        return {"low": None, "high": None, "interval": found.note, "expected": None}
    expected = with_draws(draws[0].metric, [score.value for score in draws], found.low, found.high)
    return {"low": found.low, "high": found.high, "interval": found.note, "expected": expected}


def _folds(cases: Sequence[ScoredRows]) -> list[Array]:
    """Return the test fold of each case, one array per draw; empty on a test split."""
    return [draw.fold for draw in cases if draw.fold is not None]


Mark = Literal["best", "tied", ""]
RESAMPLES = 10_000
QUICK_RESAMPLES = 1_000  # for the marks in a table, which should appear quickly
# Fields of a comparison that depend on its table: not stored with its numbers.
_TABLES = ("subject", "budget", "flags", "p_holm", "n_family", "scaled")


@dataclass(frozen=True)
class JudgedTable:
    """A table with the mark of each row that can be compared, by budget, and what a reader should know of the others.

    left_out: classes or labels that a mean omits.  apart: rows that cannot be compared with the others.
    shared: the number of draws that rows were compared on, for each budget at which a compared row has more draws.
    declaration: the primary metric and budget, if declared.
    """

    table: ScoreTable
    marks: dict[Budget, dict[str, Mark]]
    left_out: tuple[str, ...]
    apart: tuple[str, ...]
    shared: dict[Budget, int]
    declaration: Declaration | None = None


def judged(scores: Iterable[Score], store: ScoreStore) -> list[JudgedTable]:
    """Return the tables that these scores make, with marks for the best rows and those tied with them."""
    return judged_tables(score_tables(scores, store), store)


def judged_tables(tables: Sequence[ScoreTable], store: ScoreStore) -> list[JudgedTable]:
    """Return tables with marks for the best rows and those tied with them."""
    found = []
    with progress.bar("comparing", len(tables), unit="tables") as advance:
        for table in tables:
            found.append(_judged(table, store))
            advance(1)
    return found


def declared_tables(tables: Iterable[JudgedTable], store: ScoreStore) -> list[JudgedTable]:
    """Return the tables with the last declaration for their datasets."""
    from mt.probe.scores.declared import declared

    return [replace(one, declaration=declared(one.table.subject.dataset, store)) for one in tables]


def _judged(table: ScoreTable, store: ScoreStore) -> JudgedTable:
    found = {budget: marks(table, budget, store) for budget in table.budgets}
    shared = {budget: _fewer(table, budget, competing(table, budget, store)) for budget in table.budgets}
    defined = [place for place, cell in table.cells.items() if not np.isnan(cell.spread.mean) and not cell.oracle]
    apart = sorted({row for row, budget in defined if row not in found[budget]})
    return JudgedTable(table, found, tuple(left_out(table, store)), tuple(apart), _stated(shared))


def _fewer(table: ScoreTable, budget: Budget, cells: dict[str, Cell]) -> int:
    """Return the number of draws that rows were compared on; 0 if no row has more."""
    fewer = any(len(cell.scores) < len(table.cells[row, budget].scores) for row, cell in cells.items())
    return min((len(cell.scores) for cell in cells.values()), default=0) if fewer else 0


def _stated(shared: dict[Budget, int]) -> dict[Budget, int]:
    return {budget: draws for budget, draws in shared.items() if draws}


def competing(table: ScoreTable, budget: Budget, store: ScoreStore) -> dict[str, Cell]:
    """Return the rows that can be compared at a budget, each with the draws that all of them have.

    Their scores are defined, on the same test cases and the same draws of the same train rows.  If rows differ in this
    (features of some images only, fewer draws), the set of draws is taken that most rows have; in a tie, the set that
    most other rows contain.  A row with further draws takes part with this set.
    """
    cells = _defined(table, budget)
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


def _defined(table: ScoreTable, budget: Budget) -> dict[str, Cell]:
    """Return the rows with a defined score at a budget, without the oracle."""
    cells = {row: cell for (row, b), cell in table.cells.items() if b == budget and not cell.oracle}
    return {row: cell for row, cell in cells.items() if not np.isnan(cell.spread.mean)}


def _drawn(cells: dict[str, Cell], store: ScoreStore) -> dict[str, dict[int, str]]:
    """Return for each row, by seed, what must agree in paired draws: train rows, test cases and the rows drawn."""
    found = store.origins(score.fit for cell in cells.values() for score in cell.scores)
    return {row: {score.seed: found[score.fit] for score in cell.scores} for row, cell in cells.items()}


def _only(cell: Cell, seeds: Collection[int]) -> Cell:
    """Return a cell with only the draws of these seeds."""
    if len(seeds) == len(cell.scores):
        return cell
    scores = tuple(score for score in cell.scores if score.seed in seeds)
    return replace(cell, scores=scores, spread=over_draws([score.value for score in scores]))


def marks(table: ScoreTable, budget: Budget, store: ScoreStore) -> dict[str, Mark]:
    """Return for each row that can be compared at a budget whether its mean is best or, by max-T, tied with the best.

    A single row is neither.
    """
    cells = competing(table, budget, store)
    if len(cells) < 2:
        return dict.fromkeys(cells, "")
    names = {row: identities(cell) for row, cell in cells.items()}
    key = digest({"not worse than best": names, "revision": comparing.REVISION})
    tied = store.recall(key)
    if tied is None:
        replicates = replicates_of(table.subject.metric, cells, store, n_resamples=QUICK_RESAMPLES)
        tied = list(replicates.not_worse_than_best())
        store.remember(key, tied)
    means = {row: cell.spread.mean for row, cell in cells.items()}
    best = (max if METRICS[table.subject.metric].greater_is_better else min)(means.values())
    return {row: "best" if mean == best else "tied" if row in tied else "" for row, mean in means.items()}


def comparisons(tables: Iterable[ScoreTable], store: ScoreStore) -> list[Comparison]:
    """Return the comparison of every pair of rows of every table and budget, on the draws that both have, if any.

    Holm's family is one dataset, budget and metric: the tables of all its subgroups together.  Pairs with a row of
    scaled probabilities are families of their own, so that scaling leaves the p of other pairs as it is.
    """
    families: dict[tuple[tuple[str, str, str, str], Budget, int], list[Comparison]] = {}
    for table in map(without_scaled_ranks, tables):
        for budget in table.budgets:
            scaled = {row for (row, b), cell in table.cells.items() if b == budget and is_scaled(cell)}
            cells = competing(table, budget, store)
            pairs = _pairs(table, budget, cells, store)
            for both in _others(table, budget, cells, store):
                pairs += _pairs(table, budget, both, store)
            for pair in pairs:
                count = (pair.a in scaled) + (pair.b in scaled)
                family = families.setdefault((table.subject.family, budget, count), [])
                family.append(replace(pair, scaled=count))
    return [
        replace(pair, p_holm=p_holm, n_family=sum(one.p == one.p for one in family))
        for family in families.values()
        for pair, p_holm in zip(family, holm([pair.p for pair in family]), strict=True)
    ]


def is_scaled(cell: Cell) -> bool:
    """Return whether the probabilities of a cell were scaled (`--calibrate`)."""
    return bool(cell.scores[0].scaling)


def without_scaled_ranks(table: ScoreTable) -> ScoreTable:
    """Return the table of a metric of ranks without rows of scaled probabilities, which keep the order of the cases.

    Other metrics keep all rows, and so does a table of scaled rows alone.
    """
    plain = {place: cell for place, cell in table.cells.items() if not is_scaled(cell)}
    return replace(table, cells=plain) if plain and METRICS[table.subject.metric].of_ranks else table


def _others(
    table: ScoreTable, budget: Budget, compared: dict[str, Cell], store: ScoreStore
) -> Iterator[dict[str, Cell]]:
    """Yield the pairs of rows that are not compared with all others, on the draws that the two have in common."""
    cells = _defined(table, budget)
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
    names = {row: identities(cell) for row, cell in cells.items()}
    key = digest({"comparisons": names, "resamples": RESAMPLES, "revision": comparing.REVISION})
    found = store.recall(key)
    if found is None:
        found = _compared(table.subject.metric, cells, store)
        store.remember(key, found)
    flags = few_of(cells.values())
    if table.subject.by is not None and flags:
        few = too_few(scored(next(iter(cells.values())).scores[:1], store)[0])
        found = [{**numbers, **dict.fromkeys(("low", "high", "p"), np.nan)} for numbers in found] if few else found
        flags = (f"no interval: {few}",) if few else flags
    return [Comparison(**numbers, subject=table.subject, budget=budget, flags=flags) for numbers in found]


def few_of(cells: Iterable[Cell]) -> tuple[str, ...]:
    """Return the flags of these cells that say that test cases or groups are few."""
    return tuple(sorted({flag for cell in cells for flag in cell.flags if flag.startswith("fewer than")}))


def _compared(metric: str, cells: dict[str, Cell], store: ScoreStore) -> list[dict[str, Any]]:
    replicates = replicates_of(metric, cells, store, n_resamples=RESAMPLES)
    pairs = [replicates.compare(a, b) for a, b in itertools.combinations(cells, 2)]
    return list(map(kept_of, pairs))


def kept_of(pair: Comparison) -> dict[str, Any]:
    """Return the numbers of a comparison that are stored, without its place in a table."""
    return {name: value for name, value in vars(pair).items() if name not in _TABLES}


def shared_cells(table: ScoreTable, budget: Budget, rows: tuple[str, str], store: ScoreStore) -> dict[str, Cell]:
    """Return two rows' cells on the draws that both have; empty if there are none, or if a score is not defined."""
    cells = {row: cell for row, cell in _defined(table, budget).items() if row in rows}
    if len(cells) < 2:
        return {}
    one, other = _drawn(cells, store).values()
    seeds = {seed for seed, _ in one.items() & other.items()}
    return {row: _only(cell, seeds) for row, cell in cells.items()} if seeds else {}


def replicates_of(metric: str, cells: dict[str, Cell], store: ScoreStore, *, n_resamples: int) -> Replicates:
    """Return the rows' scores on joint resamples of draws and test groups."""
    draws = {row: scored(cell.scores, store) for row, cell in cells.items()}
    cases = next(iter(draws.values()))[0]
    predictions = {row: [draw.p for draw in drawn] for row, drawn in draws.items()}
    folds = _folds(next(iter(draws.values())))
    return replicate_scores(metric, cases.y, predictions, groups=cases.groups, n_resamples=n_resamples, folds=folds)


def identities(cell: Cell) -> list[str]:
    """Return the identities of a cell's scores."""
    return [score.identity for score in cell.scores]
