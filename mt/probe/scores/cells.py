"""The cells of a table: the draws of one method at one budget, with the two uncertainties apart.

Works for any method whose scores are in the store; what takes long is remembered there.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from mt.cache.fingerprint import digest
from mt.probe.questions import Budget
from mt.probe.scores import predictions
from mt.probe.scores.calibration import ece_facts
from mt.probe.scores.intervals import Spread, over_cases, over_draws, with_draws
from mt.probe.scores.metrics import METRICS, per_class
from mt.probe.scores.predictions import checked
from mt.probe.scores.scoring import LEVEL, REVISION, View, views
from mt.probe.scores.subject import Subject
from mt.results.store import Score, ScoreStore
from mt.types import ScoredRows


@dataclass(frozen=True)
class Cell:
    """Mean and standard deviation over draws, the interval of the mean over test cases, and that of both together.

    low, high: over test cases, None where there is no interval; `interval` says what it is, or why there is none.
    expected: the interval of the expected score over draws and test cases, None at one draw.
    if_calibrated: of an expected calibration error, what a calibrated model would have: the mean over draws.
    """

    scores: tuple[Score, ...]
    spread: Spread
    low: float | None
    high: float | None
    interval: str
    expected: Sequence[float] | None = None
    if_calibrated: float | None = None

    @property
    def flags(self) -> set[str]:
        return {flag for score in self.scores for flag in score.flags}


@dataclass(frozen=True)
class ScoreTable:
    """One table: the cells of one subject by (row, budget), in the order they were asked."""

    subject: Subject
    cells: dict[tuple[str, Budget], Cell]

    @property
    def rows(self) -> list[str]:
        return list(dict.fromkeys(row for row, _ in self.cells))

    @property
    def budgets(self) -> list[Budget]:
        return list(dict.fromkeys(budget for _, budget in self.cells))


def score_tables(scores: Iterable[Score], store: ScoreStore) -> list[ScoreTable]:
    """Return the tables that these scores make.

    Draws that took every row there is (a fraction that rounds up to all of them, enough shots) are one draw.
    """
    tables: dict[Subject, dict[tuple[str, Budget], list[Score]]] = {}
    for score in scores:
        place = row_name(score), Budget(score.fraction, score.shots)
        tables.setdefault(Subject.of(score), {}).setdefault(place, []).append(score)
    return [
        ScoreTable(subject, {place: _cell(_distinct(draws), store) for place, draws in cells.items()})
        for subject, cells in tables.items()
    ]


def row_name(score: Score) -> str:
    """Return what the row of a table is called: the model, or the method on several models."""
    return score.model if score.method == "probe" else f"{score.method}: {score.model}"


def scored(scores: Sequence[Score], store: ScoreStore) -> list[ScoredRows]:
    """Return the test cases and kept predictions that these scores, all of one view, were made from."""
    found = []
    for score in scores:
        fit = store.fit(score.fit)
        view = View(score.level, score.by)
        parts = dict(views(fit.probabilities, store.cases(fit.cases), fit.outcome["task"], view))
        found.append(parts[score.subgroup])
    return found


def json_row(score: Score, store: ScoreStore) -> dict[str, Any]:
    """Return a score as one JSON object, with what belongs beside it.

    A mean over classes comes with the score of each (null: left out of the mean), the expected calibration error with
    its debiased estimate and the mean and range of a calibrated model's.
    """
    if score.metric == "ece":
        return score.row() | _ece_facts(score, store)
    if METRICS[score.metric].mean_of is None:
        return score.row()
    key = digest({"per class": score.identity})
    found = store.recall(key)
    if found is None:
        (cases,) = scored([score], store)
        values = per_class(score.metric, cases.y, cases.p).tolist()
        names = store.fit(score.fit).outcome["class_names"]
        found = {name: None if value != value else value for name, value in zip(names, values, strict=True)}
        store.remember(key, found)
    return score.row() | {"per_class": found}


def _ece_facts(score: Score, store: ScoreStore) -> dict[str, Any]:
    """Return the debiased estimate of an expected calibration error, and what a calibrated model would have."""
    key = digest({"calibration": score.identity, "revision": REVISION})
    found = store.recall(key)
    if found is None:
        (cases,) = scored([score], store)
        debiased, expected = ece_facts(*checked(cases.y, cases.p))
        found = {
            "debiased": debiased,
            "if_calibrated": expected.value,
            "if_calibrated_95": [expected.low, expected.high],
        }
        store.remember(key, found)
    return dict(found)


def left_out(table: ScoreTable, store: ScoreStore) -> list[str]:
    """Return the names of the classes or labels that a mean leaves out: absent from the test cases, or in all."""
    if METRICS[table.subject.metric].mean_of is None:
        return []
    (score, *_), *_ = (cell.scores for cell in table.cells.values())
    key = digest({"left out": score.identity})
    found = store.recall(key)
    if found is None:
        (cases,) = scored([score], store)
        names = store.fit(score.fit).outcome["class_names"]
        found = [names[k] for k in predictions.left_out(cases.y, cases.p)]
        store.remember(key, found)
    return list(found)


def _distinct(draws: list[Score]) -> list[Score]:
    return draws[:1] if all(score.realised.get("everything") for score in draws) else draws


def _cell(draws: list[Score], store: ScoreStore) -> Cell:
    spread = over_draws([score.value for score in draws])
    calibrated = None
    if draws[0].metric == "ece":
        calibrated = sum(_ece_facts(score, store)["if_calibrated"] for score in draws) / len(draws)
    if len(draws) == 1:
        (score,) = draws
        return Cell((score,), spread, score.low, score.high, score.interval, if_calibrated=calibrated)
    key = digest({"interval of the mean": [score.identity for score in draws], "revision": REVISION})
    found = store.recall(key)
    if found is None:
        found = _over_draws_and_cases(draws, scored(draws, store))
        store.remember(key, found)
    return Cell(tuple(draws), spread, **found, if_calibrated=calibrated)


def _over_draws_and_cases(draws: list[Score], cases: list[ScoredRows]) -> dict[str, Any]:
    """Return the interval of the mean over test cases, and that of the expected score over draws as well."""
    predictions = [draw.p for draw in cases]
    _, found = over_cases(draws[0].metric, cases[0].y, predictions, groups=cases[0].groups, level=LEVEL)
    if found.reason:
        return {"low": None, "high": None, "interval": found.note, "expected": None}
    expected = with_draws(draws[0].metric, [score.value for score in draws], found.low, found.high)
    return {"low": found.low, "high": found.high, "interval": found.note, "expected": expected}
