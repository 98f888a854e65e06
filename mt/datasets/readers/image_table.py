"""Images that a table lists by name: matched with the files that exist, then divided into splits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from mt.cache.content import ContentIndex
from mt.datasets.base import Split
from mt.datasets.decoding.notes import Notes
from mt.datasets.decoding.rules import Decoding
from mt.datasets.dicom.headers import Facts, Headers
from mt.datasets.image_file import is_photograph
from mt.datasets.images import ImageFiles, frame_counts
from mt.datasets.listing import some
from mt.datasets.patients import HiddenPatients, dicom_groups, patients_of_files
from mt.datasets.registry import DatasetRequest
from mt.errors import DatasetError
from mt.terminal.progress import counted
from mt.types import LabelledRows, Prefixed, Texts


@dataclass(frozen=True)
class ImageTable:
    """All rows of a dataset, before they are split: a file that is not there has no path.

    `grouping` says what a group is; `hidden` finds the patients if `groups` are only their numbers.  `frames` holds
    each row's frame, from 1, where rows are frames.
    """

    ids: Sequence[str]
    labels: np.ndarray
    paths: Sequence[str | None]
    groups: Sequence[str] | None = None
    columns: Mapping[str, Sequence[Any]] = field(default_factory=dict)
    decoding: Decoding = field(default_factory=Decoding)
    grouping: str | None = None
    hidden: HiddenPatients | None = None
    frames: Sequence[int] | None = None
    notes: Notes = field(default_factory=Notes)


def with_headers(table: ImageTable, headers: Headers) -> tuple[ImageTable, list[str]]:
    """Return the table with columns from DICOM headers and, if it has no groups, patients as groups; and warnings.

    Raises:
        DatasetError: columns of DICOM headers are wanted, and no file is DICOM.
    """
    facts = _dicom_facts(table, headers)
    if not any(facts):
        if headers.columns:
            raise DatasetError(f"--column {headers.columns[0]} is read from DICOM headers, and no image is DICOM.")
        return table, []
    asked = {
        name: [None if one is None else one.columns.get(name) for one in facts]
        for name in headers.columns
        if any(one is not None and one.columns.get(name) not in (None, "") for one in facts)
    }
    table = replace(table, columns={**asked, **table.columns})
    if table.groups is not None:
        return table, []
    groups, warnings = dicom_groups(table.ids, facts)
    if groups is None:
        return table, warnings
    hidden = patients_of_files(table.ids, [path or "" for path in table.paths])
    return replace(table, groups=groups, grouping="patient", hidden=hidden), warnings


def _dicom_facts(table: ImageTable, headers: Headers) -> Sequence[Facts | None]:
    """Return what the headers say of each row: None for a photograph, an absent or a damaged file."""
    candidates = [path for path in table.paths if path is not None and not is_photograph(path)]
    if not candidates:
        return (None,) * len(table.paths)
    found = dict(zip(candidates, headers.of(candidates), strict=True))
    facts = [found.get(path or "") for path in table.paths]
    return [one if one is not None and one.kind == "image" else None for one in facts]


def by_frame(table: ImageTable, headers: Headers, index: ContentIndex) -> tuple[ImageTable, np.ndarray]:
    """Return a table of one row per frame, and the row of the given table that each comes from; a file is a group.

    If patients are known, they stay the groups.  Ids of frames are `FILE#N`, N from 1.
    """
    facts = _dicom_facts(table, headers)
    others = [path for path, one in zip(table.paths, facts, strict=True) if path is not None and one is None]
    known = dict(zip(others, frame_counts(others, index), strict=True))
    counts = [
        1 if path is None else known[path] if one is None else one.frames
        for path, one in zip(table.paths, facts, strict=True)
    ]
    source = np.repeat(np.arange(len(counts)), counts)
    rows: list[int] = source.tolist()
    frames = [frame for count in counts for frame in range(1, count + 1)]
    ids = [
        f"{table.ids[row]}#{frame}" if counts[row] > 1 else table.ids[row]
        for row, frame in zip(rows, frames, strict=True)
    ]
    groups = table.ids if table.groups is None else table.groups
    expanded = replace(
        table,
        ids=ids,
        labels=table.labels[source],
        paths=[table.paths[row] for row in rows],
        frames=frames,
        groups=[groups[row] for row in rows],
        grouping=table.grouping or "file",
        columns={name: [values[row] for row in rows] for name, values in table.columns.items()},
        hidden=None if table.hidden is None else table.hidden.only(rows),
    )
    return expanded, source


def splits_of(table: ImageTable, rows: Mapping[str, np.ndarray]) -> dict[str, Split]:
    """Return the splits that hold the given rows of the table."""
    return {name: _split(name, table, chosen) for name, chosen in rows.items()}


def _split(name: str, table: ImageTable, rows: np.ndarray) -> Split:
    labelled = LabelledRows(None, table.labels, table.groups, table.ids, table.columns).take(rows)
    files, absent = _files(table, rows, labelled.ids)
    frames = None if table.frames is None else [table.frames[row] for row in rows.tolist()]
    images = ImageFiles(files, absent, table.decoding, frames, table.notes)
    return Split(name, labelled, images, None if table.hidden is None else table.hidden.only(rows.tolist()))


def _files(table: ImageTable, rows: np.ndarray, ids: Sequence[str]) -> tuple[Sequence[str], frozenset[int]]:
    """Return the paths of some rows, and the places of those whose file is not there, whose path is their id."""
    if isinstance(table.paths, Prefixed):
        rest = ids if isinstance(ids, Texts) and table.paths.rest is table.ids else table.paths.rest[rows]
        return Prefixed(table.paths.beginning, rest), frozenset()
    paths = [table.paths[row] for row in rows.tolist()]
    files = [path or id_ for path, id_ in zip(paths, ids, strict=True)]
    return files, frozenset(place for place, path in enumerate(paths) if path is None)


def found_images(
    request: DatasetRequest, ids: Sequence[str], here: Mapping[str, str], *, where: Path, ending: str = ""
) -> tuple[list[str | None], list[str]]:
    """Return the path of each listed image, none where the file is absent, and warnings about the others.

    Raises:
        DatasetError: listed images are absent, unless the request says to skip what cannot be used; or all are.
    """
    paths = [here.get(id_) for id_ in ids]
    warnings = absent_warnings(request, ids, paths, where=where, ending=ending)
    unlisted = sorted(here.keys() - set(ids))
    if unlisted:
        count, verb = counted(len(unlisted), "image"), "is" if len(unlisted) == 1 else "are"
        warnings.append(f"{count} in {where} {verb} listed nowhere and omitted: {some(unlisted)}")
    return paths, warnings


def absent_warnings(
    request: DatasetRequest,
    ids: Sequence[str],
    paths: Sequence[str | None],
    *,
    where: Path,
    ending: str = "",
    mend: str = "Complete the download",
) -> list[str]:
    """Return a warning about listed images that are absent, without a path.

    mend: what the reader of the error can do.

    Raises:
        DatasetError: there are some, unless the request says to skip what cannot be used; or all are.
    """
    if isinstance(paths, Prefixed):
        return []
    absent = [id_ + ending for id_, path in zip(ids, paths, strict=True) if path is None]
    if not absent:
        return []
    message = f"{len(absent):,} of {len(ids):,} listed images do not exist in {where}: {some(absent)}"
    if request.on_error == "raise" or len(absent) == len(ids):
        raise DatasetError(f"{request.name}: {message}. {mend}, or omit them: --on-error skip")
    return [message]
