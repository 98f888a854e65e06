"""The facts of one dataset that a paper states: cases by split and draw, exclusions, decisions, contrasts.

Exclusions, settings of features, and images and groups that two datasets share come from the feature files, if these
still exist; all else from the score database.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from mt.probe.contrasts.external import Drop, Overlap, overlaps
from mt.probe.contrasts.subgroups import SubgroupDifference
from mt.probe.decisions.decided import Decisions, thresholds
from mt.probe.decisions.out_of_fold import OutOfFold
from mt.report.contrast_sections import differences_of, drops_of
from mt.report.experiments import folds_of
from mt.report.panels import Panel, PanelCell
from mt.report.paper.flow import Flow
from mt.report.reproduce import models_of
from mt.results.store import ScoreStore
from mt.types import MISSING, LabelledRows

if TYPE_CHECKING:
    from mt.cache.catalog import Catalog, Entry

_UNKNOWN = (None, "", "unknown", "nan")
_MOST_VALUES = 8  # of a column that is counted value by value


@dataclass(frozen=True)
class Characteristics:
    """A column of table 1: one split, or one draw of the labels.  rows: (what, value) in words.

    unknown: (what, count) of labels that are not known, of a multilabel task, and of missing values per column.
    """

    name: str
    n_rows: int
    n_groups: int | None
    rows: tuple[tuple[str, str], ...]
    unknown: tuple[tuple[str, int], ...]


@dataclass(frozen=True)
class ChosenThresholds:
    """The thresholds of a dataset: the rule, how many there are, and the number of those absent by reason.

    In multilabel tasks each label of a fit has one.
    """

    decisions: Decisions
    n_chosen: int
    absent: Mapping[str, int]


@dataclass(frozen=True)
class Contrasts:
    """Differences between sets of test cases, in the headline metric.

    subgroups: those that were scored.  drops: internal minus external test.  shared: what the two datasets share; empty
    if a feature file is gone.
    """

    subgroups: tuple[SubgroupDifference, ...] = ()
    drops: tuple[Drop, ...] = ()
    shared: tuple[Overlap, ...] = ()


@dataclass(frozen=True)
class DatasetFacts:
    """What a paper states of one dataset.

    train: the rows that draws are taken from.  draws: all of all budgets.  thresholds: None if none were chosen.
    """

    panel: Panel
    train: Characteristics
    test: Characteristics
    draws: tuple[Characteristics, ...]
    flow: tuple[Flow, ...]
    entries: tuple[Entry, ...]
    crossed: bool
    contrasts: Contrasts
    thresholds: ChosenThresholds | None

    @property
    def title(self) -> str:
        return self.panel.title


def dataset_facts(store: ScoreStore, panel: Panel, catalog: Catalog | None = None) -> DatasetFacts:
    """Return the facts of one panel."""
    first = panel.headline[0]
    fit = store.fit(first.scores[0].fit)
    pool, cases = store.cases(fit.pool), store.cases(fit.cases)
    known = (
        {str(entry.fingerprints.get("file")): entry for entry in catalog.entries(everything=True)} if catalog else {}
    )
    files = _files(panel)
    return DatasetFacts(
        panel=panel,
        train=_characteristics("train", pool, panel),
        test=_characteristics("test", cases, panel),
        draws=tuple(_draws(store, panel)),
        flow=tuple(Flow.of(split, model, known.get(file)) for file, (split, model) in files.items()),
        entries=tuple(known[file] for file in files if file in known),
        crossed=fit.pool == fit.cases,
        contrasts=_contrasts(store, panel, known.values()),
        thresholds=_thresholds(store, panel),
    )


def _contrasts(store: ScoreStore, panel: Panel, entries: Iterable[Entry]) -> Contrasts:
    external = [score for cell in panel.headline for score in cell.scores if score.test_dataset != score.dataset]
    internal = [one for one in store.scores() if one.test_dataset == one.dataset] if external else []
    return Contrasts(
        tuple(differences_of(store, panel)),
        tuple(drops_of(store, panel)),
        tuple(overlaps(external, internal, entries)) if external else (),
    )


def _thresholds(store: ScoreStore, panel: Panel) -> ChosenThresholds | None:
    """Return the thresholds of the fits that are shown, by the rule that was last asked for on the dataset."""
    decisions = panel.decisions
    if decisions is None or decisions.rule is None:
        return None
    held, fits = OutOfFold(store), dict.fromkeys(score.fit for cell in panel.headline for score in cell.scores)
    found = [one for fit in fits for one in thresholds(decisions.rule, store.fit(fit), held)]
    absent = Counter(one.reason for one in found if one.value is None)
    return ChosenThresholds(decisions, len(found) - absent.total(), absent)


def _files(panel: Panel) -> dict[str, tuple[str, str]]:
    """Return the split and the backbone of each feature file that scores rest on, by its fingerprint."""
    return {
        str(kept["file"]): (split, model)
        for cell in panel.headline
        for split, several in cell.scores[0].fingerprints.items()
        for model, kept in zip(models_of(cell), several, strict=False)
    }


def _draws(store: ScoreStore, panel: Panel) -> Iterator[Characteristics]:
    """Yield each draw of each budget once: those of the first row that has them."""
    seen: set[tuple[str, int]] = set()
    for cell in panel.headline:
        for score in cell.scores:
            place = str(cell.budget), score.seed
            if place not in seen:
                seen.add(place)
                fit = store.fit(score.fit)
                drawn = store.cases(fit.pool).take(np.asarray(fit.rows))
                folds = ", all test folds" if folds_of(score) else ""
                yield _characteristics(f"{cell.budget}, draw {score.seed}{folds}", drawn, panel)


def _characteristics(name: str, rows: LabelledRows[None], panel: Panel) -> Characteristics:
    n = len(rows)
    found = [*_labels(rows, panel)]
    unknown = [("labels", int((rows.y == MISSING).sum()))] if rows.y.ndim == 2 else []
    for column, values in rows.columns.items():
        there = [value for value in values if value not in _UNKNOWN and value == value]
        unknown.append((column, n - len(there)))
        found += _column(column, there)
    groups = None if rows.groups is None else len({str(group) for group in rows.groups})
    return Characteristics(name, n, groups, tuple(found), tuple((what, count) for what, count in unknown if count))


def _labels(rows: LabelledRows[None], panel: Panel) -> Iterator[tuple[str, str]]:
    """Yield the share of cases of each class; of several labels, of known cases that hold each."""
    for k, name in enumerate(panel.class_names):
        if rows.y.ndim == 2:
            column = rows.y[:, k]
            yield name, _share(int((column == 1).sum()), int((column != MISSING).sum()))
        else:
            yield name, _share(int((rows.y == k).sum()), len(rows))


def _column(name: str, values: Sequence[Any]) -> Iterator[tuple[str, str]]:
    """Yield a column of numbers as median and quartiles, and a column of at most 8 different texts as shares."""
    try:
        numbers = np.array([float(value) for value in values])
    except (TypeError, ValueError):
        counts = Counter(map(str, values))
        if len(counts) <= _MOST_VALUES:
            yield from ((f"{name}: {value}", _share(count, len(values))) for value, count in sorted(counts.items()))
        return
    if len(numbers):
        low, middle, high = np.quantile(numbers, [0.25, 0.5, 0.75])
        yield f"{name}, median (quartiles)", f"{middle:g} ({low:g} to {high:g})"


def _share(count: int, of: int) -> str:
    return f"{count:,} ({count / of:.1%})" if of else "0"


def budgets_of(panel: Panel) -> dict[str, list[PanelCell]]:
    """Return the headline cells of each budget, few labels first."""
    found: dict[str, list[PanelCell]] = {}
    for cell in panel.headline:
        found.setdefault(str(cell.budget), []).append(cell)
    return found
