"""From stored predictions to scores: the view (cases or groups, subgroups), the metric, its interval, the flags.

`Scorer` reads the scores that the store holds, and computes the others.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
from numpy.typing import ArrayLike

from mt.cache.names import digest
from mt.errors import InputError
from mt.probe.questions import Pair, Question
from mt.probe.scores import metrics
from mt.probe.scores.metrics import over_cases
from mt.probe.scores.sample import checked, predicted_class, units_of
from mt.results.store import Fit, Score, ScoreStore
from mt.types import FEW_GROUPS, FEW_UNITS, MISSING, Array, LabelledRows, ScoredRows

LEVEL = 0.95
LEAST_UNITS = 5  # of a class in a subgroup: with fewer, differences have no interval (paired tests on 2 reject 11 %)
REVISION = 7  # of views, intervals and flags; raised whenever their numbers change
_UNKNOWN = ("", "unknown", "NA", "N/A", "nan", "None", "null", "<NA>", ".")
# Columns that name patients or slides, in lower case without spaces and underscores: --level handles them, not --by.
_PATIENTS = ("patient", "patientid", "group", "subject", "subjectid", "case", "caseid", "slideid", "mrn")
_BINS = 4  # a numeric column with many values is cut at its quartiles


@dataclass(frozen=True)
class View:
    """Which predictions are scored: one per row or one per group, separately for each value of column `by`."""

    level: str = "row"
    by: str | None = None


def revision() -> dict[str, int]:
    """Return the revisions of our code that enter a score's identity beside those of its fit."""
    return {"metrics": metrics.REVISION, "scoring": REVISION}


def headline(pair: Pair) -> str:
    """Return a dataset's headline metric: the one that its features name, else the task's."""
    defined = metrics.metrics_for(pair.task)
    named = str(pair.train[0].manifest.get("metric"))
    return named if named in defined else defined[0]


def score_fit(question: Question, fit: Fit, cases: LabelledRows[None], metric: str, view: View) -> list[Score]:
    """Return the scores of one fit in one metric: one, or one per subgroup."""
    parts = views(fit.probabilities, cases, fit.outcome["task"], view, fold_of(fit))
    return [_score(question, fit, metric, view, name, part) for name, part in parts]


def fold_of(fit: Fit) -> Array | None:
    """Return the test fold of each case; None unless each fold has a model of its own."""
    fold = fit.outcome.get("test_fold")
    return None if fold is None else np.asarray(fold, dtype=np.int64)


def views(
    p: Array, cases: LabelledRows[None], task: str, view: View, fold: Array | None = None
) -> Iterator[tuple[str | None, ScoredRows]]:
    """Yield each subgroup's name (None for all cases) with its cases."""
    every = ScoredRows(cases, p, () if cases.groups is not None else ("cases assumed independent",), fold)
    parts = [(None, every)] if view.by is None else [(n, every.take(rows)) for n, rows in subgroups(cases, view.by)]
    for name, part in parts:
        yield name, by_group(part, task) if view.level == "group" else part


def by_group(cases: ScoredRows, task: str) -> ScoredRows:
    """Return one case per group: the mean probability, and the highest label among its cases (any positive).

    A label is missing if it is missing for all cases of the group.

    Raises InputError without groups, and in multiclass tasks if a group holds several classes.
    """
    if cases.groups is None:
        raise InputError(
            "--level group needs the patient or slide of every test case; these features have none. Use --level row"
        )
    names, group = np.unique(np.asarray(cases.groups), return_inverse=True)
    counts = np.bincount(group).astype(np.float64)
    p = np.zeros((len(names), *cases.p.shape[1:]))
    np.add.at(p, group, cases.p.astype(np.float64))
    p /= counts.reshape(-1, *[1] * (p.ndim - 1))
    y = np.full((len(names), *cases.y.shape[1:]), MISSING, dtype=cases.y.dtype)
    np.maximum.at(y, group, cases.y)
    if task == "multiclass" and (y[group] != cases.y).any():
        mixed = np.unique(group[y[group] != cases.y])
        raise InputError(
            f"--level group is not defined here: {len(mixed)} of {len(names)} test groups hold several classes (first "
            f"'{names[mixed[0]]}'), and without an order none of them stands for the group. Classes with an order take "
            "the highest: mt featurize --task ordinal. One prediction per image: --level row"
        )
    fold = None if cases.fold is None else cases.fold[np.unique(group, return_index=True)[1]]  # one per group
    return ScoredRows(LabelledRows(None, y, names.tolist()), p.astype(np.float32), fold=fold)


