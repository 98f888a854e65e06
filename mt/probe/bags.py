"""Bags: the rows of a feature file that belong to one case, probed as one pooled row or as instances.

Labels, groups, budgets, folds and intervals then count cases instead of rows.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from mt.cache import pooling
from mt.errors import InputError
from mt.probe.questions import ATTENTION, Bagging
from mt.system.memory import check_memory
from mt.types import Array

if TYPE_CHECKING:
    from mt.cache.feature_file.read import FeatureFile

REVISION = 1  # raised whenever the numbers of bags change for another reason than pooling.REVISION
_ROWS = 4096  # rows read at once
_POOLED = 20  # bytes of a number while it is pooled: float64 statistics, their root, and float32
_NAMED = 3  # cases that an error names


@dataclass(frozen=True)
class Bags:
    """The instances of several cases, read from the file when they are needed; behaves like an array of cases.

    instances: (N, dim), all rows of the file.  rows: the row numbers of the instances, ordered by case, then as in the
    file.  starts: (n + 1,) where each case begins in `rows`.
    """

    instances: Array
    rows: Array
    starts: Array

    @classmethod
    def of(cls, instances: Array, bag_of: Array, n: int) -> Bags:
        """Return the bags of instances whose case numbers are `bag_of` (N,), below n."""
        counts = np.bincount(bag_of, minlength=n)
        return cls(instances, np.argsort(bag_of, kind="stable"), np.concatenate([[0], np.cumsum(counts)]))

    def __len__(self) -> int:
        return len(self.starts) - 1

    @property
    def shape(self) -> tuple[int, int]:
        return len(self), self.instances.shape[1]

    def __getitem__(self, cases: Array) -> Bags:
        """Return some of the cases, chosen by numbers or by a mask, in the order of the numbers."""
        numbers = np.arange(len(self))[cases]
        sizes = np.diff(self.starts)[numbers]
        parts = [self.rows[self.starts[case] : self.starts[case + 1]] for case in numbers.tolist()]
        rows = np.concatenate(parts) if parts else self.rows[:0]
        return Bags(self.instances, rows, np.concatenate([[0], np.cumsum(sizes)]))

    def rows_of(self, case: int) -> Array:
        """Return the instance numbers of one case."""
        return self.rows[self.starts[case] : self.starts[case + 1]]

    def pooled(self, rule: str) -> Array:
        """Return one row per case, (n, width) float32.  Raises InputError where memory does not hold them."""
        width = pooling.width(self.instances.shape[1], rule)
        check_memory(
            f"--pool {rule} of {len(self):,} cases, {width:,} columns each,",
            len(self) * width * _POOLED,
            "Use --pool mean, or a --bag COLUMN of fewer cases.",
        )
        return pooling.pooled(self._parts(), len(self), self.instances.shape[1], rule)

    def spread(self) -> tuple[Array, Array]:
        """Return the mean and the standard deviation of all instances, float64 (dim,) each."""
        together = ((np.zeros_like(cases), rows) for cases, rows in self._parts())
        both = pooling.pooled(together, 1, self.instances.shape[1], "mean+std")[0].astype(np.float64)
        return both[: len(both) // 2], both[len(both) // 2 :]

    def _parts(self) -> Iterator[tuple[Array, Array]]:
        cases = np.repeat(np.arange(len(self)), np.diff(self.starts))
        for start in range(0, len(self.rows), _ROWS):
            part = self.rows[start : start + _ROWS]
            yield cases[start : start + _ROWS], self.instances[part]


class BaggedFeatures:
    """A feature file read with one row per case; it has what probing reads of a feature file.

    embeddings: the pooled rows (cases, width), or the `Bags` if attention pools them.
    """

    def __init__(self, file: FeatureFile, bagging: Bagging) -> None:
        self.file, self.bagging = file, bagging
        self.manifest, self.fingerprints = file.manifest, file.fingerprints
        self.dataset, self.split, self.backbone = file.dataset, file.split, file.backbone
        self.task, self.class_names = file.task, file.class_names
        names = self._names()
        number = {name: case for case, name in enumerate(dict.fromkeys(names))}
        self.ids = list(number)
        self._case_of = np.array([number[name] for name in names])
        self._first = np.unique(self._case_of, return_index=True)[1]  # the first row of each case

    @property
    def dim(self) -> int:
        rule, own = self.bagging.pool, self.file.dim
        return own if rule == ATTENTION else pooling.width(own, rule)

    @cached_property
    def labels(self) -> Array:
        """The label of each case.  Raises InputError, which names the cases, where rows of one case differ."""
        labels = self.file.labels
        columns = [self._one_each("label", column) for column in labels.reshape(len(labels), -1).T]
        return np.stack(columns, axis=1).reshape(len(self.ids), *labels.shape[1:])

    @cached_property
    def groups(self) -> list[str] | None:
        """The group of each case.  Raises InputError, which names the cases, where rows of one case differ."""
        groups = self.file.groups
        return None if groups is None else self._one_each("group", np.array(groups, dtype=object)).tolist()

    @cached_property
    def columns(self) -> dict[str, list[Any]]:
        """The metadata columns whose value is the same for all rows of each case."""
        arrays = {name: np.array(values, dtype=object) for name, values in self.file.columns.items()}
        return {name: array[self._first].tolist() for name, array in arrays.items() if not len(self._mixed(array))}

    @cached_property
    def bags(self) -> Bags:
        return Bags.of(self.file.embeddings, self._case_of, len(self.ids))

    @cached_property
    def embeddings(self) -> Any:
        return self.bags if self.bagging.pool == ATTENTION else self.bags.pooled(self.bagging.pool)

    def _names(self) -> Sequence[str]:
        """Return the name of each row's case.

        Raises InputError if the column is missing, or if a row has no value in it.
        """
        column, groups, columns = self.bagging.column, self.file.groups, self.file.columns
        if column == "group" and groups is not None:
            return groups
        if column not in columns:
            known = ", ".join([*(["group"] if groups is not None else []), *sorted(columns)]) or "none"
            raise InputError(f"--bag {column}: '{self.dataset}' has no such column. Found: {known}.")
        names = [str(value) for value in columns[column]]
        empty = sum(name in ("", "nan") for name in names)
        if empty:
            raise InputError(f"--bag {column}: {empty:,} of {len(names):,} rows of '{self.dataset}' name no case.")
        return names

    def _mixed(self, values: Array) -> Array:
        """Return the numbers of the cases whose rows have more than one value."""
        different = np.asarray(values != values[self._first][self._case_of], dtype=bool)
        return np.unique(self._case_of[different])

    def _one_each(self, what: str, values: Array) -> Array:
        mixed = self._mixed(values).tolist()
        if mixed:
            names = ", ".join(self.ids[case] for case in mixed[:_NAMED]) + (", ..." if len(mixed) > _NAMED else "")
            raise InputError(
                f"--bag {self.bagging.column}: {len(mixed):,} of {len(self.ids):,} cases of '{self.dataset}' "
                f"({self.split}) have rows of more than one {what}: {names}. Expected one per case."
            )
        return np.asarray(values[self._first])


def bag_recipe(bagging: Bagging) -> dict[str, Any]:
    """Return what a fit on bags adds to its identity."""
    return {"bags": [bagging.column, bagging.pool, REVISION, pooling.REVISION]}
