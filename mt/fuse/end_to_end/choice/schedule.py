"""How long to train on a budget, how long to try, and how many images that is.

Steps, not epochs, should hardly depend on the budget (BiT's rule, Kolesnikov et al., ECCV 2020): 400 sqrt(n) images are
40 epochs of 100 labels, 13 of 1,000 and 4 of 10,000.  Choosing costs less than training: candidates run a tenth of the
schedule, and the winner alone all of it, on four fifths; where several fifths are needed to have 30 cases, each run is
shorter, but no shorter than half.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

_IMAGES, _LEAST, _MOST = 400, 3, 100  # per sqrt(label); epochs
_SHORT = 0.1  # of the schedule, for a candidate of the race


@dataclass(frozen=True)
class Schedule:
    """Epochs of the refit, of a candidate's trial, and of the runs that the share is chosen by.

    trial_rows: the share of the rows that a trial trains on; below 1 where a tenth of the schedule is not an epoch.
    """

    whole: int
    trial: int
    held_out: int
    trial_rows: float = 1.0

    def images(self, n: int, *, n_candidates: int, n_fifths: int) -> tuple[int, int]:
        """Return how many images are seen to choose, and to train: n labels, of which a fifth at a time is held out."""
        rest = n - n // 5
        trials = self.trial * math.ceil(rest * self.trial_rows) * n_candidates if n_candidates > 1 else 0
        return trials + self.held_out * n_fifths * rest, self.whole * n


def epochs_for(n: int) -> int:
    """Return the passes over a budget of n labels."""
    return min(_MOST, max(_LEAST, round(_IMAGES / math.sqrt(n))))


def schedule_for(n: int, epochs: int | None, *, n_fifths: int) -> Schedule:
    """Return the schedule of a budget of n labels; `epochs` is the refit's, if it was asked for."""
    whole = epochs or epochs_for(n)
    trial = whole * _SHORT
    return Schedule(whole, max(1, round(trial)), math.ceil(whole * max(1 / max(n_fifths, 1), 0.5)), min(trial, 1.0))
