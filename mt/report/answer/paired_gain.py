"""A fusion minus another row, from a paired comparison of the two."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Self

from mt.probe.scores.comparisons import Comparison
from mt.probe.scores.metrics import METRICS
from mt.report.panels import PanelCell
from mt.terminal.tables import interval_text


@dataclass(frozen=True)
class PairedGain:
    """A fusion minus another row on the same models, draws and test cases, positive where the fusion is better.

    p_holm: p adjusted for a family of differences, NaN without one.  reason: why there is no interval and no p.
    """

    fused: PanelCell
    base: PanelCell
    value: float
    low: float
    high: float
    draws: int
    p: float
    reason: str = ""
    p_holm: float = math.nan

    @property
    def base_score(self) -> float:
        """The mean of the other row over the draws that both have, which the gain adds to."""
        both = self.fused.drawn.items() & self.base.drawn.items()
        values = [self.base.by_seed[seed] for seed, _ in both]
        return sum(values) / len(values)

    @classmethod
    def of(cls, pair: Comparison, fused: PanelCell, base: PanelCell) -> Self:
        """Return the gain that a comparison of these two states."""
        pair = pair if pair.a == fused.name else pair.turned()
        better = METRICS[fused.metric].greater_is_better
        value, low, high = (
            (pair.difference, pair.low, pair.high) if better else (-pair.difference, -pair.high, -pair.low)
        )
        return cls(fused, base, value, low, high, pair.n_draws, pair.p, pair.reason)

    @property
    def said(self) -> str:
        """The gain and its 95 % interval, or why there is none: `+0.030 [-0.010, +0.080]`."""
        return interval_text(self.value, self.low, self.high, self.reason)