def subgroups(cases: LabelledRows[None], column: str) -> list[tuple[str, Array]]:
    """Return the name and the rows of every value of a column; numbers with many values are cut at their quartiles.

    Raises InputError for a column that does not exist, or that names patients.
    """
    if column.casefold().replace(" ", "").replace("_", "") in _PATIENTS:
        raise InputError(f"--by {column} would make a table per patient. One prediction per patient: --level group")
    found = {name.casefold(): name for name in cases.columns} | {name: name for name in cases.columns}
    name = found.get(column, found.get(column.casefold()))
    if name is None:
        known = ", ".join(sorted(cases.columns)) or "none"
        raise InputError(f"No column '{column}' in the test features. Columns: {known}")
    values = cases.columns[name]
    numbers = _numbers(values)
    if numbers is not None and len(np.unique(numbers[~np.isnan(numbers)])) > 2 * _BINS:
        return _quartiles(numbers)
    names = np.array(["unknown" if value is None or value == "" else str(value) for value in values])
    return [(str(name), np.flatnonzero(names == name)) for name in np.unique(names)]


def _numbers(values: Sequence[Any]) -> Array | None:
    """Return the numbers of a column, NaN for unknown values; None if a known value is not a number."""
    try:
        return np.array([np.nan if value is None or value in _UNKNOWN else float(value) for value in values])
    except (TypeError, ValueError):
        return None


def _draw_flags(outcome: Mapping[str, Any]) -> list[str]:
    """Return a flag if the draw lacks a class, or one of the two values of a label of a multilabel task."""
    several = outcome["task"] == "multilabel"
    lacked = outcome["realised"].get("constant" if several else "missing")
    return ["constant_label" if several else "missing_class"] if lacked else []


def fewest_units(cases: ScoredRows) -> int:
    """Return the number of units (groups, else cases) that hold the rarest class, or the rarest value of a label."""
    unit = units_of(len(cases.y), cases.groups)
    columns = [cases.y] if cases.y.ndim == 1 else list(cases.y.T)
    values = [(column, k) for column in columns for k in np.unique(column) if k != MISSING]
    return min((len(np.unique(unit[column == k])) for column, k in values), default=0)


def too_few(cases: ScoredRows) -> str:
    """Return why cases are too few to be compared; empty if they are not.

    Counts units of the rarest class; with several classes, all units.
    """
    several = cases.p.ndim == 2
    units = len(np.unique(units_of(len(cases.y), cases.groups))) if several else fewest_units(cases)
    kind = "cases" if cases.groups is None else "groups"
    return f"fewer than {LEAST_UNITS} test {kind}{'' if several else ' of the rarest class'}" * (units < LEAST_UNITS)


def _few_flags(cases: ScoredRows) -> list[str]:
    """Return the flags for few test groups, and for few test units of the rarest class (or label value)."""
    unit = units_of(len(cases.y), cases.groups)
    fewest = fewest_units(cases)
    kind = "cases" if cases.groups is None else "groups"
    flags = [f"fewer than {FEW_UNITS} test {kind} of the rarest class"] if fewest < FEW_UNITS else []
    if cases.groups is not None and len(np.unique(unit)) < FEW_GROUPS:
        flags.append(f"fewer than {FEW_GROUPS} test groups: the interval covers less often than it says")
    return flags


