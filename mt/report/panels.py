"""From the score database to what the report shows: a panel per dataset, a line per experiment, a cell per budget.

Nothing is fitted here, and nothing is scored: cells hold stored scores, their mean over draws and two uncertainties
that are never mixed, over draws and over test cases.
"""

from __future__ import annotations

import math
import shlex
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from mt.cache.names import is_named, mapped_place
from mt.errors import InputError
from mt.probe.decisions.decided import Decisions, last_rule
from mt.probe.questions import Budget
from mt.probe.scores.declared import Declaration, declared
from mt.probe.scores.metrics import METRICS
from mt.probe.scores.oracle import CHOSEN_BY, ORACLE, oracle_of, recipe_of
from mt.probe.scores.score_tables import Cell, Mark, ScoreTable, marks, score_tables
from mt.probe.scores.scoring import Subject
from mt.report.experiments import Experiment, Method, among, asked_for, data_titles, experiments, how_drawn
from mt.report.origins import Origins
from mt.results.store import Score, ScoreStore
from mt.types import HEADLINE

if TYPE_CHECKING:
    from mt.cache.catalog import Catalog


@dataclass(frozen=True)
class PanelCell:
    """One method at one budget in one metric: its draws in the order of their seeds.

    mark: None where the cell cannot be compared with most of its budget.  splits: digest of the train rows that draws
    are taken from, and of the test cases; empty where these differ between draws.  drawn: for each seed a digest of
    these and of the rows that were drawn: equal draws can be paired.
    beside: of an oracle, the name of the row that it belongs to.
    """

    name: str
    method: Method
    budget: Budget
    metric: str
    scores: tuple[Score, ...]
    summary: Cell
    mark: Mark | None = ""
    splits: str = ""
    beside: str = ""
    drawn: Mapping[int, str] = field(default_factory=dict)

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

    @property
    def is_everything(self) -> bool:
        """Whether its draws took all labels, of which there is one draw."""
        return all(score.realised.get("everything", self.budget.is_everything) for score in self.scores)

    @property
    def how_drawn(self) -> str:
        """How its rows were drawn, in words: "stratified draws"."""
        return how_drawn(self.scores[0])

    def shares_draws(self, other: PanelCell) -> bool:
        """Say whether a cell at the same budget has a draw of the same rows, with the same test cases."""
        return bool(self.drawn.items() & other.drawn.items())

    @cached_property
    def by_seed(self) -> dict[int, float]:
        """The score of each draw."""
        return {score.seed: score.value for score in self.scores}

    @cached_property
    def n_labels(self) -> int:
        """Labels used, for whatever purpose: the mean over draws, rounded."""
        return round(sum(score.n_labels for score in self.scores) / len(self.scores))

    @cached_property
    def flags(self) -> tuple[str, ...]:
        """The flags of all of its draws, each once."""
        return tuple(dict.fromkeys(flag for score in self.scores for flag in score.flags))


