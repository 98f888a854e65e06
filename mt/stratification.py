"""Stratification that never splits a group: orders whose every prefix is stratified, and splits into parts.

Two algorithms, both deterministic in their seed and built on NumPy's PCG64 uniforms alone:

- One label per row: Sainte-Laguë's order (the Webster apportionment).  The j-th row of a class of n rows comes at time
  (j + 1/2) / n, so each prefix holds the classes in proportion, within about one row.
- Several labels per row, or groups of rows: iterative stratification (Sechidis, Tsoumakas and Vlahavas, "On the
  Stratification of Multi-Label Data", ECML PKDD 2011) on the label-count vector of each unit, a unit being a row or a
  whole group.  An order comes from halving the units again and again.

Multilabel rows that hold no label are treated as holding one more label, "none": Sechidis et al. deal them at random.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mt.types import Groups, Texts, sortable

Ints = NDArray[np.int64]

# Inside an order, halving stops at pieces this much smaller than what comes before them.
_RESOLUTION = 64


def stratified_parts(labels: ArrayLike, groups: Groups | None, fractions: Sequence[float], seed: int) -> Ints:
    """Return the part number of every row, (n,): each part holds its fraction of every label, and no group is split.

    `labels` is (n,) classes or (n, L) zeros and ones; `groups` names the group of each row.  Fractions are
    normalised to sum to one.  With one class per row and no groups, a part with share s of P parts has less than one
    row of each class too few, and at most 1/2 + s (P/2 - 1) rows too many.  Raises ValueError for a fraction that is
    not positive.
    """
    if not len(fractions) or min(fractions) <= 0:
        raise ValueError(f"fractions must be positive, got {list(fractions)}")
    counts, unit = unit_counts(label_matrix(labels), groups)
    shares = np.asarray(fractions, dtype=np.float64)
    return _deal(counts, shares / shares.sum(), np.random.default_rng(seed))[unit]


def stratified_order(labels: ArrayLike, seed: int) -> Ints:
    """Return an order of rows with one class each (n,), every prefix of which is stratified within about one row."""
    _, classes, sizes = np.unique(np.asarray(labels), return_inverse=True, return_counts=True)
    shuffled = _shuffle(len(classes), np.random.default_rng(seed))
    by_class = shuffled[np.argsort(classes[shuffled], kind="stable")]
    place_in_class = np.arange(len(classes)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    time = (place_in_class + 0.5) / np.repeat(sizes, sizes)
    place = np.empty_like(shuffled)
    place[shuffled] = np.arange(len(shuffled))
    tie_breaker = place[by_class]
    return np.asarray(by_class[np.lexsort((tie_breaker, time))], dtype=np.int64)


def iterative_order(counts: ArrayLike, seed: int) -> Ints:
    """Return an order of units, every prefix of which holds its share of every label.

    `counts` is (n_units, L): the number of rows with each label in a unit.  The units are halved by iterative
    stratification, a coin decides which half comes first, and the halves are halved in turn.  At the start of the order
    halving ends at single units; later it ends at pieces of 1/64 of the units before them, whose order is random.
    """
    table = np.asarray(counts, dtype=np.int64)
    rng = np.random.default_rng(seed)
    order: list[Ints] = []
    start, pending = 0, [_shuffle(len(table), rng)]
    while pending:
        units = pending.pop()
        if len(units) > max(1, start // _RESOLUTION):
            side = _deal(table[units], np.array([0.5, 0.5]), rng)
            halves = [units[side == 0], units[side == 1]]
            if not (len(halves[0]) and len(halves[1])):
                halves = np.array_split(units, 2)
            pending += halves if rng.random() < 0.5 else halves[::-1]
        else:
            order.append(units)
            start += len(units)
    return np.concatenate(order) if order else np.empty(0, dtype=np.int64)


def label_matrix(labels: ArrayLike) -> Ints:
    """Return one column per label: classes (n,) one-hot, or multilabel (n, L) with a last column for "no label"."""
    table = np.asarray(labels)
    if table.ndim == 1:
        classes, column = np.unique(table, return_inverse=True)
        matrix = np.zeros((len(table), len(classes)), dtype=np.int64)
        matrix[np.arange(len(table)), column] = 1
        return matrix
    positive = (table > 0).astype(np.int64)
    return np.hstack([positive, 1 - positive.max(axis=1, initial=0, keepdims=True)])


def unit_counts(matrix: Ints, groups: Groups | None) -> tuple[Ints, Ints]:
    """Return the label counts of each unit (n_units, L) and the unit of each row: the groups, or else the rows."""
    if groups is None:
        return matrix, np.arange(len(matrix))
    names, unit = np.unique(sortable(groups) if isinstance(groups, Texts) else groups, return_inverse=True)
    if len(unit) != len(matrix):
        raise ValueError(f"expected one group per row: {len(matrix)} rows, found {len(unit)} groups")
    counts = np.zeros((len(names), matrix.shape[1]), dtype=np.int64)
    np.add.at(counts, unit, matrix)
    return counts, unit.astype(np.int64)


def _deal(counts: Ints, shares: NDArray[np.float64], rng: np.random.Generator) -> Ints:
    """Deal units into parts by iterative stratification; return the part of each unit.

    Units with the same counts are interchangeable: whole multiples of the shares are dealt at once, at random, and
    only the remaining units are dealt one at a time: rarest label first, largest unit first.
    """
    n_parts = len(shares)
    part = np.full(len(counts), -1, dtype=np.int64)
    shuffled = _shuffle(len(counts), rng)
    _deal_equal_units(counts, shares, shuffled, part)
    dealt = part >= 0
    wanted = np.outer(shares, counts.sum(axis=0))
    np.subtract.at(wanted, part[dealt], counts[dealt])
    wanted_units = shares * len(counts) - np.bincount(part[dealt], minlength=n_parts)
    _deal_one_by_one(counts, shuffled[~dealt[shuffled]], part, _Parts(shares, wanted, wanted_units), rng)
    return part


def _deal_equal_units(counts: Ints, shares: NDArray[np.float64], shuffled: Ints, part: Ints) -> None:
    """Deal floor(share x number) of each kind of unit to each part, into `part`."""
    _, kind = np.unique(_row_keys(counts), return_inverse=True)
    by_kind = shuffled[np.argsort(kind[shuffled], kind="stable")]
    sizes = np.bincount(kind)
    place = np.arange(len(counts)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    # The small addition keeps 10 x 0.1 from rounding down to 0.
    quota_ends = np.cumsum(np.floor(np.outer(sizes, shares) + 1e-9).astype(np.int64), axis=1)
    ends = np.repeat(quota_ends, sizes, axis=0)
    dealt_to = (place[:, None] >= ends).sum(axis=1)
    part[by_kind] = np.where(dealt_to < len(shares), dealt_to, -1)


class _Parts:
    """What each part still wants: rows of each label, and units."""

    def __init__(self, shares: NDArray[np.float64], wanted: NDArray[np.float64], units: NDArray[np.float64]) -> None:
        self.shares: list[float] = shares.tolist()
        self.wanted: list[list[float]] = wanted.tolist()
        self.units: list[float] = units.tolist()

    def choose(self, held: list[tuple[int, int]], coin: float) -> int:
        """Return the part with the greatest desire for a unit's labels in turn, then for units; a coin decides ties.

        The desire for `amount` rows of a label is (wanted - amount / 2) / share: with equal shares the most wanted
        rows, as in Sechidis et al.; with unequal ones that which lowers the sum of (wanted)² / share the most.
        """
        best = list(range(len(self.shares)))
        for label, amount in held:
            desire = [(self.wanted[part][label] - amount / 2) / self.shares[part] for part in best]
            most = max(desire) - 1e-9
            best = [part for part, value in zip(best, desire, strict=True) if value >= most]
            if len(best) == 1:
                return best[0]
        desire = [(self.units[part] - 0.5) / self.shares[part] for part in best]
        most = max(desire) - 1e-9
        best = [part for part, value in zip(best, desire, strict=True) if value >= most]
        return best[int(coin * len(best))]

    def give(self, part: int, held: list[tuple[int, int]]) -> None:
        """Subtract a unit's rows from what the part wants."""
        wanted = self.wanted[part]
        for label, amount in held:
            wanted[label] -= amount
        self.units[part] -= 1


