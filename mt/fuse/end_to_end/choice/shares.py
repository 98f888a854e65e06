"""Choose the shares of the trained network and of its start, and the temperature, by held-out log loss."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from mt.fuse.dvme.problem import loss
from mt.fuse.end_to_end.blended import mix_logits

SHARES: tuple[float, ...] = (0.0, 0.25, 0.5, 0.75, 1.0)
# Temperatures from 1/4 to 4.  A few cases that are all predicted correctly would choose the lowest, so log T has a
# normal prior of standard deviation 1/2: it weighs as half a case whose loss is (2 log T)^2.
_TEMPERATURES = torch.logspace(-2, 2, 81, base=2, dtype=torch.float64)
_PRIOR = 2.0


@dataclass(frozen=True)
class Share:
    """The chosen share of the trained network and its temperature.

    losses: held-out log loss at every share.  cases: that of each case at the chosen one (n,).
    """

    share: float
    temperature: float
    losses: dict[str, float]
    cases: Tensor = field(default_factory=lambda: torch.zeros(0), compare=False)

    @property
    def loss(self) -> float:
        """The lowest held-out log loss."""
        return min(self.losses.values())


@dataclass(frozen=True)
class HeldOut:
    """Held-out cases of one fifth: the logits (n, outputs) of the start and of the trained network, and the labels.

    Fifths may know different classes, so their logits may differ in width.
    """

    start: Tensor
    trained: Tensor
    y: Tensor


def choose_share(fifths: Sequence[HeldOut], task: str) -> Share:
    """Choose the share with the lowest log loss over all held-out cases.

    The start is kept as it is: its share is 0 and its temperature 1.
    """
    found = {share: _calibrated(fifths, share, task) for share in SHARES}
    best = min(found, key=lambda share: (float(found[share][0].mean()), share))
    cases, temperature = found[best]
    losses = {f"{share:g}": float(each.mean()) for share, (each, _) in found.items()}
    return Share(best, temperature if best else 1.0, losses, cases)


def first_near_the_best(tried: Sequence[Share]) -> int:
    """Return the place of the first candidate whose held-out log loss is near the lowest.

    Near is at most one standard error of the paired difference above it, over the held-out cases (the rule of Breiman
    et al., Classification and Regression Trees, 1984).  Trials are shorter than the training that follows, which
    favours low rates: a lower one has to be better by more than chance.
    """
    best = min(range(len(tried)), key=lambda place: tried[place].loss)
    for place, one in enumerate(tried[:best]):
        above = one.cases - tried[best].cases
        if len(above) > 1 and float(above.mean()) <= float(above.std()) / len(above) ** 0.5:
            return place
    return best


def _calibrated(fifths: Sequence[HeldOut], share: float, task: str) -> tuple[Tensor, float]:
    """Return each case's log loss after temperature scaling (n,), and the temperature (Guo et al., ICML 2017)."""
    mixed = [(mix_logits(one.start, one.trained, share, task), one.y) for one in fifths]
    cases = torch.stack([torch.cat([loss(logits / T, y, task) for logits, y in mixed]) for T in _TEMPERATURES])
    penalty = (_PRIOR * _TEMPERATURES.log()).square() / (2 * cases.shape[1])
    best = int((cases.mean(dim=1) + penalty).argmin())
    return cases[best], float(_TEMPERATURES[best])
