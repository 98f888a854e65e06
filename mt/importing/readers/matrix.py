"""One file's embeddings: their shape, what is known of each row, and the rows themselves in parts."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from mt.errors import InputError
from mt.types import Array

PART_BYTES = 1 << 25  # of rows that are read at once, so that memory stays flat
_FEATURES = ("features", "embeddings", "embedding", "feats", "feature", "x", "emb", "arr_0")
_BESIDE = ("id", "ids", "label", "labels", "y", "split", "splits", "group", "groups", "bag", "bags")
_SINGULAR = {"ids": "id", "labels": "label", "y": "label", "splits": "split", "groups": "group", "bags": "bag"}


@dataclass(frozen=True)
class Matrix:
    """Embeddings (n, dim) of one file.

    parts: yields consecutive rows, all of them once per call.  beside: columns of text that the file holds beside the
    embeddings, one value per row.  lines: the line of each row in a text file; empty for other files.
    one_case: the layout of the file says that all of its rows belong to one case.
    """

    path: Path
    n: int
    dim: int
    dtype: str
    parts: Callable[[], Iterator[Array]]
    beside: Mapping[str, Sequence[str]] = field(default_factory=dict)
    lines: Sequence[int] = ()
    one_case: bool = False


def stored_dtype(dtype: np.dtype) -> str:
    """Return the type in which a feature file stores values of a type: float16 stays, all others become float32."""
    return "float16" if dtype == np.float16 else "float32"


def rows_per_part(dim: int, itemsize: int) -> int:
    """Return how many rows are read at once."""
    return max(1, PART_BYTES // max(1, dim * itemsize))


def matrix_of(path: Path, array: Array, beside: Mapping[str, Sequence[str]], *, what: str = "") -> Matrix:
    """Return the embeddings in an array that is in memory or mapped: (n, dim), (1, n, dim), or (dim,) of one case."""
    n, dim = checked_shape(path, array.shape, array.dtype, what)
    rows = array.reshape(n, dim)
    step = rows_per_part(dim, array.dtype.itemsize)

    def parts() -> Iterator[Array]:
        return (np.asarray(rows[start : start + step]) for start in range(0, n, step))

    return Matrix(path, n, dim, stored_dtype(array.dtype), parts, beside)


def checked_shape(path: Path, shape: Sequence[int], dtype: np.dtype, what: str = "") -> tuple[int, int]:
    """Return the rows and columns of an array's shape.

    Raises InputError for other shapes and for arrays that do not hold numbers.
    """
    name = f"{path}{f', {what!r}' if what else ''}"
    if dtype.kind not in "fiu" or dtype.itemsize > 8:
        raise InputError(f"{name} holds {dtype}, expected embeddings of float16, float32 or float64.")
    if len(shape) == 3 and shape[0] == 1:
        shape = shape[1:]
    if len(shape) == 1:
        shape = (1, *shape)
    if len(shape) != 2 or 0 in shape:
        raise InputError(f"{name} has the shape {tuple(shape)}, expected (rows, dimensions).")
    return int(shape[0]), int(shape[1])


def chosen_key(path: Path, shapes: Mapping[str, Sequence[int]], key: str | None) -> str:
    """Return the name of the array that holds the embeddings: the one asked for, or found by name or shape."""
    if key is not None:
        if key not in shapes:
            raise InputError(f"{path} holds no '{key}'. Found: {', '.join(shapes) or 'nothing'}. Choose with --key.")
        return key
    named = [name for name in shapes if name.lower() in _FEATURES]
    wide = [name for name, shape in shapes.items() if len(shape) in (2, 3) and name.lower() not in _BESIDE]
    for found in (named, wide):
        if len(found) == 1:
            return found[0]
    described = ", ".join(f"{name} {tuple(shape)}" for name, shape in shapes.items()) or "nothing"
    raise InputError(f"{path}: which array holds the embeddings? Found {described}. Choose: --key NAME")


def is_beside(name: str, shape: Sequence[int], n: int) -> bool:
    """Return whether an array holds one value per row of a kind that a label table holds."""
    return name.lower() in _BESIDE and tuple(shape) == (n,)


def beside_name(name: str) -> str:
    """Return the name of a label table's column for an array: `labels` is `label`."""
    return _SINGULAR.get(name.lower(), name.lower())


def as_text(values: Array) -> list[str]:
    """Return an array's values as a table of text would hold them: whole numbers without a point."""
    if values.dtype.kind == "f":
        whole = bool(np.isfinite(values).all() and (values == np.round(values)).all())
        return [str(int(value)) if whole else "" if np.isnan(value) else repr(float(value)) for value in values]
    if values.dtype.kind == "S":
        return [value.decode("utf-8", "surrogateescape") for value in values.tolist()]
    if values.dtype.kind == "b":
        return [str(int(value)) for value in values]
    return [str(value).strip() for value in values.tolist()]
