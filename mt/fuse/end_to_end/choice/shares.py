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
# Temperatures from 1/4 to 4.  A few cases that are all predicted correctly would choose the lowest, so log T has a
# normal prior of standard deviation 1/2: it weighs as half a case whose loss is (2 log T)^2.
_TEMPERATURES = torch.logspace(-2, 2, 81, base=2, dtype=torch.float64)
_PRIOR = 2.0


@dataclass(frozen=True)
class Share:
    """The chosen share of the trained network and its temperature.

    losses: held-out log loss at every share, after its temperature.  unscaled: that of the chosen share before; None
    without held-out rows.
    """

    share: float
    temperature: float
    losses: dict[str, float]
    unscaled: float | None = None

    @property
    def loss(self) -> float:
        """The lowest held-out log loss."""
        return min(self.losses.values())

    def scaling(self) -> dict[str, Any]:
        """Return the temperature, and the held-out log loss before and after it, as stored; empty if not known."""
        if self.unscaled is None:
            return {}
        after = self.loss if self.share else self.unscaled  # the start is kept as it is
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
    """Choose the share with the lowest log loss over all held-out cases.

    The start is kept as it is: its share is 0 and its temperature 1.
    """
    found = {share: _calibrated(fifths, share, task) for share in SHARES}
    best = min(found, key=lambda share: (found[share][0], share))
    temperature = found[best][1] if best else 1.0
    losses = {f"{share:g}": value for share, (value, _) in found.items()}
    return Share(best, temperature, losses, _unscaled(fifths, best, task))


def _unscaled(fifths: Sequence[HeldOut], share: float, task: str) -> float:
    """Return the log loss of a share without temperature scaling."""
    losses = [loss(mix_logits(one.start, one.trained, share, task), one.y, task).sum() for one in fifths]
    return float(sum(losses)) / sum(len(one.y) for one in fifths)


def _calibrated(fifths: Sequence[HeldOut], share: float, task: str) -> tuple[float, float]:
    """Return the log loss after temperature scaling, and the temperature (Guo et al., ICML 2017)."""
    mixed = [(mix_logits(one.start, one.trained, share, task), one.y) for one in fifths]
    n = sum(len(y) for _, y in mixed)
    losses = torch.stack(
        [torch.stack([loss(logits / T, y, task).sum() for logits, y in mixed]).sum() / n for T in _TEMPERATURES]
    )
    penalty = (_PRIOR * _TEMPERATURES.log()).square() / (2 * n)
    best = int((losses + penalty).argmin())
    return float(losses[best]), float(_TEMPERATURES[best])
