"""The epochs of training and of trials on a budget, and the number of images that they see.

Steps, not epochs, should hardly depend on the budget (BiT's rule, Kolesnikov et al., ECCV 2020): 400 sqrt(n) images are
40 epochs of 100 labels, 13 of 1,000 and 4 of 10,000.

Choosing costs less than training.  Trials are shorter than the schedule, but not much: at 1e-3 a network leaves its
start within 16 steps (on 100 digits, 0.10 of the cases were right then) and is the better one after 160 (0.95 against
0.92 at 3e-4), so a race over a tenth of the schedule would always prefer the lower rate.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from mt.fuse.end_to_end.choice.held_out import FIFTHS

_IMAGES, _LEAST, _MOST = 400, 3, 100  # per sqrt(label); epochs
_CHOOSING = 0.95  # images of all trials over those of the refit, at most
_SHORTEST = 0.3  # of the schedule: shorter trials do not show which rate is better


@dataclass(frozen=True)
class Schedule:
    """The epochs of the refit and of each trial, and the number of trials."""

    whole: int
    trial: int
    n_trials: int

    def images(self, n: int) -> tuple[int, int]:
        """Return the number of images seen for choosing and for training on n labels; a trial holds out a fifth."""
        return self.trial * self.n_trials * (n - n // FIFTHS), self.whole * n


def epochs_for(n: int) -> int:
    """Return the passes over a budget of n labels."""
    return min(_MOST, max(_LEAST, round(_IMAGES / math.sqrt(n))))


def schedule_for(n: int, epochs: int | None, *, n_candidates: int, n_fifths: int) -> Schedule:
    """Return the schedule of a budget of n labels; `epochs` is the refit's, if it was asked for.

    Every candidate is tried on the first fifth, and the best of them on each further one.
    """
    whole, n_trials = epochs or epochs_for(n), n_candidates + n_fifths - 1 if n_fifths else 0
    share = _CHOOSING / (max(n_trials, 1) * (1 - 1 / FIFTHS))
    return Schedule(whole, max(1, math.floor(whole * min(1.0, max(share, _SHORTEST)))), n_trials)
