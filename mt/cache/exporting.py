"""Features for other programs: npy, csv or parquet, with ids and labels."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mt.cache.feature_file.read import FeatureFile
from mt.errors import MissingExtraError
from mt.system import files
from mt.terminal.spreadsheet import inert
from mt.types import MISSING

if TYPE_CHECKING:
    import numpy as np

ROWS = 4096  # at a time, so that memory stays flat


def export(features: FeatureFile, target: Path, form: str) -> list[Path]:
    """Write the rows that have an embedding; return the files written, each complete before it has its name.

    npy: the (n, dim) matrix, and beside it `<name>.rows.csv` with id, label, group and metadata in the same order.
    csv: the same columns, then one per feature.  parquet: the same columns, then the embedding as a list in one column.

    Raises:
        MissingExtraError: parquet without pyarrow.
        CacheError: the files cannot be written; NoSpaceError if the disk is full.
    """
    files.make_folder(target.absolute().parent)
    if form == "npy":
        table = target.with_suffix(".rows.csv")
        return [
            _written(target, lambda path: _npy(features, path)),
            _written(table, lambda path: _csv(features, path, embeddings=False)),
        ]
    if form == "csv":
        return [_written(target, lambda path: _csv(features, path, embeddings=True))]
    return [_written(target, lambda path: _parquet(features, path))]


def columns(features: FeatureFile) -> dict[str, Sequence[Any]]:
    """Return what is known of each row by column name: id, label (or one per class), group, metadata.

    A row without a label has none.  A metadata column that has one of these names gets a `column_` before it.
    """
    labels = features.labels
    table: dict[str, Sequence[Any]] = {"id": features.ids}
    if labels.ndim == 1:
        table["label"] = [None if label == MISSING else label for label in labels.tolist()]
    else:
        table |= {f"label_{name}": labels[:, at].tolist() for at, name in enumerate(features.class_names)}
    if features.groups is not None:
        table["group"] = features.groups
    for name, values in features.columns.items():
        table[f"column_{name}" if name in table else name] = values
    return table


def _written(target: Path, write: Callable[[Path], None]) -> Path:
    try:
        with files.whole(target) as aside:
            write(aside)
    except OSError as error:
        raise files.explained(error, target) from error
    return target


def _chunks(features: FeatureFile) -> Iterator[tuple[slice, np.ndarray]]:
    embeddings = features.embeddings
    for start in range(0, len(embeddings), ROWS):
        part = slice(start, start + ROWS)
        yield part, embeddings[part]


def _npy(features: FeatureFile, path: Path) -> None:
    import numpy as np

    with path.open("wb") as file:
        kind = np.lib.format.dtype_to_descr(features.embeddings.dtype)
        header = {"descr": kind, "fortran_order": False, "shape": features.embeddings.shape}
        np.lib.format.write_array_header_1_0(file, header)
        for _, part in _chunks(features):
            file.write(part.data)


def _csv(features: FeatureFile, path: Path, *, embeddings: bool) -> None:
    table = columns(features)
    names = [f"f{number}" for number in range(features.dim)] if embeddings else []
    with path.open("w", newline="", encoding="utf-8", errors="surrogateescape") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow([*map(inert, table), *names])
        for part, values in _chunks(features):
            known = zip(*(map(inert, column[part]) for column in table.values()), strict=True)
            numbers = values.astype(str).tolist() if embeddings else [[]] * len(values)  # str: the shortest exact
            writer.writerows([*row, *numbers[at]] for at, row in enumerate(known))


def _parquet(features: FeatureFile, path: Path) -> None:
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError as error:
        raise MissingExtraError("Writing parquet needs pyarrow. Install it: pip install pyarrow") from error
    table = columns(features)
    cells = pa.from_numpy_dtype(features.embeddings.dtype)
    kinds = {name: pa.array(values).type for name, values in table.items()}
    schema = pa.schema([*kinds.items(), ("embedding", pa.list_(cells, features.dim))])
    with pq.ParquetWriter(path, schema) as writer:
        for part, values in _chunks(features):
            arrays = [pa.array(table[name][part], type=kind) for name, kind in kinds.items()]
            arrays.append(pa.FixedSizeListArray.from_arrays(pa.array(values.ravel()), features.dim))
            writer.write_table(pa.Table.from_arrays(arrays, schema=schema))
