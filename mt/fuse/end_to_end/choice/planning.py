"""What is planned for a budget before anything trains: the fifths to choose on, and the schedule."""

from __future__ import annotations

from dataclasses import dataclass

from mt.fuse.end_to_end.choice.held_out import Rows, held_out
from mt.fuse.end_to_end.choice.schedule import Schedule, schedule_for
from mt.fuse.end_to_end.request import Settings
from mt.fuse.end_to_end.warm_start import Budget


@dataclass(frozen=True)
class Plan:
    """The fifths of a budget of n labels as rows to fit and to choose on, and the schedule."""

    n: int
    fifths: list[tuple[Rows, Rows]]
    schedule: Schedule

    @property
    def images(self) -> tuple[int, int]:
        """The images that choosing and training see at most."""
        return self.schedule.images(self.n)


def plan_for(budget: Budget, settings: Settings, *, task: str, n_classes: int, seed: int, n_candidates: int) -> Plan:
    """Return the plan of a budget; its embeddings are not looked at."""
    n = len(budget.y)
    fifths = [] if settings.fixed else held_out(budget, task=task, n_classes=n_classes, seed=seed)
    rest = max((len(rows) for rows, _ in fifths), default=None)
    schedule = schedule_for(n, settings.epochs, n_candidates=n_candidates, n_fifths=len(fifths), rest=rest)
    return Plan(n, fifths, schedule)
