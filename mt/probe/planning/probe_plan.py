"""What `mt probe` would fit and what its scores can show, from labels and stored answers.

Nothing is fitted, no embedding is read, no image is opened, and nothing is written.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from mt.cache.catalog import Entry
from mt.errors import MtError
from mt.probe.planning.expected import CORRELATIONS, Counts, Expectation, expectations, refusal
from mt.probe.questions import Bagging, Budget, Pair, Question
from mt.probe.request import ProbeRequest
from mt.probe.run import Planned, plan_probe
from mt.probe.scores.declared import metrics_asked
from mt.probe.scores.metrics import METRICS
from mt.probe.scores.scoring import by_group, chosen_metrics
from mt.results.store import ScoreStore
from mt.system import files
from mt.types import MISSING, CaseFeatures, LabelledRows, ScoredRows


@dataclass(frozen=True)
class BudgetPlan:
    """One budget of one dataset: the labels of its first draw, and its fits.

    per_class: labels of each class, or positives of each label.  n_fits: one per draw and model; all test folds
    together count as one.  n_stored: those of them that are stored already.
    """

    budget: Budget
    n_labels: int
    per_class: tuple[int, ...]
    n_fits: int
    n_stored: int


@dataclass(frozen=True)
class DatasetPlan:
    """One dataset: its test cases, what each metric can show on them, and its budgets.

    counts: test cases of each class; units: patients (or cases) that hold it; rarest: the class with the fewest.
    expected: expectations by metric, empty for a metric without a formula or without an interval on these cases.
    refused: why a metric will have no interval, empty if it will have one.
    """

    dataset: str
    test_dataset: str
    class_names: tuple[str, ...]
    models: tuple[str, ...]
    n_cases: int
    n_units: int
    grouped: bool
    level: str
    counts: tuple[int, ...]
    units: tuple[int, ...]
    folds: str
    expected: dict[str, list[Expectation]]
    refused: dict[str, str]
    budgets: tuple[BudgetPlan, ...]

    @property
    def title(self) -> str:
        tested = "" if self.test_dataset == self.dataset else f", tested on {self.test_dataset}"
        return self.dataset + tested

    @property
    def rarest(self) -> int:
        """The number of the class that the fewest units hold, among the classes that occur."""
        there = [k for k, count in enumerate(self.counts) if count]
        return min(there, key=lambda k: (self.units[k], self.counts[k]), default=0)

    def rows(self) -> Iterator[dict[str, Any]]:
        """Yield the plan as JSON objects, one per budget and metric."""
        test = {
            "n_test": self.n_cases,
            "n_units": self.n_units,
            "grouped": self.grouped,
            "level": self.level,
            "test_cases": dict(zip(self.class_names, self.counts, strict=True)),
            "test_units": dict(zip(self.class_names, self.units, strict=True)),
            "rarest": self.class_names[self.rarest],
        }
        for one in self.budgets:
            for metric, expected in self.expected.items():
                yield {
                    "plan": self.title,
                    "dataset": self.dataset,
                    "test_dataset": self.test_dataset,
                    "test_folds": self.folds or None,
                    "models": list(self.models),
                    **vars(one.budget),
                    "n_labels": one.n_labels,
                    "labels": dict(zip(self.class_names, one.per_class, strict=True)),
                    "n_fits": one.n_fits,
                    "n_stored": one.n_stored,
                    "metric": metric,
                    **test,
                    "expected": [_expected(each) for each in expected],
                    "no_interval": self.refused[metric] or None,
                }


def _expected(one: Expectation) -> dict[str, Any]:
    found = {f"{rho:g}": value for rho, value in zip(CORRELATIONS, one.detectable, strict=True)}
    return {"score": one.score, "half_width": one.half_width, "detectable_at_correlation": found}


def plans(request: ProbeRequest) -> list[DatasetPlan]:
    """Return one plan per dataset of what a request would do.  Raises InputError and CacheError as running it would."""
    request = replace(request, metrics=metrics_asked(request))
    planned = plan_probe(request)
    with ScoreStore(files.scores_path(request.scores, planned.cache)) as store:
        stored = store.has_fits([question.identity for question in planned.questions])
    by_dataset: dict[tuple[str, str], list[Pair]] = {}
    for pair in planned.pairs:
        by_dataset.setdefault((pair.dataset, pair.test_dataset), []).append(pair)
    return [_plan(request, planned, pairs, stored) for pairs in by_dataset.values()]


def _plan(request: ProbeRequest, planned: Planned, pairs: Sequence[Pair], stored: set[str]) -> DatasetPlan:
    first = pairs[0]
    train = _rows(first.train[0], first.bagging)
    test = _test_rows(request, first, train)
    n_classes = len(train.class_names)
    counts = Counts.of(test.y, test.groups, n_classes)
    folds = planned.folded.folds if planned.folded else None
    names = {pair.model for pair in pairs}
    asked = [one for one in planned.questions if one.pair in pairs]
    shown = [metric for metric in chosen_metrics(request.metrics, first) if metric in METRICS]
    factor = 1.0 if folds is None else 1 + folds.k / (folds.k - 1)
    return DatasetPlan(
        first.dataset,
        first.test_dataset,
        train.class_names,
        tuple(sorted(names)),
        counts.n_cases,
        counts.n_units,
        test.groups is not None,
        request.level,
        tuple(counts.cases[:, 0].tolist()),
        tuple(counts.units[:, 0].tolist()),
        folds.name if folds else "",
        {metric: expectations(metric, counts, factor=factor) for metric in shown},
        {metric: refusal(metric, counts) for metric in shown},
        tuple(_budget(planned, train, test, budget, asked, stored) for budget in _budgets(asked)),
    )


def _budgets(questions: Sequence[Question]) -> list[Budget]:
    return list(dict.fromkeys(question.budget for question in questions))


def _budget(
    planned: Planned,
    train: CaseFeatures,
    test: LabelledRows[Any],
    budget: Budget,
    questions: Sequence[Question],
    stored: set[str],
) -> BudgetPlan:
    mine = [question for question in questions if question.budget == budget]
    n_stored = sum(question.identity in stored for question in mine)
    if planned.folded is None:
        realised = planned.draws.draw(train, budget, mine[0].seed).realised
        return BudgetPlan(budget, realised["n_rows"], tuple(realised["rows"]), len(mine), n_stored)
    k = planned.folded.folds.k  # each fold draws from the rows of the other k - 1
    held = Counts.of(test.y, None, len(train.class_names)).cases[:, 0]
    share = (k - 1) / k * (budget.fraction or 0.0)
    each = [budget.shots or round(share * count) for count in held.tolist()]
    total = sum(each) if test.y.ndim == 1 or budget.shots else round(share * len(test.y))
    return BudgetPlan(budget, total, tuple(each), len(mine), n_stored)


def _rows(entry: Entry, bagging: Bagging | None) -> CaseFeatures:
    """Open a feature file for its labels; no embedding is read."""
    from mt.probe.bags import BaggedFeatures
    from mt.probe.labelled import labelled

    file = entry.open()
    cases = file if bagging is None else BaggedFeatures(file, bagging)
    return labelled(cases) if entry.has_unlabelled else cases


def _test_rows(request: ProbeRequest, pair: Pair, train: CaseFeatures) -> LabelledRows[Any]:
    """Return the cases of the test split, or of all splits with test folds; one per group with --level group."""
    entries = [pair.test[0]] if not request.test_folds else [*pair.train, *pair.val, *pair.test]
    splits = [_rows(entry, pair.bagging) for entry in {entry.path: entry for entry in entries}.values()]
    y = np.concatenate([one.labels for one in splits])
    known = (y != MISSING).reshape(len(y), -1).any(axis=1)
    groups = None if splits[0].groups is None else [group for one in splits for group in one.groups or ()]
    rows = LabelledRows(None, y, groups).take(np.flatnonzero(known))
    if request.level == "row":
        return rows
    p = np.zeros(len(rows.y) if train.task == "binary" else (len(rows.y), len(train.class_names)))
    return by_group(ScoredRows(rows, p), train.task).rows


def internal_fits(request: ProbeRequest) -> tuple[int, int]:
    """Return how many fits the comparison with an internal test needs, and how many of them are stored."""
    try:
        planned = plan_probe(replace(request, test_dataset=None))
    except MtError:
        return 0, 0
    identities = [question.identity for question in planned.questions]
    with ScoreStore(files.scores_path(request.scores, planned.cache)) as store:
        return len(identities), len(store.has_fits(identities))
