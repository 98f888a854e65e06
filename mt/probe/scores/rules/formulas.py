"""Formulas of intervals: numbers in, low and high out."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np


def wilson(share: float, n: float, z: float) -> tuple[float, float]:
    """Return Wilson's interval of a share of n independent trials (n need not be whole)."""
    middle = (share + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z / (1 + z**2 / n) * np.sqrt(share * (1 - share) / n + z**2 / (4 * n**2))
    return min(share, max(0.0, float(middle - half))), max(share, min(1.0, float(middle + half)))


def logit(value: float, variance: float, t: float) -> tuple[float, float]:
    middle, half = np.log(value / (1 - value)), t * np.sqrt(variance) / (value * (1 - value))
    return float(1 / (1 + np.exp(half - middle))), float(1 / (1 + np.exp(-half - middle)))


def newcombe(value: float, m: int, n: int, z: float) -> tuple[float, float]:
    """Return the values θ for which the observed AUC is z standard errors off, by Hanley and McNeil's variance at θ."""
    more = (m + n) / 2 - 1

    def excess(theta: float) -> float:
        spread = theta * (1 - theta) / (m * n) * (1 + more * (1 - theta) / (2 - theta) + more * theta / (1 + theta))
        return float(abs(value - theta) - z * np.sqrt(max(spread, 0.0)))

    return _root(excess, value, 0.0), _root(excess, value, 1.0)


def _root(excess: Callable[[float], float], inside: float, outside: float) -> float:
    """Return where an excess that is negative near `inside` becomes positive on the way to `outside`, by bisection."""
    low, high = inside, outside
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if excess(middle) < 0 else (low, middle)
        if middle == inside:
            break
    return (low + high) / 2


def floored(value: float, t: float, n_units: int, lowest: float, highest: float, scale: float) -> tuple[float, float]:
    """Return an interval where the cases show no variance: that of two more units, one `scale` above, one below."""
    half = t * np.sqrt(2) * scale / (n_units + 2)
    return max(lowest, value - half), min(highest, value + half)
