"""What a feature file keeps of each row beside its embedding: id, label, group, and columns of metadata."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING
from urllib.parse import quote

from mt.errors import InputError
from mt.types import MISSING, Array, LabelledRows

if TYPE_CHECKING:
    import numpy as np

COLUMNS = "columns/"
CONTENT, CONTENT_BYTES = "content", 16


def arrays_of(rows: LabelledRows[None], content: Array | Sequence[bytes] | None = None) -> dict[str, np.ndarray]:
    """Return the arrays that a file stores of the rows of one split, by dataset name.

    rows: their ids are unique.  Labels are (n,) integer classes, or (n, L) zeros and ones, one column per label;
    `MISSING` where one is not known.  A column holds n strings or n numbers; None becomes "" or NaN.
    content: (n, 16) uint8 or n times 16 bytes, the content hash of each row's image, zeros where it is not known; None
    if no hash is known.

    Raises:
        InputError: no row, repeated ids, unequal lengths, or values that cannot be stored.
    """
    _check(rows)
    stored = {"ids": _texts("ids", rows.ids), "labels": _labels(rows.y)}
    if rows.groups is not None:
        stored["groups"] = _texts("groups", rows.groups)
    for name in sorted(rows.columns):
        stored[COLUMNS + _quoted(name)] = _column(name, rows.columns[name])
    if content is not None:
        stored[CONTENT] = _content(content, len(rows.ids))
    return stored


def _content(hashes: Array | Sequence[bytes], n: int) -> np.ndarray:
    import numpy as np

    if not isinstance(hashes, np.ndarray):
        sizes = {len(one) for one in hashes} - {CONTENT_BYTES}
        hashes = np.frombuffer(b"".join(hashes), dtype="u1").reshape(-1, 1 if sizes else CONTENT_BYTES)
    if hashes.shape != (n, CONTENT_BYTES):
        raise InputError(f"content takes {n} hashes of {CONTENT_BYTES} bytes; got {len(hashes)}.")
    return np.ascontiguousarray(hashes, dtype="u1")


def _check(rows: LabelledRows[None]) -> None:
    n = len(rows.ids)
    if n == 0:
        raise InputError("A feature file needs at least one row; this split has none.")
    if not _differ(rows.ids):
        twice, times = Counter(rows.ids).most_common(1)[0]
        raise InputError(f"Row ids must be unique; '{twice}' is there {times} times.")
    lengths = {"labels": len(rows.y), **{name: len(values) for name, values in rows.columns.items()}}
    if rows.groups is not None:
        lengths["groups"] = len(rows.groups)
    for name, length in lengths.items():
        if length != n:
            raise InputError(f"{name} has {length} values for {n} rows.")


def _differ(ids: Sequence[str]) -> bool:
    """Say whether no two ids are equal; one sorted copy of their bytes takes less memory than a set."""
    import numpy as np

    from mt.types import Texts

    if not isinstance(ids, Texts):
        return len(set(ids)) == len(ids)
    ordered = np.sort(ids.encoded)
    return not bool((ordered[1:] == ordered[:-1]).any())


def _labels(y: Array) -> np.ndarray:
    import numpy as np

    labels = np.asarray(y)
    if labels.dtype.kind not in "iub" or labels.ndim not in (1, 2):
        raise InputError(
            f"Labels must be integers, (n,) classes or (n, L) zeros and ones; found {labels.dtype} {labels.shape}."
        )
    return np.ascontiguousarray(labels, dtype="<i8" if labels.ndim == 1 else "i1")


def is_unlabelled(labels: Array) -> np.ndarray:
    """Return (n,) bool, which rows have no label: their only label is missing, or all of several are."""
    unlabelled: np.ndarray = labels == MISSING if labels.ndim == 1 else (labels == MISSING).all(axis=1)
    return unlabelled


def hash_of(arrays: Mapping[str, np.ndarray]) -> str:
    """Return one sha256 of all arrays that a file stores of its rows, except `content`: equal for the same rows."""
    hashed = hashlib.sha256()
    for name, array in arrays.items():
        if name == CONTENT:
            continue
        hashed.update(f"{name} {array.dtype.str} {array.shape}\n".encode("utf-8", "surrogateescape"))
        hashed.update(array.data)
    return hashed.hexdigest()


def _column(name: str, values: Sequence[str | float | int | None]) -> np.ndarray:
    """Return a column as numbers where all are numbers, else as text."""
    import numpy as np

    from mt.types import Texts

    if isinstance(values, Texts):
        return _texts(name, values)
    kinds = {type(value) for value in values if value is not None}
    if any(issubclass(kind, str) for kind in kinds):
        if not all(issubclass(kind, str) for kind in kinds):
            raise InputError(f"Column '{name}' mixes text and numbers; make it one of the two.")
        return _texts(name, ["" if value is None else str(value) for value in values])
    if None in values or not all(issubclass(kind, int | np.integer | np.bool_) for kind in kinds):
        return np.array([np.nan if value is None else value for value in values], dtype="<f8")
    return np.array(values, dtype="<i8")


def _texts(name: str, values: Sequence[str] | Array) -> np.ndarray:
    """Return strings as a fixed-width UTF-8 array: unlike HDF5's variable strings, the same bytes every time.

    Names of files that are not valid UTF-8 keep their bytes (surrogateescape, as Python reads them).
    """
    import h5py
    import numpy as np

    from mt.types import Texts

    if not isinstance(values, Texts) and any("\0" in value for value in values):
        raise InputError(f"{name} hold a NUL character, which HDF5 strings cannot.")
    encoded = Texts.of(values).encoded
    width = int(np.char.str_len(encoded).max(initial=1))
    return encoded.astype(h5py.string_dtype("utf-8", width))


def _quoted(name: str) -> str:
    """Return a column's dataset name: no slash, which would be a folder, and no lone dot."""
    return quote(name, safe=" ()[]", errors="surrogateescape") if name.strip(".") else "%2E" * len(name) or "%"
