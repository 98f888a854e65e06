"""Differences between subgroups: a row's score at one value of a column minus its score at the other, or at the rest.

Two known values make one difference; with more, each value is compared with all other known values together.  Cases
whose value is unknown are omitted.  Beside the 95 % interval there is a simultaneous one, with Bonferroni's correction
over all differences of one dataset, budget and metric; p-values are adjusted by Holm over the same family.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from mt.cache.names import digest
from mt.probe.contrasts.difference import REVISION, Difference, difference
from mt.probe.questions import Budget
from mt.probe.scores.comparisons import holm
from mt.probe.scores.score_tables import ScoreTable
from mt.probe.scores.scoring import LEVEL, Subject, View, by_group, fold_of, subgroups
from mt.probe.scores.scoring import REVISION as OF_VIEWS
from mt.results.store import Fit, Score, ScoreStore
from mt.types import FEW_UNITS, Array, LabelledRows, ScoredRows

REST = "the rest"
_UNKNOWN = "unknown"


@dataclass(frozen=True)
class SubgroupDifference:
    """A row's score in subgroup `a` minus that in `b`, at one budget.

    subject: the column, without a subgroup.  simultaneous: the interval that, with 95 % confidence, holds for all
    `n_family` differences together.  p_holm: the p-value of no difference, adjusted over the family; NaN without one.
    """

    subject: Subject
    budget: Budget
    row_name: str
    a: str
    b: str
    found: Difference
    simultaneous: tuple[float, float] = (np.nan, np.nan)
    n_family: int = 1
    p_holm: float = float("nan")

    @property
    def flags(self) -> tuple[str, ...]:
        """What a reader should know: few cases, or the reason why there is no interval."""
        if self.found.reason:
            return (f"no interval: {self.found.reason}",)
        few = min(self.found.units) < FEW_UNITS
        kind = "cases" if self.found.independent else "groups"
        return (f"fewer than {FEW_UNITS} test {kind} of the rarest class",) if few else ()

    @property
    def shown(self) -> bool:
        """Whether a difference is shown: the simultaneous interval excludes 0."""
        low, high = self.simultaneous
        return low > 0 or high < 0

    def row(self) -> dict[str, Any]:
        """Return it as one flat JSON object; a number that is undefined is null."""
        found, (low, high) = self.found, self.simultaneous
        where = {name: value for name, value in vars(self.subject).items() if name != "subgroup"}
        numbers = {
            "score_a": found.a,
            "score_b": found.b,
            "difference": found.value,
            "low": found.low,
            "high": found.high,
            "low_simultaneous": low,
            "high_simultaneous": high,
            "p": found.p,
            "p_holm": self.p_holm,
        }
        return {
            "subgroup_difference": f"{self.a} - {self.b}",
            "row": self.row_name,
            **where,
            **vars(self.budget),
            **{name: None if value != value else value for name, value in numbers.items()},
            "n_draws": found.n_draws,
            "units": list(found.units),
            "shared_groups": found.shared,
            "independent": found.independent,
            "n_family": self.n_family,
            "flags": list(self.flags),
        }


def subgroup_differences(tables: Iterable[ScoreTable], store: ScoreStore) -> list[SubgroupDifference]:
    """Return the differences between the subgroups of these tables, of every row and budget."""
    families: dict[tuple[Any, ...], dict[tuple[str, Budget], tuple[Score, ...]]] = {}
    for table in tables:
        if table.subject.by is not None:
            places = families.setdefault((*table.subject.family, table.subject.by), {})
            for (row, budget), cell in table.cells.items():
                places.setdefault((row, budget), cell.scores)
    return [one for places in families.values() for one in _of_family(places, store)]


def _of_family(places: dict[tuple[str, Budget], tuple[Score, ...]], store: ScoreStore) -> Iterator[SubgroupDifference]:
    """Yield the differences of one metric by one column, corrected within each budget."""
    for budget in dict.fromkeys(budget for _, budget in places):
        rows = {row: scores for (row, b), scores in places.items() if b == budget}
        parts = {row: Parts.of(scores, store) for row, scores in rows.items()}
        contrasts = [(row, pair) for row, one in parts.items() for pair in one.pairs]
        plain = [_kept(rows[row], parts[row], pair, LEVEL, store) for row, pair in contrasts]
        adjusted = holm([one.p for one in plain])
        for (row, pair), found, p_holm in zip(contrasts, plain, adjusted, strict=True):
            subject = replace(Subject.of(rows[row][0]), subgroup=None)
            together = _kept(rows[row], parts[row], pair, 1 - (1 - LEVEL) / len(contrasts), store)
            ends = together.low, together.high
            yield SubgroupDifference(subject, budget, row, *pair, found, ends, len(contrasts), p_holm)


@dataclass(frozen=True, eq=False)
class Parts:
    """The test cases of a column's known values, and the pairs of values that are compared."""

    metric: str
    view: View
    scores: tuple[Score, ...]
    store: ScoreStore

    @classmethod
    def of(cls, scores: Sequence[Score], store: ScoreStore) -> Parts:
        return cls(scores[0].metric, View(scores[0].level, scores[0].by), tuple(scores), store)

    @property
    def pairs(self) -> list[tuple[str, str]]:
        """The names of both sides of each difference; empty if fewer than two values are known."""
        if len(self._rows) == 2:
            one, other = self._rows
            return [(one, other)]
        return [(name, REST) for name in self._rows] if self._rows else []

    def sides(self, pair: tuple[str, str]) -> tuple[list[ScoredRows], list[ScoredRows]]:
        """Return the cases of both sides, once per draw."""
        others = np.sort(np.concatenate([rows for name, rows in self._rows.items() if name != pair[0]]))
        fits = [self.store.fit(score.fit) for score in self.scores]
        one, other = ([self._side(fit, rows) for fit in fits] for rows in (self._rows[pair[0]], others))
        return one, other

    def _side(self, fit: Fit, rows: Array) -> ScoredRows:
        part = ScoredRows(self._cases, fit.probabilities, fold=fold_of(fit)).take(rows)
        return by_group(part, fit.outcome["task"]) if self.view.level == "group" else part

    @cached_property
    def _cases(self) -> LabelledRows[None]:
        return self.store.cases(self.store.fit(self.scores[0].fit).cases)

    @cached_property
    def _rows(self) -> dict[str, Array]:
        """The rows of each known value; empty if there is only one value."""
        found = {name: rows for name, rows in subgroups(self._cases, str(self.view.by)) if name != _UNKNOWN}
        return found if len(found) > 1 else {}


def _kept(scores: Sequence[Score], parts: Parts, pair: tuple[str, str], level: float, store: ScoreStore) -> Difference:
    """Return a difference from the store, or compute and store it."""
    names = {"scores": [score.fit for score in scores], "metric": parts.metric, **vars(parts.view)}
    key = digest({"subgroups": [*pair], "confidence": level, **names, "revisions": [REVISION, OF_VIEWS]})
    kept = store.recall(key)
    if kept is None:
        kept = vars(difference(parts.metric, *parts.sides(pair), level=level, tested=level == LEVEL))
        store.remember(key, kept)
    return Difference(**{**kept, "units": tuple(kept["units"])})
