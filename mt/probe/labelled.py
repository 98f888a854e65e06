"""The labelled rows of features: the one place where rows without a label are omitted.

Everything that fits, draws, chooses or scores reads features through this module; prediction reads all rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any

import numpy as np

from mt.cache.catalog import Entry
from mt.cache.feature_file.rows import is_unlabelled
from mt.types import Array, CaseFeatures, Groups, Texts


def labelled(features: CaseFeatures) -> CaseFeatures:
    """Return the rows that have a label; the features themselves if all rows have one."""
    without = is_unlabelled(features.labels)
    return LabelledFeatures(features, np.flatnonzero(~without)) if without.any() else features


def has_labels(entry: Entry) -> bool:
    """Say whether any row of a feature file has a label."""
    return not (entry.has_unlabelled and is_unlabelled(entry.open().labels).all())


class LabelledFeatures:
    """Some rows of features, by number, with the facts that hold for the whole file."""

    def __init__(self, every: CaseFeatures, rows: Array) -> None:
        self.every, self.rows = every, rows
        self.manifest, self.fingerprints = every.manifest, every.fingerprints
        self.dataset, self.split, self.backbone = every.dataset, every.split, every.backbone
        self.task, self.class_names, self.dim = every.task, every.class_names, every.dim

    @cached_property
    def ids(self) -> Sequence[str]:
        return self._of(self.every.ids)

    @cached_property
    def labels(self) -> Array:
        return self.every.labels[self.rows]

    @cached_property
    def groups(self) -> Sequence[str] | None:
        groups = self.every.groups
        return None if groups is None else self._of(groups)

    @cached_property
    def columns(self) -> dict[str, Sequence[Any]]:
        return {name: self._of(values) for name, values in self.every.columns.items()}

    @cached_property
    def embeddings(self) -> Any:
        return self.every.embeddings[self.rows]

    def _of(self, values: Groups) -> Sequence[Any]:
        return values[self.rows] if isinstance(values, Texts) else [values[row] for row in self.rows.tolist()]
