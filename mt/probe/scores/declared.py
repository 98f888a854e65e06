"""What was declared before the scores were known: the primary metric and budget; all other scores are exploratory.

A declaration is stored in the score database with its time and the number of its scores that existed then, so that a
reader can check that it came first.  A new declaration keeps the earlier ones.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Protocol

from mt.errors import InputError
from mt.probe.questions import Budget, Pair, budgets
from mt.probe.scores import metrics
from mt.probe.scores.scoring import Subject
from mt.results.store import Score, ScoreStore

if TYPE_CHECKING:
    from mt.probe.scores.comparisons import Comparison

PRIMARY, EXPLORATORY = "primary", "exploratory"
_BUDGET = re.compile(r"(?P<shots>\d+) ?shots|(?P<percent>[\d.]+) ?%|(?P<fraction>[\d.]+)")


@dataclass(frozen=True)
class Primary:
    """The metric and the budget that decide the question."""

    metric: str
    budget: Budget

    @classmethod
    def parsed(cls, text: str) -> Primary:
        """Read METRIC@BUDGET, where a budget is `0.01`, `1%` or `5shots`.  Raises InputError for other text."""
        metric, at, budget = text.strip().partition("@")
        found = _BUDGET.fullmatch(budget.strip())
        if not at or found is None:
            raise InputError(f"--primary is METRIC@BUDGET: roc_auc@0.01, roc_auc@1% or accuracy@5shots; got '{text}'.")
        metrics.get(metric)
        if found["shots"]:
            return cls(metric, budgets([], [int(found["shots"])])[0])
        try:
            share = float(found["fraction"]) if found["fraction"] else float(found["percent"]) / 100
        except ValueError:
            raise InputError(f"--primary {text}: expected a number after @, found '{budget}'") from None
        return cls(metric, budgets([share], [])[0])

    def __str__(self) -> str:
        return f"{self.metric} at {self.budget}"

    def check(self, fractions: Sequence[float], shots: Sequence[int]) -> None:
        """Raise InputError unless its budget is among those that are asked for."""
        asked = budgets(fractions, shots)
        if self.budget not in asked:
            add = f"--shots {self.budget.shots}" if self.budget.shots else f"--fraction {self.budget.fraction:g}"
            raise InputError(f"--primary {self}: the budgets are {', '.join(map(str, asked))}. Add this one: {add}")

    def role(self, subject: Subject, budget: Budget) -> str:
        """Return "primary" for scores of all test cases in this metric at this budget, else "exploratory"."""
        primary = subject.metric == self.metric and budget == self.budget and subject.by is None
        return PRIMARY if primary else EXPLORATORY


@dataclass(frozen=True)
class Declaration:
    """A primary metric and budget declared for a dataset.

    when: the time, in UTC.  n_before: the number of its scores that were stored by then.
    """

    primary: Primary
    when: str
    n_before: int

    @property
    def said(self) -> str:
        known = f"when {self.n_before} of its scores were stored" if self.n_before else "before any of its scores"
        return f"Primary: {self.primary}, declared {self.when}, {known}. All else is exploratory."

    def facts(self) -> dict[str, Any]:
        """Return the declaration as a JSON object."""
        budget = vars(self.primary.budget)
        return {"metric": self.primary.metric, **budget, "when": self.when, "n_before": self.n_before}


def declared(dataset: str, store: ScoreStore) -> Declaration | None:
    """Return the last declaration for a dataset; None without any."""
    found = declarations(dataset, store)
    return found[-1] if found else None


def role_of(score: Score, store: ScoreStore) -> dict[str, str]:
    """Return a score's role as JSON; empty where nothing was declared for its dataset."""
    found = declared(score.dataset, store)
    if found is None:
        return {}
    return {"role": found.primary.role(Subject.of(score), Budget(score.fraction, score.shots))}


def role_of_pair(pair: Comparison, store: ScoreStore) -> dict[str, str]:
    """Return the role of a comparison as JSON; empty where nothing was declared for its dataset."""
    found = declared(pair.subject.dataset, store) if pair.subject and pair.budget else None
    return {"role": found.primary.role(pair.subject, pair.budget)} if found and pair.subject and pair.budget else {}


def declare(primary: Primary, datasets: Iterable[str], store: ScoreStore) -> None:
    """Store a declaration for each dataset, unless its last one is the same."""
    for dataset in dict.fromkeys(datasets):
        earlier = declarations(dataset, store)
        if earlier and earlier[-1].primary == primary:
            continue
        n_before = sum(_is_of(score, dataset, primary) for score in store.scores())
        now = datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")
        kept = [one.facts() for one in (*earlier, Declaration(primary, now, n_before))]
        store.remember(_key(dataset), kept)


def declarations(dataset: str, store: ScoreStore) -> list[Declaration]:
    """Return all declarations for a dataset, oldest first."""
    return [
        Declaration(Primary(kept["metric"], Budget(kept["fraction"], kept["shots"])), kept["when"], kept["n_before"])
        for kept in store.recall(_key(dataset)) or ()
    ]


def _key(dataset: str) -> str:
    return f"declared: {dataset}"  # `ScoreStore.forget` keeps these


def _is_of(score: Score, dataset: str, primary: Primary) -> bool:
    place = score.dataset, score.metric, Budget(score.fraction, score.shots)
    return place == (dataset, primary.metric, primary.budget)


class Declaring(Protocol):
    """A request that may declare the primary metric and budget."""

    @property
    def primary(self) -> str | None: ...
    @property
    def metrics(self) -> Sequence[str]: ...
    @property
    def fractions(self) -> Sequence[float]: ...
    @property
    def shots(self) -> Sequence[int]: ...


def metrics_asked(request: Declaring) -> Sequence[str]:
    """Return the metrics of a request, including the primary one.

    Raises InputError if the primary budget is not among those asked for.
    """
    if request.primary is None:
        return request.metrics
    found = Primary.parsed(request.primary)
    found.check(request.fractions, request.shots)
    return tuple(dict.fromkeys([*request.metrics, found.metric]))


def declare_primary(request: Declaring, pairs: Sequence[Pair], store: ScoreStore) -> None:
    """Store what a request declares; call it before anything is fitted."""
    if request.primary is not None:
        declare(Primary.parsed(request.primary), [pair.dataset for pair in pairs], store)
