"""What is planned for a budget before anything trains: the fifths to choose on, and the schedule."""

from __future__ import annotations

import math
from dataclasses import dataclass

from mt.fuse.end_to_end.choice.held_out import Rows, held_out
from mt.fuse.end_to_end.choice.schedule import Schedule, schedule_for
from mt.fuse.end_to_end.request import Settings
from mt.fuse.end_to_end.warm_start import Budget

PREDICTING = 1 / 3  # time of one pass of an image over that of a training step on it, which is about three passes


@dataclass(frozen=True)
class Effort:
    """What fits do at most: images to choose and train with, passes of test images through networks, starts to fit."""

    fits: int = 0
    images: int = 0
    passes: int = 0
    starts: int = 0

    def __add__(self, other: Effort) -> Effort:
        return Effort(
            self.fits + other.fits,
            self.images + other.images,
            self.passes + other.passes,
            self.starts + other.starts,
        )

    def minutes(self, rate: float, seconds_per_start: float) -> int:
        """Return the minutes that this takes, rounded up.  rate: training images per second."""
        return math.ceil(((self.images + PREDICTING * self.passes) / rate + self.starts * seconds_per_start) / 60)


@dataclass(frozen=True)
class Plan:
    """The fifths of a budget of n labels as rows to fit and to choose on, and the schedule.

    fixed: whether nothing is chosen.
    """

    n: int
    fifths: list[tuple[Rows, Rows]]
    schedule: Schedule
    fixed: bool

    @property
    def images(self) -> tuple[int, int]:
        """The images that choosing and training see at most."""
        return self.schedule.images(self.n)

    @property
    def networks(self) -> int:
        """How many networks predict at most: the trained ones, those of their trials, and the start."""
        trials = len(self.fifths) if self.schedule.keeps_trials else 0
        return self.schedule.refits * (1 + trials) + (0 if self.fixed else 1)

    def effort(self, n_cases: int) -> Effort:
        """Return what the fit does; n_cases: of the test split."""
        return Effort(1, sum(self.images), n_cases * self.networks, 1 + len(self.fifths))


def plan_for(budget: Budget, settings: Settings, *, task: str, n_classes: int, seed: int, n_candidates: int) -> Plan:
    """Return the plan of a budget; its embeddings are not looked at."""
    n = len(budget.y)
    fifths = [] if settings.fixed else held_out(budget, task=task, n_classes=n_classes, seed=seed)
    rest = max((len(rows) for rows, _ in fifths), default=None)
    n_candidates = 1 if settings.fixed else n_candidates
    schedule = schedule_for(n, settings.epochs, n_candidates=n_candidates, n_fifths=len(fifths), rest=rest)
    return Plan(n, fifths, schedule, settings.fixed)