@dataclass(frozen=True)
class Panel:
    """One dataset (or one dataset tested on another): its methods at every budget, in every stored metric.

    dataset, test_dataset: names with their settings.  title: also distinguishes different contents of one name.
    metric: the headline metric: the declared primary one, the task's, or the first that was scored.
    others: experiments of the dataset that are not shown.
    commands: the command that made each feature file, by fingerprint, where it is known.
    oracles: the single model with the best test score of each draw: shown in tables, in no chart and no ranking.
    declaration: the primary metric and budget, if they were declared; all else is exploratory.
    decisions: the rule that thresholds are chosen by, if the last run on the dataset asked for one.
    """

    dataset: str
    test_dataset: str
    title: str
    task: str
    class_names: tuple[str, ...]
    metric: str
    cells: tuple[PanelCell, ...]
    others: tuple[Experiment, ...] = ()
    commands: Mapping[str, str] = field(default_factory=dict)
    oracles: tuple[PanelCell, ...] = ()
    declaration: Declaration | None = None
    decisions: Decisions | None = None

    @property
    def metric_label(self) -> str:
        return METRICS[self.metric].label

    @cached_property
    def headline(self) -> tuple[PanelCell, ...]:
        """The cells of the headline metric, which charts show."""
        return tuple(cell for cell in self.cells if cell.metric == self.metric)

    @cached_property
    def names(self) -> tuple[str, ...]:
        """The methods: those with most labels first, then those that can be compared, then by mean, best first."""
        last = {cell.name: cell for cell in sorted(self.headline, key=lambda cell: cell.n_labels)}
        sign = -1 if METRICS[self.metric].greater_is_better else 1

        def rank(name: str) -> tuple[int, bool, float, str]:
            cell = last[name]
            return -cell.n_labels, cell.mark is None, sign * _sortable(cell.mean), name

        return tuple(sorted(last, key=rank))

    def curve(self, name: str) -> list[PanelCell]:
        """Return a method's headline cells, few labels first."""
        return self._curves.get(name, [])

    @cached_property
    def _curves(self) -> dict[str, list[PanelCell]]:
        found: dict[str, list[PanelCell]] = {}
        for cell in sorted(self.headline, key=lambda cell: cell.n_labels):
            found.setdefault(cell.name, []).append(cell)
        return found

    def most_draws(self, cell: PanelCell) -> int:
        """Return the largest number of draws that any method has at the cell's budget, in its metric."""
        return self._most[cell.budget, cell.metric]

    @cached_property
    def _most(self) -> dict[tuple[Budget, str], int]:
        found: dict[tuple[Budget, str], int] = {}
        for cell in self.cells:
            place = cell.budget, cell.metric
            found[place] = max(len(cell.scores), found.get(place, 0))
        return found


def collect(
    store: ScoreStore,
    *,
    datasets: Collection[str] = (),
    names: Sequence[str] = (),
    only: Collection[str] | None = None,
    catalog: Catalog | None = None,
) -> list[Panel]:
    """Return a panel for every dataset in the store, or for those named, with the experiments that are shown.

    names: experiments to show; if empty, those shown by default.  only: identities of scores; then all of their
    experiments are shown.  catalog: where the features are; their settings distinguish experiments.
    Scores of groups and subgroups are omitted.  Raises InputError if there is nothing to show.
    """
    origins = Origins(store, catalog)
    found = _found(store, origins, datasets, only)
    shown = asked_for(found, names) if only is None or names else found
    titles = data_titles(found)
    panels = []
    for data in sorted({one.data for one in shown}, key=lambda data: titles[data]):
        mine = [one for one in shown if one.data == data]
        others = [one for one in found if one.data.title == data.title and one not in shown]
        panel = _panel(store, titles[data], mine, others)
        panels.append(replace(panel, commands=_commands(panel, origins)))
    return panels


def stored_experiments(
    store: ScoreStore,
    *,
    datasets: Collection[str] = (),
    only: Collection[str] | None = None,
    catalog: Catalog | None = None,
) -> list[Experiment]:
    """Return the experiments in the store, of all datasets or of those named.  Raises InputError if there are none."""
    return _found(store, Origins(store, catalog), datasets, only)


def _commands(panel: Panel, origins: Origins) -> dict[str, str]:
    files = {
        str(kept["file"])
        for cell in panel.cells
        for several in cell.scores[0].fingerprints.values()
        for kept in several
    }
    return {file: command for file in sorted(files) if (command := origins.command(file))}


def _found(
    store: ScoreStore, origins: Origins, datasets: Collection[str], only: Collection[str] | None
) -> list[Experiment]:
    scores = [
        score
        for score in store.scores()
        if (score.level, score.by) == ("row", None)
        and score.metric in METRICS
        and (only is None or score.identity in only)
    ]
    if not scores and not datasets:
        raise InputError(f"No scores in {store.path}. Make them: mt probe")
    found = experiments(scores, origins)
    for name in datasets:
        if not any(_is_of(one, name) for one in found):
            there = ", ".join(sorted({one.dataset for one in found})) or "none"
            raise InputError(
                f"No scores of dataset '{name}' in {store.path}. There are: {there}. "
                f"Make them: mt probe --dataset {shlex.quote(name)}"
            )
    return among(one for one in found if any(_is_of(one, name) for name in datasets)) if datasets else found


def _is_of(one: Experiment, name: str) -> bool:
    """Say whether an experiment is of a dataset, named with its settings or without, by its place or as it is shown."""
    whole, stem = mapped_place(name, lambda place: Path(place).name), mapped_place(name, lambda place: Path(place).stem)
    names = (name, whole, stem)  # a table is called by its file's stem
    return name in (one.scores[-1].dataset, one.data.dataset) or any(is_named(one.dataset, None, n) for n in names)


