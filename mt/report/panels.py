"""From the score database to what the report shows: a panel a dataset, a line a method, a cell a budget.

Nothing is fitted here, and nothing is scored: cells hold stored scores, their mean over draws and two uncertainties
that are never mixed, over draws and over test cases.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from mt.cache.fingerprint import digest
from mt.errors import InputError
from mt.probe.questions import Budget
from mt.probe.scores import cells, paired
from mt.probe.scores.metrics import METRICS
from mt.probe.scores.subject import Subject
from mt.results.store import Score, ScoreStore
from mt.types import HEADLINE

# What of a score's versions is ours and changes its numbers.
_REVISIONS = ("protocol", "solver", "fuse", "metrics", "scoring", "resamples")


@dataclass(frozen=True)
class Method:
    """What one line of a chart stands for."""

    model: str
    method: str
    protocol: str
    solver: str
    select: str

    @classmethod
    def of(cls, score: Score) -> Method:
        return cls(score.model, score.method, score.protocol, score.solver, score.select)

    def differs(self, among: Collection[Method]) -> list[str]:
        """Return what of the recipe tells it from other methods on the same models."""
        rivals = [other for other in among if (other.model, other.method) == (self.model, self.method)]
        fields = ("protocol", "solver", "select")
        return [str(getattr(self, f)) for f in fields if len({getattr(other, f) for other in rivals}) > 1]


@dataclass(frozen=True)
class PanelCell:
    """One method at one budget in one metric: its draws in the order of their seeds."""

    name: str
    method: Method
    budget: Budget
    metric: str
    scores: tuple[Score, ...]
    summary: cells.Cell
    mark: paired.Mark = ""

    @property
    def mean(self) -> float:
        return self.summary.spread.mean

    @property
    def sd(self) -> float | None:
        """The standard deviation over draws; None where there is one draw, or a score that is not defined."""
        sd = self.summary.spread.sd
        return None if sd is None or math.isnan(sd) else sd

    @property
    def low(self) -> float | None:
        """The lower end of the 95 % interval over test cases of the mean; None where it is not defined."""
        return self.summary.low

    @property
    def high(self) -> float | None:
        return self.summary.high

    @cached_property
    def n_labels(self) -> int:
        """Labels used, for whatever purpose: the mean over draws, rounded."""
        return round(sum(score.n_labels for score in self.scores) / len(self.scores))

    @cached_property
    def flags(self) -> tuple[str, ...]:
        """What a reader should know, of any draw, once each."""
        return tuple(dict.fromkeys(flag for score in self.scores for flag in score.flags))


@dataclass(frozen=True)
class Panel:
    """One dataset (or one dataset tested on another): its methods at every budget, in every stored metric."""

    dataset: str
    test_dataset: str
    task: str
    class_names: tuple[str, ...]
    metric: str
    cells: tuple[PanelCell, ...]

    @property
    def title(self) -> str:
        return self.dataset if self.dataset == self.test_dataset else f"{self.dataset} → {self.test_dataset}"

    @property
    def metric_label(self) -> str:
        return METRICS[self.metric].label

    @cached_property
    def headline(self) -> tuple[PanelCell, ...]:
        """The cells of the task's headline metric, which charts show."""
        return tuple(cell for cell in self.cells if cell.metric == self.metric)

    @cached_property
    def names(self) -> tuple[str, ...]:
        """The methods, best first by the mean at their largest budget."""
        last = {cell.name: cell for cell in sorted(self.headline, key=lambda cell: cell.n_labels)}
        sign = -1 if METRICS[self.metric].greater_is_better else 1
        return tuple(sorted(last, key=lambda name: (sign * _sortable(last[name].mean), name)))

    def curve(self, name: str) -> list[PanelCell]:
        """Return a method's headline cells, few labels first."""
        return sorted((cell for cell in self.headline if cell.name == name), key=lambda cell: cell.n_labels)


