"""What is known of each imported case: label, split, group and metadata, read as `table:` reads them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from mt.cache.feature_file.read import FeatureFile
from mt.datasets.base import METADATA
from mt.datasets.listing import some
from mt.datasets.readers.folder import FRACTIONS
from mt.datasets.settings import DatasetSettings
from mt.datasets.splitting import draw_splits
from mt.datasets.tabular.column_roles import columns_by_role, own_groups
from mt.datasets.tabular.csv_file import TableText
from mt.datasets.tabular.table_labels import labels_of
from mt.errors import DatasetError, InputError
from mt.importing.joining import CASE, CaseTable
from mt.importing.request import ImportRequest, LabelRules
from mt.types import MISSING, Array

_RESERVED = (CASE, "label", "split", "group", *METADATA)
_NO_GROUPING = "no patient grouping known: the same patient may be in train and test (--labels with a column group)"
_LABEL_PREFIX = "label_"  # how `mt cache export` names one column per label


@dataclass(frozen=True)
class Cases:
    """The cases that are imported, with labels, splits, groups and metadata.

    splits: the case numbers of each split.
    """

    ids: list[str]
    labels: Array
    task: str
    class_names: tuple[str, ...]
    splits: dict[str, Array]
    groups: list[str] | None = None
    grouping: str | None = None
    columns: Mapping[str, list[Any]] = field(default_factory=dict)
    drawn: Mapping[str, Any] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()


def describe(table: CaseTable, request: ImportRequest) -> Cases:
    """Return what the label table says of the cases; draw a test split if nothing names the splits.

    Raises DatasetError and InputError for columns, labels and groups that cannot be read.
    """
    assert table.text is not None
    text, prefixed = _without_prefix(table.text)
    rules = request.rules
    settings = _settings(rules, prefixed)
    roles = columns_by_role(text, settings, table.file, _RESERVED)
    labels = labels_of(roles, table.file, settings, _RESERVED)
    text, ids = roles.text, list(table.ids)
    groups = None
    if roles.group is not None:
        own = rules.missing_group == "own"
        groups = list(own_groups(text.columns[roles.group], ids, text.lines, table.file, own=own))
    splits, drawn = _splits(ids, labels.values, groups, table.splits, request)
    if "train" in splits:
        labels.refuse_untrained(table.file, splits["train"])
    columns = {name: list(text.columns[name]) for name in METADATA if name in text.columns and name != roles.group}
    warnings = (*table.notes, *labels.warnings, *((_NO_GROUPING,) if groups is None else ()))
    return Cases(
        ids,
        labels.values,
        labels.task,
        labels.class_names,
        splits,
        groups,
        roles.grouping,
        columns,
        drawn,
        warnings,
    )


def described_by(features: Mapping[str, FeatureFile], table: CaseTable) -> Cases:
    """Return what feature files of the same dataset, by split, say of the cases with the same ids.

    Raises InputError, with counts and names, for ids that are not in them.
    """
    place = {name: (split, row) for split, file in features.items() for row, name in enumerate(file.ids)}
    lacking = [name for name in table.ids if name not in place]
    if lacking:
        raise InputError(
            f"{len(lacking):,} of {len(table.ids):,} ids are not among the cached features of this dataset: "
            f"{some(lacking)}. Give their labels: --labels FILE"
        )
    found = [place[name] for name in table.ids]
    first = next(iter(features.values()))
    groups = groups_of(features, found)
    shared = set.intersection(*(set(file.columns) for file in features.values()))
    columns = {name: [features[split].columns[name][row] for split, row in found] for name in sorted(shared)}
    splits = {split: np.array([case for case, (other, _) in enumerate(found) if other == split]) for split in features}
    return Cases(
        list(table.ids),
        np.stack([features[split].labels[row] for split, row in found]),
        first.task,
        first.class_names,
        {split: rows for split, rows in splits.items() if len(rows)},
        groups,
        first.manifest.get("grouping"),
        columns,
        warnings=table.notes,
    )


def groups_of(features: Mapping[str, FeatureFile], found: Sequence[tuple[str, int]]) -> list[str] | None:
    """Return the groups of rows, each by its split and its number there; None if a split has no groups."""
    groups = {split: file.groups for split, file in features.items()}
    if any(some_groups is None for some_groups in groups.values()):
        return None
    return [(groups[split] or [])[row] for split, row in found]


def with_groups(cases: Cases, groups: list[str], grouping: str | None) -> Cases:
    """Return the cases with the groups that a cached file knows of them."""
    warnings = tuple(warning for warning in cases.warnings if warning != _NO_GROUPING)
    return replace(cases, groups=groups, grouping=grouping, warnings=warnings)


def as_classes_of(cases: Cases, class_names: Sequence[str]) -> Cases:
    """Return the cases with labels numbered as in another file's classes, which hold all of theirs.

    Raises InputError for a class that is not among them.
    """
    ours, theirs = cases.class_names, tuple(class_names)
    if ours == theirs or cases.labels.ndim == 2:
        if len(ours) != len(theirs):
            raise InputError(f"classes {some(ours)} differ from {some(theirs)}")
        return replace(cases, class_names=theirs)
    number = {name: label for label, name in enumerate(theirs)}
    if not set(ours) <= set(number):
        if not all(name.isdecimal() and int(name) < len(theirs) for name in ours):
            raise InputError(f"classes {some(ours)} are not among {some(theirs)}")
        number = {name: int(name) for name in ours}
    renumbered = np.array([number[name] for name in ours], dtype=np.int64)
    labels = np.where(cases.labels == MISSING, MISSING, renumbered[cases.labels])
    return replace(cases, labels=labels, class_names=theirs)


def _settings(rules: LabelRules, prefixed: Sequence[str]) -> DatasetSettings:
    return DatasetSettings(
        task=rules.task,
        image_column=CASE,
        label_columns=rules.label_columns or tuple(prefixed),
        group_column=rules.group_column,
        missing_group=rules.missing_group,
        uncertain=rules.uncertain,
        blank=rules.blank,
    )


def _without_prefix(text: TableText) -> tuple[TableText, list[str]]:
    """Return a table with exported label columns under the labels' names, and these names."""
    exported = [name for name in text.columns if name.startswith(_LABEL_PREFIX)]
    plain = [name.removeprefix(_LABEL_PREFIX) for name in exported]
    if "label" in text.columns or not exported or set(plain) & set(text.columns):
        return text, []
    columns = {name.removeprefix(_LABEL_PREFIX) if name in exported else name: v for name, v in text.columns.items()}
    return replace(text, columns=columns), plain


def _splits(
    ids: Sequence[str], labels: Array, groups: Sequence[str] | None, said: Sequence[str | None], request: ImportRequest
) -> tuple[dict[str, Array], dict[str, Any]]:
    """Return the rows of each split: as named, or drawn if no case has a named split."""
    unsaid = [name for name, split in zip(ids, said, strict=True) if split is None]
    if len(unsaid) == len(ids):
        rows, record = draw_splits(ids, labels, fractions=FRACTIONS, groups=groups, seed=request.seed)
        return {name: chosen for name, chosen in rows.items() if len(chosen)}, {"splits": record}
    if unsaid:
        raise DatasetError(
            f"{len(unsaid):,} of {len(ids):,} cases have no split: {some(unsaid)}. Name it for all files: "
            "SPLIT=FILE, or a column 'split' in --labels"
        )
    names = np.array(said)
    return {str(name): np.flatnonzero(names == name) for name in dict.fromkeys(said)}, {}
