"""Rows that remain instances of their cases: each has its case's label, and the case as its bag and group."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mt.importing.parts import SourceFile
from mt.types import Array, LabelledRows

BAG = "bag"  # the metadata column that names each row's case


def instance_rows(
    cases: LabelledRows[None], chosen: Array, case_of: Sequence[Array | int], parts: Sequence[SourceFile]
) -> LabelledRows[None]:
    """Return one row per instance of the chosen cases, in the order of the files.

    cases: what is known of the chosen cases, whose numbers are `chosen`.  An instance's id is its case's name and its
    number within the case.
    """
    every = np.concatenate(
        [np.full(part.matrix.n, one) if isinstance(one, int) else one for part, one in zip(parts, case_of, strict=True)]
    )
    place = np.full(int(every.max(initial=0)) + 2, -1)
    place[chosen[chosen < len(place)]] = np.flatnonzero(chosen < len(place))
    row_case = place[every]
    row_case = row_case[row_case >= 0]
    names = [cases.ids[row] for row in row_case.tolist()]
    repeated = cases.take(row_case)
    groups = names if cases.groups is None else repeated.groups
    ids = [f"{name}/{number}" for name, number in zip(names, _numbers(row_case, len(cases)), strict=True)]
    return LabelledRows(None, repeated.y, groups, ids, {**repeated.columns, BAG: names})


def _numbers(row_case: Array, n_cases: int) -> list[int]:
    """Return the number of each row within its case, in order."""
    order = np.argsort(row_case, kind="stable")
    counts = np.bincount(row_case, minlength=n_cases)
    starts = np.cumsum(counts) - counts
    numbers = np.empty(len(row_case), dtype=np.int64)
    numbers[order] = np.arange(len(row_case)) - np.repeat(starts, counts)
    return numbers.tolist()