def collect(store: ScoreStore, *, datasets: Collection[str] = ()) -> list[Panel]:
    """Return a panel for every dataset in the store, or for those named.

    Scores of groups and subgroups are left out; of a question answered twice, on changed features or by newer code, the
    later answer counts.  Raises InputError where there is nothing to show.
    """
    scores = [s for s in store.scores() if s.level == "row" and s.by is None and s.metric in METRICS]
    known = {score.dataset for score in scores}
    for name in datasets:
        if name not in known:
            raise InputError(
                f"No scores of dataset '{name}' in {store.path}. There are: {', '.join(sorted(known)) or 'none'}. "
                f"Make some: mt probe --dataset {name}"
            )
    if not scores:
        raise InputError(f"No scores in {store.path}. Make some: mt probe")
    wanted = [s for s in scores if not datasets or s.dataset in datasets]
    pairs = dict.fromkeys((s.dataset, s.test_dataset) for s in wanted)
    return [_panel(store, [s for s in wanted if (s.dataset, s.test_dataset) == pair]) for pair in sorted(pairs)]


def _panel(store: ScoreStore, scores: list[Score]) -> Panel:
    outcome = store.fit(scores[-1].fit).outcome
    task, classes = str(outcome["task"]), tuple(map(str, outcome["class_names"]))
    dataset, test_dataset = scores[0].dataset, scores[0].test_dataset
    return Panel(dataset, test_dataset, task, classes, HEADLINE[task], _cells(store, scores))


def _cells(store: ScoreStore, scores: Iterable[Score]) -> tuple[PanelCell, ...]:
    """Group scores into cells, small budgets first."""
    places: dict[tuple[Method, Budget, str], list[Score]] = {}
    for score in scores:
        places.setdefault((Method.of(score), Budget(score.fraction, score.shots), score.metric), []).append(score)
    methods = {method for method, _, _ in places}
    found = []
    for (method, budget, metric), answers in places.items():
        draws = _latest(answers)
        name = ", ".join([cells.row_name(draws[0]), *method.differs(methods)])
        ((summary,),) = (grid.cells.values() for grid in cells.score_tables(draws, store))
        found.append(PanelCell(name, method, budget, metric, tuple(draws), summary))
    marked = _marked(store, found)
    return tuple(sorted(marked, key=lambda cell: (cell.n_labels, cell.name, cell.metric)))


def _marked(store: ScoreStore, found: Sequence[PanelCell]) -> list[PanelCell]:
    """Mark the best cell of each budget and metric, and those that are not significantly worse than it."""
    marked = []
    for metric in dict.fromkeys(cell.metric for cell in found):
        mine = [cell for cell in found if cell.metric == metric]
        grid = as_grid(mine)
        marks = {budget: paired.marks(grid, budget, store) for budget in grid.budgets}
        marked += [replace(cell, mark=marks[cell.budget].get(cell.name, "")) for cell in mine]
    return marked


def as_grid(some: Sequence[PanelCell]) -> cells.ScoreTable:
    """Return cells of one dataset and metric as the table that comparisons work on."""
    first = some[0].scores[0]
    places = {(cell.name, cell.budget): cell.summary for cell in some}
    return cells.ScoreTable(Subject.of(first), places)


def _latest(scores: Sequence[Score]) -> list[Score]:
    """Return one score a seed, all of the same features, revisions and source of draws: those that were scored last.

    Library versions may differ between draws, as they may where a stored answer is used again.
    """
    by_origin: dict[str, dict[int, Score]] = {}
    for score in scores:
        revisions = {name: score.versions.get(name) for name in _REVISIONS}
        origin = digest([score.fingerprints, revisions, score.realised.get("listed", False)])
        by_origin[origin] = {**by_origin.pop(origin, {}), score.seed: score}
    draws = list(by_origin.values())[-1]
    return [draws[seed] for seed in sorted(draws)]


def _sortable(value: float) -> float:
    return -math.inf if math.isnan(value) else value
