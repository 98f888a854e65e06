"""A fusion minus another row, from a paired comparison of the two."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Self

from mt.probe.scores.comparisons import Comparison
from mt.probe.scores.metrics import METRICS
from mt.report.panels import PanelCell


@dataclass(frozen=True)
class PairedGain:
    """A fusion minus another row on the same models, draws and test cases, positive where the fusion is better.

    p_holm: p adjusted for a family of differences, NaN without one.
    """

    fused: PanelCell
    base: PanelCell
    value: float
    low: float
    high: float
    draws: int
    p: float
    p_holm: float = math.nan

    @classmethod
    def of(cls, pair: Comparison, fused: PanelCell, base: PanelCell) -> Self:
        """Return the gain that a comparison of these two states."""
        pair = pair if pair.a == fused.name else pair.turned()
        if METRICS[fused.metric].greater_is_better:
            return cls(fused, base, pair.difference, pair.low, pair.high, pair.n_draws, pair.p)
        return cls(fused, base, -pair.difference, -pair.high, -pair.low, pair.n_draws, pair.p)