def _deal_one_by_one(counts: Ints, units: Ints, part: Ints, parts: _Parts, rng: np.random.Generator) -> None:
    """Deal `units` in their order, into `part`: rarest label first, units with more rows of it before smaller ones."""
    waiting = np.ones(len(units), dtype=bool)
    table = counts[units]
    coins = rng.random(len(units)).tolist()
    while waiting.any():
        left = (table[waiting] > 0).sum(axis=0)
        label = int(np.argmin(np.where(left > 0, left, len(units) + 1)))
        turn = np.flatnonzero(waiting & (table[:, label] > 0) if left.any() else waiting)
        # Large units first balances better; comparing powers of two only leaves room for chance, so seeds differ.
        magnitude = np.frexp(table[turn, label].astype(np.float64))[1]
        turn = turn[np.argsort(-magnitude, kind="stable")]
        rarest_first = np.argsort(left, kind="stable")
        rows = table[turn][:, rarest_first]
        for place, row in zip(turn.tolist(), rows.tolist(), strict=True):
            held = [(int(rarest_first[i]), amount) for i, amount in enumerate(row) if amount]
            chosen = parts.choose(held, coins[place])
            parts.give(chosen, held)
            part[units[place]] = chosen
        waiting[turn] = False


def _row_keys(counts: Ints) -> NDArray[np.void]:
    """Return each row of counts as one comparable value."""
    table = np.ascontiguousarray(counts)
    return table.view(np.dtype((np.void, table.dtype.itemsize * table.shape[1]))).ravel()


def _shuffle(n: int, rng: np.random.Generator) -> Ints:
    return np.argsort(rng.random(n), kind="stable")
