"""The epochs of training and of trials on a budget, and the number of images that they see.

Steps, not epochs, should hardly depend on the budget (BiT's rule, Kolesnikov et al., ECCV 2020): 400 sqrt(n) images are
40 epochs of 100 labels, 13 of 1,000 and 4 of 10,000.

The two best candidates are trained on the whole budget, and choosing costs less than training: all trials together see
at most as many images.  Trials are shorter than the schedule, but not much where two candidates race on one or two
fifths: at 1e-3 a network leaves its start within 16 steps (on 100 digits, 0.10 of the cases were right then) and is the
better one after 160 (0.95 against 0.92 at 3e-4), so a tenth of the schedule would say nothing of its end.  Three and
more candidates race by successive halving (Jamieson and Talwalkar, AISTATS 2016): each round keeps the better half and
doubles the trials, until two are left.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from mt.fuse.end_to_end.choice.held_out import FIFTHS

_IMAGES, _LEAST, _MOST = 400, 3, 100  # per sqrt(label); epochs
_CHOOSING = 0.95  # images of the race and of one candidate's trials on further fifths, over those of one refit
_REFITS = 2  # candidates that are trained on the whole budget
LONG_ENOUGH = 1 / 3  # of the schedule, after which the network of a trial is worth keeping


@dataclass(frozen=True)
class Round:
    """A round of the race on the first fifth: how many candidates train, and for how many passes over its rows.

    passes: a whole number, or a share below 1 of one pass.
    """

    candidates: int
    passes: float


@dataclass(frozen=True)
class Schedule:
    """The epochs of a refit, and the rounds of the race; trials on further fifths have the passes of its last round.

    refits: the candidates that are left after the race.  further: the fifths on which each of them is tried after it.
    rest: the most rows that a trial fits on.
    """

    whole: int
    rounds: tuple[Round, ...]
    refits: int
    further: int
    rest: int

    @property
    def passes(self) -> float:
        """The passes of a trial in the last round, and on further fifths."""
        return self.rounds[-1].passes

    @property
    def keeps_trials(self) -> bool:
        """Whether trials are long enough for their networks to predict beside the trained ones."""
        return bool(self.rounds) and self.passes >= LONG_ENOUGH * self.whole

    def images(self, n: int) -> tuple[int, int]:
        """Return the number of images seen at most for choosing, and for training on n labels."""
        trials = [(one.candidates, one.passes) for one in self.rounds]
        trials += [(self.further * self.refits, self.passes)] if self.rounds else []
        choosing = sum(count * epochs_and_rows(passes, self.rest)[2] for count, passes in trials)
        return choosing, self.refits * self.whole * n


def epochs_for(n: int) -> int:
    """Return the passes over a budget of n labels."""
    return min(_MOST, max(_LEAST, round(_IMAGES / math.sqrt(n))))


def epochs_and_rows(passes: float, rows: int) -> tuple[int, int, int]:
    """Return the epochs of a trial, the rows it trains on, of those it may, and the images that it sees."""
    epochs, used = (int(passes), rows) if passes >= 1 else (1, max(1, math.floor(passes * rows)))
    return epochs, used, epochs * used


def schedule_for(n: int, epochs: int | None, *, n_candidates: int, n_fifths: int, rest: int | None = None) -> Schedule:
    """Return the schedule of a budget of n labels; `epochs` is the refit's, if it was asked for.

    The candidates race on the first fifth, and the best of them are tried on each further one.
    rest: the most rows that are left when a fifth is held out.
    """
    whole, rest, refits = epochs or epochs_for(n), rest or n - n // FIFTHS, min(_REFITS, n_candidates)
    if not n_fifths:
        return Schedule(whole, (), refits, 0, rest)
    for counts in (_halved(n_candidates), [n_candidates]):  # trials that would see no image are not halved
        lengths = [0.5**number for number in reversed(range(len(counts)))]  # of trials, over the last round's
        trials = sum(count * length for count, length in zip(counts, lengths, strict=True)) + n_fifths - 1
        nominal = whole * min(1.0, _CHOOSING / (trials * (1 - 1 / FIFTHS)))
        longest = min(nominal, whole * n / (trials * rest))  # groups may leave more than four fifths
        if longest * lengths[0] * rest >= 1:
            break
    rounds = [Round(count, _whole(longest * length)) for count, length in zip(counts, lengths, strict=True)]
    return Schedule(whole, tuple(rounds), refits, n_fifths - 1, rest)


def _halved(n: int) -> list[int]:
    """Return the candidates in each round: n, half of them, ... until at most two are left."""
    counts = [n]
    while counts[-1] > 2:
        counts.append(-(-counts[-1] // 2))
    return counts


def _whole(passes: float) -> float:
    return math.floor(passes) if passes >= 1 else passes
