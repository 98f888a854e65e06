"""The joined splits of a dataset's features, and the parts that a fold trains and tests on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property
from typing import Any

import numpy as np

from mt.cache.catalog import Entry
from mt.errors import InputError
from mt.probe.cross_validation.fold_draws import Folds
from mt.probe.labelled import labelled
from mt.probe.questions import Bagging
from mt.stratification import Ints
from mt.types import MISSING, Array, CaseFeatures, Groups, LabelledRows, Texts


@dataclass(frozen=True)
class JoinedFeatures:
    """Rows of several splits of one model's features, as one split; rows without any label are omitted."""

    first: CaseFeatures
    rows: LabelledRows[Array]

    @classmethod
    def load(cls, entries: Sequence[Entry]) -> JoinedFeatures:
        """Open the files, verify every checksum, and join their rows.

        Raises DamagedError for damaged files, and InputError for files that differ in task, classes or groups.
        """
        files = [labelled(entry.open(verify=True)) for entry in entries]
        first = files[0]
        for other in files[1:]:
            if (other.task, other.class_names, other.groups is None) != (
                first.task,
                first.class_names,
                first.groups is None,
            ):
                raise InputError(
                    f"The {first.split} and {other.split} features of '{first.dataset}' differ in task, classes or "
                    f"groups, so they cannot be joined. Make both again: {first.manifest.get('command')} --overwrite"
                )
        ids = Texts.of(name for file in files for name in file.ids)
        if len(np.unique(ids.encoded)) < len(ids):
            ids = Texts.of(f"{file.split}/{name}" for file in files for name in file.ids)
        names = [name for name in first.columns if all(name in file.columns for file in files)]
        groups = None if first.groups is None else Texts.of(group for file in files for group in file.groups or ())
        columns = {name: [value for file in files for value in file.columns[name]] for name in names}
        y = np.concatenate([file.labels for file in files])
        rows = LabelledRows(np.concatenate([file.embeddings for file in files]), y, groups, ids, columns)
        known = (y != MISSING).reshape(len(y), -1).any(axis=1)
        return cls(first, rows if known.all() else rows.take(np.flatnonzero(known)))

    def take(self, rows: Array) -> JoinedFeatures:
        return replace(self, rows=self.rows.take(rows))

    @property
    def manifest(self) -> dict[str, Any]:
        return self.first.manifest

    @property
    def fingerprints(self) -> dict[str, str]:
        return self.first.fingerprints

    @property
    def dataset(self) -> str:
        return self.first.dataset

    @property
    def split(self) -> str:
        return "joined"

    @property
    def backbone(self) -> str:
        return self.first.backbone

    @property
    def task(self) -> str:
        return self.first.task

    @property
    def class_names(self) -> tuple[str, ...]:
        return self.first.class_names

    @property
    def dim(self) -> int:
        return self.first.dim

    @property
    def ids(self) -> Sequence[str]:
        return self.rows.ids

    @property
    def labels(self) -> Array:
        return self.rows.y

    @property
    def groups(self) -> Groups | None:
        return self.rows.groups

    @property
    def columns(self) -> Mapping[str, Sequence[Any]]:
        return self.rows.columns

    @property
    def embeddings(self) -> Array:
        return self.rows.X


class JoinedSplits:
    """The joined features of one model and their folds; files are opened when first needed."""

    def __init__(self, entries: Sequence[Entry], folds: Folds) -> None:
        self.entries, self.folds = list({entry.path: entry for entry in entries}.values()), folds
        self._assigned: dict[int, Ints] = {}

    @cached_property
    def features(self) -> JoinedFeatures:
        found = JoinedFeatures.load(self.entries)
        self.folds.check(found.rows, found.dataset)
        return found

    def fold(self, repeat: int) -> Ints:
        """Return the fold of every row in one repeat."""
        if repeat not in self._assigned:
            self._assigned[repeat] = self.folds.assigned(self.features.rows, repeat)
        return self._assigned[repeat]


@dataclass(frozen=True)
class PartEntry(Entry):
    """A part of joined features in the form of a feature file's entry: the rows of a fold, or all other rows."""

    joined: JoinedSplits | None = None
    repeat: int = 0
    fold: int = 0
    held_out: bool = False

    @classmethod
    def of(cls, joined: JoinedSplits, repeat: int, fold: int, *, held_out: bool) -> PartEntry:
        first = joined.entries[0]
        facts = {field.name: getattr(first, field.name) for field in fields(Entry)}
        return cls(**facts, joined=joined, repeat=repeat, fold=fold, held_out=held_out)


def open_part(entry: Entry, bagging: Bagging | None) -> CaseFeatures:
    """Return the rows of a part; `Prober` and `Fuser` call this to open it as they open files."""
    if not isinstance(entry, PartEntry) or entry.joined is None:
        raise TypeError("not a part of joined features")
    chosen = (entry.joined.fold(entry.repeat) == entry.fold) == entry.held_out
    return entry.joined.features.take(np.flatnonzero(chosen))