def _why_undefined(value: float, view: View, cases: ScoredRows) -> list[str]:
    """Return the flag that says why a score is not defined; none if it is."""
    if not np.isnan(value):
        return []
    if cases.y.ndim == 1 and len(np.unique(cases.y)) == 1:
        units = "groups (each has its highest label)" if view.level == "group" else "cases"
        return [f"not defined: all test {units} are of one class"]
    return ["not defined: too few classes among the test cases"]


def _quartiles(values: Array) -> list[tuple[str, Array]]:
    edges = np.unique(np.nanquantile(values, np.linspace(0, 1, _BINS + 1)))
    parts = []
    for low, high in itertools.pairwise(edges):
        last = high == edges[-1]
        inside = (values >= low) & ((values <= high) if last else (values < high))
        parts.append((f"{low:g} to {high:g}" if last else f"{low:g} to < {high:g}", np.flatnonzero(inside)))
    if np.isnan(values).any():
        parts.append(("unknown", np.flatnonzero(np.isnan(values))))
    return parts


def _score(question: Question, fit: Fit, metric: str, view: View, subgroup: str | None, cases: ScoredRows) -> Score:
    outcome = fit.outcome
    folds = () if cases.fold is None else (cases.fold,)
    value, interval = over_cases(metric, cases.y, [cases.p], groups=cases.groups, level=LEVEL, folds=folds)
    versions = {**outcome["versions"], **revision()}
    undefined = _why_undefined(value, view, cases)
    return Score(
        identity=digest({"fit": fit.identity, "metric": metric, **vars(view), "subgroup": subgroup, **revision()}),
        fit=fit.identity,
        dataset=question.pair.dataset,
        test_dataset=question.pair.test_dataset,
        model=question.pair.model,
        method=question.method,
        protocol=str(outcome["protocol"]),
        fraction=question.budget.fraction,
        shots=question.budget.shots,
        seed=question.seed,
        metric=metric,
        value=value,
        low=None if np.isnan(interval.low) else interval.low,
        high=None if np.isnan(interval.high) else interval.high,
        interval=interval.note,
        n_labels=int(outcome["n_labels"]),
        n_test=len(cases.y),
        n_units=interval.n_units,
        solver=str(outcome["solver"]),
        select=str(outcome["select"]),
        level=view.level,
        by=view.by,
        subgroup=subgroup,
        flags=(*outcome["flags"], *_draw_flags(outcome), *cases.flags, *_few_flags(cases), *undefined),
        settings=outcome["settings"],
        realised=outcome["realised"],
        fingerprints=question.pair.fingerprints,
        versions=versions,
    )


@dataclass(frozen=True)
class Subject:
    """One metric of one dataset, of all test cases or of one subgroup; level: one prediction per "row" or "group"."""

    dataset: str
    test_dataset: str
    metric: str
    level: str
    by: str | None = None
    subgroup: str | None = None

    @classmethod
    def of(cls, score: Score) -> Subject:
        return cls(score.dataset, score.test_dataset, score.metric, score.level, score.by, score.subgroup)

    @property
    def title(self) -> str:
        """The cases that are scored: the dataset, the test dataset if another, and the subgroup."""
        tested = "" if self.test_dataset == self.dataset else f", tested on {self.test_dataset}"
        return self.dataset + tested + (f", {self.by} = {self.subgroup}" if self.by else "")

    @property
    def family(self) -> tuple[str, str, str, str]:
        """The family of Holm's correction at one budget: the subject with all of its subgroups."""
        return self.dataset, self.test_dataset, self.metric, self.level


