"""Workers as the writing process sees them: which exist, what each holds, how fast each is."""

from __future__ import annotations

import statistics
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

from mt.featurize.engines.worker import Answer, PassTerms, Unit, WorkerFacts

WINDOW = 60.0  # seconds over which a rate is measured
FEW = 4  # workers whose rates are shown one by one
SLOW = 0.5  # share of the median rate; a slower worker is named


@dataclass(eq=False)
class Member:
    """One worker.  held: the time at which each unit that it holds was given, by number of pass and of unit."""

    name: str
    facts: WorkerFacts | None = None
    held: dict[tuple[int, int], float] = field(default_factory=dict)
    terms_known: int = -1  # the pass whose terms it knows
    _answered: deque[tuple[float, int]] = field(default_factory=deque)

    def ready(self, facts: WorkerFacts) -> None:
        """Record that the worker can be given units from now on."""
        self.facts = facts
        self._answered = deque([(time.monotonic(), 0)])

    def answered(self, rows: int) -> None:
        """Count rows that the worker computed."""
        now = time.monotonic()
        self._answered.append((now, rows))
        while len(self._answered) > 2 and now - self._answered[0][0] > WINDOW:
            self._answered.popleft()

    def rate(self) -> float:
        """Return images per second over the last WINDOW seconds."""
        if len(self._answered) < 2:
            return 0.0
        seconds = time.monotonic() - self._answered[0][0]
        return sum(rows for _, rows in list(self._answered)[1:]) / seconds if seconds > 0 else 0.0


@dataclass(frozen=True)
class Answered:
    """A worker computed a unit."""

    member: Member
    answer: Answer


@dataclass(frozen=True)
class Lost:
    """A worker ended; `why` says how."""

    member: Member
    why: str


class Crew(Protocol):
    """The workers of an engine, and how units reach them."""

    def members(self) -> Sequence[Member]:
        """Return the workers that can be given units now."""
        ...

    def give(self, member: Member, terms: PassTerms, unit: Unit) -> None:
        """Hand a unit to a worker."""
        ...

    def wait(self, seconds: float) -> list[Answered | Lost]:
        """Return the events of at most `seconds`; workers that ended are replaced if possible.

        Raises:
            MtError: a worker cannot do its work, or no worker can be started.
        """
        ...

    def close(self) -> None:
        """End all workers."""
        ...


def in_rates(members: Sequence[Member]) -> str:
    """Return the workers' rates: of up to FEW each; of more the range, and the slow ones by name."""
    rates = {member.name: member.rate() for member in members}
    if len(members) <= FEW:
        return ", ".join(f"{member.name} {member.rate():.1f}/s" for member in members)
    middle = statistics.median(rates.values())
    slow = [f"{name} {rate:.1f}/s" for name, rate in rates.items() if rate < SLOW * middle]
    line = f"{len(members)} workers, {min(rates.values()):.1f} to {max(rates.values()):.1f}/s each"
    return f"{line}; slow: {', '.join(slow[:FEW])}" if slow else line
