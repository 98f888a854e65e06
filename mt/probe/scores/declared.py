"""What was declared before looking: the primary metric and budget; all else is exploratory.

A declaration is kept in the score database, with its time and how many of its scores were there already, so that nobody
has to take the word for it.  Declaring another one keeps the earlier ones.
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
    """The metric and the budget that a question is decided by."""

    metric: str
    budget: Budget

    @classmethod
    def parsed(cls, text: str) -> Primary:
        """Read METRIC@BUDGET: a budget is `0.01`, `1%` or `5shots`.  Raises InputError."""
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
            raise InputError(f"--primary {self}: the budgets are {', '.join(map(str, asked))}. Add its own: {add}")

    def role(self, subject: Subject, budget: Budget) -> str:
        """Return whether a score is the primary one: of all test cases, in this metric at this budget."""
        primary = subject.metric == self.metric and budget == self.budget and subject.by is None
        return PRIMARY if primary else EXPLORATORY


@dataclass(frozen=True)
class Declaration:
    """A primary as it was declared for a dataset: when, and how many of its scores were stored by then."""

    primary: Primary
    when: str
    n_before: int

    @property
    def said(self) -> str:
        known = f"when {self.n_before} of its scores were stored" if self.n_before else "before any of its scores"
        return f"Primary: {self.primary}, declared {self.when}, {known}. All else is exploratory."

    def facts(self) -> dict[str, Any]:
        """Return it as JSON."""
        budget = vars(self.primary.budget)
        return {"metric": self.primary.metric, **budget, "when": self.when, "n_before": self.n_before}


def declared(dataset: str, store: ScoreStore) -> Declaration | None:
    """Return what was declared last for a dataset."""
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
    """Keep a declaration for each dataset, unless its last one is the same."""
    for dataset in dict.fromkeys(datasets):
        earlier = declarations(dataset, store)
        if earlier and earlier[-1].primary == primary:
            continue
        n_before = sum(_is_of(score, dataset, primary) for score in store.scores())
        now = datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")
        kept = [one.facts() for one in (*earlier, Declaration(primary, now, n_before))]
        store.remember(_key(dataset), kept)


def declarations(dataset: str, store: ScoreStore) -> list[Declaration]:
    """Return what was declared for a dataset, the last one last."""
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
    """A request that may declare what decides."""

    @property
    def primary(self) -> str | None: ...
    @property
    def metrics(self) -> Sequence[str]: ...
    @property
    def fractions(self) -> Sequence[float]: ...
    @property
    def shots(self) -> Sequence[int]: ...


def metrics_asked(request: Declaring) -> Sequence[str]:
    """Return the metrics of a request, the primary one included.  Raises InputError for a budget that is not asked."""
    if request.primary is None:
        return request.metrics
    found = Primary.parsed(request.primary)
    found.check(request.fractions, request.shots)
    return tuple(dict.fromkeys([*request.metrics, found.metric]))


def declare_primary(request: Declaring, pairs: Sequence[Pair], store: ScoreStore) -> None:
    """Keep what a request declares, before anything is fitted."""
    if request.primary is not None:
        declare(Primary.parsed(request.primary), [pair.dataset for pair in pairs], store)