def _panel(store: ScoreStore, title: str, shown: Sequence[Experiment], others: Sequence[Experiment]) -> Panel:
    outcome = store.fit(shown[-1].scores[-1].fit).outcome
    task, classes = str(outcome["task"]), tuple(map(str, outcome["class_names"]))
    shown_cells = _marked(store, [cell for one in shown for cell in _cells(store, one)])
    ordered = tuple(sorted(shown_cells, key=lambda cell: (cell.n_labels, cell.name, cell.metric)))
    names = shown[-1].dataset, shown[-1].test_dataset
    last = shown[-1].scores[-1].dataset
    oracles, stated = tuple(_oracles(store, ordered)), declared(last, store)
    shown_metrics = {cell.metric for cell in ordered}
    wanted = (*([stated.primary.metric] if stated else []), HEADLINE[task], *METRICS)
    metric = next(name for name in wanted if name in shown_metrics)
    return Panel(
        *names,
        title,
        task,
        classes,
        metric,
        ordered,
        tuple(others),
        oracles=oracles,
        declaration=stated,
        decisions=last_rule(last, store),
    )


def _oracles(store: ScoreStore, cells: Sequence[PanelCell]) -> Iterator[PanelCell]:
    """Yield the oracle that belongs to each best single model: the model that test labels would choose."""
    for cell in cells:
        if cell.method.method == "best-single":
            singles = {
                other.method.model: other.summary
                for other in cells
                if (other.budget, other.metric, other.method.method) == (cell.budget, cell.metric, "probe")
                and recipe_of(other.summary) == recipe_of(cell.summary)
            }
            found = oracle_of(cell.method.model, singles, store)
            if found is not None:
                method = replace(cell.method, method=ORACLE)
                name = f"{ORACLE} ({CHOSEN_BY}): {cell.method.model}"
                yield PanelCell(name, method, cell.budget, cell.metric, found.scores, found, beside=cell.name)


def _cells(store: ScoreStore, experiment: Experiment) -> list[PanelCell]:
    """Return an experiment's cells: one per budget and metric, with its draws."""
    places: dict[tuple[Budget, str], list[Score]] = {}
    for score in experiment.scores:
        places.setdefault((Budget(score.fraction, score.shots), score.metric), []).append(score)
    splits = store.splits(score.fit for score in experiment.scores)
    origins = store.origins(score.fit for score in experiment.scores)
    found = []
    for (budget, metric), scores in places.items():
        ((summary,),) = (table.cells.values() for table in score_tables(_by_seed(scores), store))
        own = {splits[score.fit] for score in summary.scores}
        found.append(
            PanelCell(
                experiment.name,
                experiment.method,
                budget,
                metric,
                summary.scores,
                summary,
                splits=own.pop() if len(own) == 1 else "",
                drawn={score.seed: origins[score.fit] for score in summary.scores},
            )
        )
    return found


def _by_seed(scores: Iterable[Score]) -> list[Score]:
    return sorted(scores, key=lambda score: score.seed)


def _marked(store: ScoreStore, found: Sequence[PanelCell]) -> list[PanelCell]:
    """Mark the best cell of each budget and metric, and those that are not significantly worse than it."""
    marked = []
    for metric in dict.fromkeys(cell.metric for cell in found):
        mine = [cell for cell in found if cell.metric == metric]
        grid = as_grid(mine)
        judged = {budget: marks(grid, budget, store) for budget in grid.budgets}
        marked += [replace(cell, mark=judged[cell.budget].get(cell.name, _unmarked(cell))) for cell in mine]
    return marked


def _unmarked(cell: PanelCell) -> Mark | None:
    """Return the mark of a cell that is not ranked: "" if its score is not defined, None if it cannot be compared."""
    return "" if math.isnan(cell.mean) else None


def as_grid(some: Sequence[PanelCell]) -> ScoreTable:
    """Return cells of one dataset and metric as the table that comparisons work on."""
    first = some[0].scores[0]
    places = {(cell.name, cell.budget): cell.summary for cell in some}
    return ScoreTable(Subject.of(first), places)


def _sortable(value: float) -> float:
    return -math.inf if math.isnan(value) else value
