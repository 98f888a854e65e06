"""Bags: several rows of one case become one row, in one pass over the rows; memory holds the pooled cases alone."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from mt.errors import InputError

if TYPE_CHECKING:
    import numpy as np

# What each rule joins, in order, along the dimensions.
_PARTS = {"mean": ("mean",), "max": ("max",), "mean+std": ("mean", "std"), "mean+max": ("mean", "max")}
RULES = tuple(_PARTS)
REVISION = 1  # of the pooled numbers
_AT_ONCE = 512  # rows in float64 at once: they stay in a core's cache


def width(dim: int, rule: str) -> int:
    """Return the dimensions of a pooled row."""
    return dim * len(_PARTS[rule])


@dataclass
class Pooler:
    """Pools rows that arrive in any order and in parts of any size; statistics are float64.

    The standard deviation is that of all rows of a case (n in the denominator), so that of one row is 0.  Means and
    squares of parts are merged as in Chan, Golub and LeVeque (1983).
    """

    n_bags: int
    dim: int
    rule: str
    _state: Mapping[str, np.ndarray] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        import numpy as np

        shape, parts = (self.n_bags, self.dim), _PARTS[self.rule]
        state = {"count": np.zeros(self.n_bags)}
        if "mean" in parts:
            state["mean"] = np.zeros(shape)
        if "std" in parts:
            state["squares"] = np.zeros(shape)
        if "max" in parts:
            state["max"] = np.full(shape, -np.inf)
        self._state = state

    def add(self, bags: np.ndarray, rows: np.ndarray) -> None:
        """Take in rows (m, dim) of the bags numbered in `bags` (m,)."""
        import numpy as np

        if not len(bags):
            return
        if (np.diff(bags) < 0).any():
            order = np.argsort(bags, kind="stable")
            bags, rows = bags[order], rows[order]
        edges = np.flatnonzero(np.r_[True, np.diff(bags) != 0, True])
        for start, stop in itertools.pairwise(edges.tolist()):
            for at in range(start, stop, _AT_ONCE):
                self._merge(int(bags[start]), rows[at : min(at + _AT_ONCE, stop)].astype(np.float64))

    def _merge(self, bag: int, rows: np.ndarray) -> None:
        """Merge some rows of one bag, which this may change."""
        import numpy as np

        state, n = self._state, len(rows)
        before = state["count"][bag]
        state["count"][bag] = total = before + n
        if "max" in state:
            np.maximum(state["max"][bag], rows.max(axis=0), out=state["max"][bag])
        if "mean" not in state:
            return
        mean = rows.sum(axis=0) / n
        shift = mean - state["mean"][bag]
        if "squares" in state:
            rows -= mean
            state["squares"][bag] += np.einsum("ij,ij->j", rows, rows) + np.square(shift) * (before * n / total)
        state["mean"][bag] += shift * (n / total)

    def result(self) -> np.ndarray:
        """Return the pooled rows, (n_bags, width) float32; a bag without rows is NaN."""
        import numpy as np

        state, count = self._state, self._state["count"][:, None]
        parts: dict[str, Callable[[], np.ndarray]] = {
            "mean": lambda: state["mean"],
            "max": lambda: state["max"],
            "std": lambda: np.sqrt(state["squares"] / np.maximum(count, 1)),
        }
        pooled = np.empty((self.n_bags, width(self.dim, self.rule)), dtype=np.float32)
        for number, name in enumerate(_PARTS[self.rule]):
            pooled[:, number * self.dim : (number + 1) * self.dim] = parts[name]()
        pooled[count[:, 0] == 0] = np.nan
        return pooled


def pooled(parts: Iterable[tuple[np.ndarray, np.ndarray]], n_bags: int, dim: int, rule: str) -> np.ndarray:
    """Return the pooled rows, (n_bags, width) float32, of parts: bag numbers (m,) and rows (m, dim).

    Raises InputError for a rule that does not exist.
    """
    check_rule(rule)
    pooler = Pooler(n_bags, dim, rule)
    for bags, rows in parts:
        pooler.add(bags, rows)
    return pooler.result()


def check_rule(rule: str) -> None:
    """Raise InputError for a rule that does not exist."""
    if rule not in _PARTS:
        raise InputError(f"No pooling '{rule}'. Expected: {', '.join(RULES)}.")
