"""The flow of cases: images, and patients or groups, that a feature file lists, excludes and holds.  Numbers only."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from mt.cache.feature_file.read import status_counts
from mt.cache.feature_file.rows import is_unlabelled
from mt.report.paper.escaped import md

if TYPE_CHECKING:
    from mt.cache.catalog import Entry

NOTE = (
    "Counted in the feature files, which list every image of a split. A patient or group is excluded if none of its "
    "images could be used, and in part if some could."
)
COLUMNS = ("split", "network", "images listed", "excluded, and why", "images used")
OF_GROUPS = ("patients or groups listed", "excluded", "excluded in part", "used")


@dataclass(frozen=True)
class GroupFlow:
    """Numbers of patients or groups: listed, with an image that was used, and those that also lost one."""

    listed: int
    used: int
    in_part: int


@dataclass(frozen=True)
class Flow:
    """What became of the images of one split under one backbone.

    counts: images by status; None once the file is gone.  unlabelled: images with an embedding and no label.
    groups: None if the file has none, or is gone.
    """

    split: str
    backbone: str
    counts: Mapping[str, int] | None = None
    unlabelled: int = 0
    groups: GroupFlow | None = None

    @classmethod
    def of(cls, split: str, backbone: str, entry: Entry | None) -> Flow:
        """Return the flow of a feature file; None stands for a file that is gone."""
        if entry is None:
            return cls(split, backbone)
        file = entry.open()
        unlabelled = int(is_unlabelled(file.labels).sum()) if entry.has_unlabelled else 0
        groups = file.stored.get("groups")
        known = None if groups is None else _of_groups(groups, file.is_ok)
        return cls(split, backbone, status_counts(entry.path), unlabelled, known)

    def row(self) -> tuple[str, ...]:
        """Return the cells of the table, as Markdown."""
        return (self.split, md(self.backbone), *self._images(), *self._groups())

    def _images(self) -> tuple[str, ...]:
        if self.counts is None:
            return "not known", "the feature file is gone", "not known"
        used = f"{self.counts.get('ok', 0):,}" + (f", {self.unlabelled:,} without a label" if self.unlabelled else "")
        out = [f"{count:,} {name.replace('_', ' ')}" for name, count in self.counts.items() if name != "ok"]
        return f"{sum(self.counts.values()):,}", ", ".join(out) or "none", used

    def _groups(self) -> tuple[str, ...]:
        if self.groups is None:
            return ("not known",) * len(OF_GROUPS)
        one = self.groups
        return tuple(f"{count:,}" for count in (one.listed, one.listed - one.used, one.in_part, one.used))


def _of_groups(groups: np.ndarray, used: np.ndarray) -> GroupFlow:
    """Count groups (n,); used: (n,) whether a row has an embedding."""
    kept, lost = np.unique(groups[used]), np.unique(groups[~used])
    return GroupFlow(len(np.union1d(kept, lost)), len(kept), len(np.intersect1d(kept, lost)))


def flow_table(flows: Sequence[Flow]) -> Iterator[tuple[str, ...]]:
    """Yield the heading and the rows; without the columns of groups if no file has any."""
    grouped = any(one.groups is not None for one in flows)
    yield (*COLUMNS, *(OF_GROUPS if grouped else ()))
    for row in dict.fromkeys(one.row() for one in flows):
        yield row if grouped else row[: len(COLUMNS)]


def why_no_groups(flows: Sequence[Flow]) -> str:
    """Return why patients are not counted; empty if they are."""
    if any(one.groups is not None for one in flows):
        return ""
    gone = all(one.counts is None for one in flows)
    return "Patients or groups are not counted: " + (
        "the feature files are gone." if gone else "the feature files hold none."
    )
