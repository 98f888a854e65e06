"""The dataset of an import in the cache: the same cases and labels join it, others are refused by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np

from mt.cache.catalog import Catalog, Entry
from mt.cache.feature_file.read import FeatureFile
from mt.cache.names import digest
from mt.datasets.listing import some
from mt.errors import InputError
from mt.importing.described import Cases, as_classes_of, with_groups
from mt.terminal.progress import counted
from mt.types import Array


@dataclass(frozen=True)
class KnownDataset:
    """The newest complete feature files of a dataset, by split, all of one content; empty if the cache has none."""

    name: str
    entries: Mapping[str, Entry]

    @classmethod
    def find(cls, catalog: Catalog, name: str) -> KnownDataset:
        """Look a dataset up by the name that tables show.

        Raises InputError if the cache holds several contents of that name.
        """
        found = [
            entry
            for entry in catalog.entries(datasets=[name])
            if entry.complete and "limited" not in entry.flags and "bag" not in entry.manifest
        ]
        contents = {entry.fingerprints["dataset"] for entry in found}
        if len(contents) > 1:
            names = sorted({entry.dataset for entry in found})
            raise InputError(
                f"The cache holds {len(contents)} different datasets that '{name}' can mean: {', '.join(names)}. "
                "Choose another --dataset, or remove one: mt cache remove --dataset NAME"
            )
        return cls(name, {entry.split: entry for entry in sorted(found, key=lambda entry: entry.modified)})

    def __bool__(self) -> bool:
        return bool(self.entries)

    def features(self) -> dict[str, FeatureFile]:
        """Open the files."""
        return {split: entry.open() for split, entry in self.entries.items()}

    def agreed(self, cases: Cases) -> Cases:
        """Return the cases with the cache's numbering of labels, order of rows, groups and columns.

        Draws and stored predictions refer to rows by number, so all files of a split need the same order.

        Raises InputError, with counts and names, if cases, labels, groups or splits differ.
        """
        first = next(iter(self.entries.values()))
        if cases.task != first.manifest["task"] and not _refined(cases, first):
            raise self._other(f"it is {first.manifest['task']} and these labels are {cases.task}")
        try:
            cases = as_classes_of(cases, first.manifest["class_names"])
        except InputError as error:
            raise self._other(str(error)) from None
        features = self.features()
        for split, file in features.items():
            self._refuse_strays(cases, split, file)
        orders = {s: self._order(cases, s, features[s]) for s in cases.splits if s in features}
        return self._as_known(cases, features, orders)

    def _refuse_strays(self, cases: Cases, split: str, file: FeatureFile) -> None:
        there = set(file.ids)
        stray = [
            name
            for other, rows in cases.splits.items()
            if other != split
            for row in rows
            if (name := cases.ids[row]) in there
        ]
        if stray:
            raise self._other(
                f"{counted(len(stray), 'case is', 'cases are')} in '{split}' there and not here: {some(stray)}"
            )

    def _order(self, cases: Cases, split: str, file: FeatureFile) -> Array:
        """Return the case numbers of a split in the order of its file, after checking that they agree."""
        here = [cases.ids[row] for row in cases.splits[split]]
        there = {name: row for row, name in enumerate(file.ids)}
        ours = set(here)
        new, gone = [name for name in here if name not in there], [name for name in there if name not in ours]
        if new or gone:
            raise self._other(
                f"its '{split}' holds other cases: {len(new):,} only here ({some(new) or 'none'}), {len(gone):,} only "
                f"there ({some(gone) or 'none'})"
            )
        rows, order = cases.splits[split], np.array([there[name] for name in here])
        self._same("labels", split, here, cases.labels[rows], file.labels[order])
        if cases.groups is not None and file.groups is not None:
            groups = np.array([file.groups[row] for row in order])
            self._same("groups", split, here, np.array([cases.groups[row] for row in rows]), groups)
        ordered: Array = rows[np.argsort(order)]
        return ordered

    def _as_known(self, cases: Cases, features: Mapping[str, FeatureFile], orders: Mapping[str, Array]) -> Cases:
        """Return the cases in the cache's order, with its groups and columns if it holds all of their splits."""
        cases = replace(cases, splits={**cases.splits, **orders})
        files = [features[split] for split in orders]
        grouped = any(file.groups is not None for file in features.values())
        if cases.groups is not None and not grouped:
            raise self._other("its cases have no groups and these have; omit them (--group-column none)")
        if set(orders) != set(cases.splits):
            if grouped and cases.groups is None:
                raise self._other("its cases have groups and these have none; give them (--group-column)")
            return cases
        numbers = np.argsort(np.concatenate(list(orders.values()))).tolist()

        def by_case(of: Callable[[FeatureFile], Sequence[Any] | None]) -> list[Any]:
            values = [value for file in files for value in of(file) or [""] * len(file.ids)]
            return [values[number] for number in numbers]

        names = dict.fromkeys(name for file in files for name in file.columns)
        columns = {name: by_case(partial(_column, name=name)) for name in names}
        cases = replace(cases, columns=columns)
        if any(file.groups is None for file in files):
            return cases
        grouping = next(iter(self.entries.values())).manifest.get("grouping")
        return with_groups(cases, by_case(_groups), grouping)

    def _same(self, what: str, split: str, ids: Sequence[str], one: Array, two: Array) -> None:
        wrong = np.flatnonzero((one != two).reshape(len(one), -1).any(axis=1))
        if len(wrong):
            names = some([ids[row] for row in wrong.tolist()])
            raise self._other(f"{what} of '{split}' differ in {counted(len(wrong), 'case')}: {names}")

    def _other(self, why: str) -> InputError:
        return InputError(
            f"'{self.name}' is in the cache with other content: {why}. Choose another --dataset, or remove the old "
            f"one: mt cache remove --dataset '{self.name}'"
        )

    def facts(self) -> dict[str, Any]:
        """Return what the manifests of a dataset's files share."""
        if not self.entries:
            return {}
        manifest = next(iter(self.entries.values())).manifest
        names = ("dataset", "settings", "location", "metric", "budget_unit", "grouping", "licence", "task")
        return {name: manifest[name] for name in names if name in manifest}

    def split_fingerprint(self, split: str, cases: Cases) -> str | None:
        """Return the fingerprint of a cached split with the same rows and groups; None if there is none."""
        entry = self.entries.get(split)
        if entry is None or bool(entry.manifest.get("grouping")) != (cases.groups is not None):
            return None
        return entry.fingerprints["split"]

    def fingerprint(self, cases: Cases) -> str:
        """Return the dataset's fingerprint: the cached one, else a hash of name, task and classes."""
        if self.entries:
            return next(iter(self.entries.values())).fingerprints["dataset"]
        return digest({"imported": self.name, "task": cases.task, "class_names": list(cases.class_names)})


def _groups(file: FeatureFile) -> Sequence[str] | None:
    return file.groups


def _column(file: FeatureFile, *, name: str) -> Sequence[Any] | None:
    return file.columns.get(name)


def _refined(cases: Cases, entry: Entry) -> bool:
    """Return whether labels that look like one task can belong to the other: a split may lack classes."""
    tasks = {cases.task, str(entry.manifest["task"])}
    return "multilabel" not in tasks
