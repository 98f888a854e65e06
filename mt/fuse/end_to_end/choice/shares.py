"""Choose the shares of the trained network and of its start, and the temperature, by held-out log loss."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from mt.fuse.dvme.problem import loss
from mt.fuse.end_to_end.blended import mix_logits

SHARES: tuple[float, ...] = (0.0, 0.25, 0.5, 0.75, 1.0)
LEAST = 0.5  # share of the trained network, unless a smaller one is clearly better
ERRORS = 2.0
# Temperatures from 1/4 to 4.  A few cases that are all predicted correctly would choose the lowest, so log T has a
# normal prior of standard deviation 1/2: it weighs as half a case whose loss is (2 log T)^2.
_TEMPERATURES = torch.logspace(-2, 2, 81, base=2, dtype=torch.float64)
_PRIOR = 2.0


@dataclass(frozen=True)
class Share:
    """The chosen share of the trained network and its temperature.

    losses: mean held-out log loss at every share, after its temperature.  unscaled: that of the chosen share before;
    None without held-out rows.
    """

    share: float
    temperature: float
    losses: dict[str, float]
    unscaled: float | None = None

    @property
    def lowest(self) -> float:
        """The lowest held-out log loss of any share."""
        return min(self.losses.values())

    def scaling(self) -> dict[str, Any]:
        """Return the temperature, and the held-out log loss before and after it, as stored; empty if not known."""
        if self.unscaled is None:
            return {}
        after = self.losses[f"{self.share:g}"] if self.share else self.unscaled  # the start is kept as it is
        return {"scaling": {"temperature": self.temperature, "log_loss": [self.unscaled, after]}}


@dataclass(frozen=True)
class HeldOut:
    """Held-out cases of one fifth: the logits (n, outputs) of the start and of the trained network, and the labels.

    Fifths may know different classes, so their logits may differ in width.
    """

    start: Tensor
    trained: Tensor
    y: Tensor


def choose_share(fifths: Sequence[HeldOut], task: str) -> Share:
    """Choose the share with the lowest log loss over all held-out cases; one below LEAST only if it is clearly better.

    In a trial the network learns from fewer cases, and for a shorter time, than in the training that follows, and the
    start does not: so a few held-out cases that prefer the start by chance cost the gain of training.  The start is
    kept as it is: its share is 0 and its temperature 1.
    """
    found = {share: _calibrated(fifths, share, task) for share in SHARES}
    means = {share: float(losses.mean()) for share, (losses, _) in found.items()}
    in_order = sorted(SHARES, key=lambda share: (means[share], share))
    best, enough = in_order[0], next(share for share in in_order if share >= LEAST)
    chosen = best if _is_clear(found[enough][0] - found[best][0]) else enough
    temperature = found[chosen][1] if chosen else 1.0
    losses = {f"{share:g}": mean for share, mean in means.items()}
    return Share(chosen, temperature, losses, _unscaled(fifths, chosen, task))


def _is_clear(more: Tensor) -> bool:
    """Return whether log losses (n,) that are higher by `more` are so by ERRORS standard errors, and by enough in all.

    Where both networks have every case right, differences in certainty are small and alike: 30 cases that lose 0.01
    each are many standard errors, and a likelihood ratio of 1.3.  So that ratio must be as high as the one of a normal
    mean that is ERRORS standard errors away, exp(ERRORS^2 / 2).  The labels of a multilabel case count as one.
    """
    if len(more) < 2:
        return False
    error = float(more.std()) / len(more) ** 0.5
    return float(more.mean()) > ERRORS * error and float(more.sum()) > ERRORS**2 / 2


def _unscaled(fifths: Sequence[HeldOut], share: float, task: str) -> float:
    """Return the log loss of a share without temperature scaling."""
    return float(_losses(_mixed(fifths, share, task), 1.0, task).mean())


def _calibrated(fifths: Sequence[HeldOut], share: float, task: str) -> tuple[Tensor, float]:
    """Return the log loss of every case (n,) after temperature scaling, and the temperature (Guo et al., ICML 2017)."""
    mixed = _mixed(fifths, share, task)
    by_temperature = torch.stack([_losses(mixed, float(T), task) for T in _TEMPERATURES])
    penalty = (_PRIOR * _TEMPERATURES.log()).square() / (2 * by_temperature.shape[1])
    best = int((by_temperature.mean(dim=1) + penalty).argmin())
    return by_temperature[best], float(_TEMPERATURES[best])


def _mixed(fifths: Sequence[HeldOut], share: float, task: str) -> list[tuple[Tensor, Tensor]]:
    """Return each fifth's mixed logits and labels."""
    return [(mix_logits(one.start, one.trained, share, task), one.y) for one in fifths]


def _losses(mixed: Sequence[tuple[Tensor, Tensor]], temperature: float, task: str) -> Tensor:
    """Return the log loss of every held-out case (n,)."""
    return torch.cat([loss(logits / temperature, y, task).double() for logits, y in mixed])
