"""Images that a table lists by name: matched with the files that are there, then dealt into splits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from mt.datasets.base import Split
from mt.datasets.decoding.notes import Notes
from mt.datasets.decoding.rules import Decoding
from mt.datasets.images import ImageFiles
from mt.datasets.listing import some
from mt.datasets.registry import DatasetRequest
from mt.errors import DatasetError


@dataclass(frozen=True)
class ImageTable:
    """All rows of a dataset, before they are split: a file that is not there has no path."""

    ids: Sequence[str]
    labels: np.ndarray
    paths: Sequence[str | None]
    groups: Sequence[str] | None = None
    columns: Mapping[str, Sequence[Any]] = field(default_factory=dict)
    decoding: Decoding = field(default_factory=Decoding)
    frames: Sequence[int] | None = None
    notes: Notes = field(default_factory=Notes)


def splits_of(table: ImageTable, rows: Mapping[str, np.ndarray]) -> dict[str, Split]:
    """Return the splits that hold the given rows of the table."""
    return {name: _split(name, table, chosen.tolist()) for name, chosen in rows.items()}


def _split(name: str, table: ImageTable, rows: list[int]) -> Split:
    ids = [table.ids[row] for row in rows]
    paths = [table.paths[row] for row in rows]
    absent = frozenset(row for row, path in enumerate(paths) if path is None)
    return Split(
        name,
        ids,
        table.labels[rows],
        ImageFiles(
            [path or id_ for path, id_ in zip(paths, ids, strict=True)], absent, table.decoding,
            None if table.frames is None else [table.frames[row] for row in rows], table.notes,
        ),
        None if table.groups is None else [table.groups[row] for row in rows],
        {column: [values[row] for row in rows] for column, values in table.columns.items()},
    )  # fmt: skip


def found_images(
    request: DatasetRequest, ids: Sequence[str], here: Mapping[str, str], *, where: Path, ending: str = ""
) -> tuple[list[str | None], list[str]]:
    """Return the path of each listed image, none where the file is absent, and warnings about the others.

    Raises:
        DatasetError: listed images are absent, unless the request says to skip what cannot be used; or all are.
    """
    paths = [here.get(id_) for id_ in ids]
    absent = [id_ + ending for id_, path in zip(ids, paths, strict=True) if path is None]
    warnings = []
    if absent:
        message = f"{len(absent):,} of {len(ids):,} listed images do not exist in {where}: {some(absent)}"
        if request.on_error == "raise" or len(absent) == len(ids):
            raise DatasetError(
                f"{request.name}: {message}. Complete the download, or leave them out with --on-error skip."
            )
        warnings.append(message)
    unlisted = sorted(here.keys() - set(ids))
    if unlisted:
        warnings.append(f"{len(unlisted):,} images in {where} are listed nowhere and left out: {some(unlisted)}")
    return paths, warnings