class Scorer:
    """Finds the scores of fits in the store, and computes those that are missing from the stored predictions.

    metrics: names, or empty for each task's headline.
    """

    def __init__(self, store: ScoreStore, metrics: Sequence[str] = (), view: View | None = None) -> None:
        self.store, self.metrics, self.view = store, metrics, view or View()
        self._cases: dict[str, LabelledRows[None]] = {}
        self.realised: dict[str, Mapping[str, Any]] = {}  # what the draws of stored fits got, by identity
        self._stored: dict[tuple[str, str], list[Score]] = {}
        self._made: dict[tuple[str, str, View], list[Score]] = {}

    def find(self, identities: Sequence[str]) -> None:
        """Read the stored scores of these fits that this revision computed in this view."""
        self._stored.clear()
        current = revision()
        for score in self.store.scores_of(identities):
            self.realised[score.fit] = score.realised
            same = all(score.versions.get(name) == value for name, value in current.items())
            if same and (score.level, score.by) == (self.view.level, self.view.by):
                self._stored.setdefault((score.fit, score.metric), []).append(score)

    def scores(self, question: Question, fit: Fit | None) -> list[Score]:
        """Return the scores of one question in all metrics, and store those that were missing.

        fit: the question's fit if it was just made; None reads it from the store.
        """
        found: list[Score] = []
        for metric in chosen_metrics(self.metrics, question.pair):
            scores = self._stored.get((question.identity, metric))
            if scores is None:
                scores = self._make(question, fit or self.store.fit(question.identity), metric, self.view)
                self.store.add_scores(scores)
            # The same fit may have been asked for under other names of the dataset or the model.
            pair = question.pair
            found += [
                replace(score, dataset=pair.dataset, test_dataset=pair.test_dataset, model=pair.model)
                for score in scores
            ]
        self._made.clear()
        return found

    def headline(self, question: Question, fit: Fit) -> list[Score]:
        """Return the scores of a new fit in its dataset's headline metric; stores nothing."""
        return self._make(question, fit, headline(question.pair), View())

    def _make(self, question: Question, fit: Fit, metric: str, view: View) -> list[Score]:
        key = fit.identity, metric, view
        if key not in self._made:
            if fit.cases not in self._cases:
                self._cases[fit.cases] = self.store.cases(fit.cases)
            self._made[key] = score_fit(question, fit, self._cases[fit.cases], metric, view)
        return self._made[key]


def chosen_metrics(asked: Sequence[str], pair: Pair) -> list[str]:
    """Return the metrics to show: those asked for that the task defines; the dataset's headline if none is asked for.

    "all" stands for every metric of the task, "headline" for the dataset's headline.
    """
    defined = metrics.metrics_for(pair.task)
    if not asked:
        return [headline(pair)]
    if "all" in asked:
        return list(defined)
    named = (headline(pair) if name == "headline" else name for name in asked)
    return [name for name in dict.fromkeys(named) if name in defined]


def check_metrics(asked: Sequence[str], pairs: Sequence[Pair]) -> None:
    """Raise InputError for a metric that is unknown, or not defined for any of the datasets' tasks."""
    for name in asked:
        tasks = sorted({pair.task for pair in pairs})
        if name != "all" and not set(metrics.get(name).tasks) & set(tasks):
            defined = ", ".join(sorted({metric for task in tasks for metric in metrics.metrics_for(task)}))
            raise InputError(f"Metric '{name}' is not defined for {', '.join(tasks)}. Defined: {defined}")


class FitRows(Protocol):
    """The rows that a pair's fits are made from and tested on: `mt.probe.run.Features`."""

    @property
    def pair(self) -> Pair: ...
    @property
    def pool(self) -> LabelledRows[None]: ...
    @property
    def cases(self) -> LabelledRows[None]: ...
    @property
    def shared_groups(self) -> int: ...


def row_flags(features: FitRows, p: Array) -> list[str]:
    """Return what a reader of the score should know about its data and its predictions."""
    flags = [
        word
        for flag, word in (("random", "random weights"), ("limited", "limited"))
        if flag in features.pair.train[0].flags
    ]
    if features.pool.groups is None:
        flags.append("no patient grouping known")
    if features.shared_groups:
        flags.append("groups shared with the test split")
    if collapsed(labels := features.cases.y, p) and (labels != labels[0]).any():
        flags.append("collapsed")
    return flags


def collapsed(y: ArrayLike, p: ArrayLike) -> bool:
    """Return whether all cases get the same prediction: one class or, in multilabel, the same set of labels."""
    labels, probabilities = checked(y, p)
    prediction = probabilities > 0.5 if labels.ndim == 2 else predicted_class(probabilities)
    return bool((prediction == prediction[0]).all())
