"""Words that every room shares: arrays, tasks and their headline metrics, many texts as one array, rows with labels.

numpy is imported where it is used: `mt --help` reads this module.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import TYPE_CHECKING, Any, Generic, Literal, Protocol, TypeAlias, TypeVar, get_args, overload

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

# Strings, so that `mt --help` need not import numpy.
Array: TypeAlias = "npt.NDArray[Any]"
# For each row what must not be split across train and test: usually its patient.
Groups: TypeAlias = "Sequence[Any] | npt.NDArray[Any]"

Task = Literal["binary", "multiclass", "ordinal", "multilabel"]
TASKS: tuple[str, ...] = get_args(Task)
SINGLE_LABEL = tuple(task for task in TASKS if task != "multilabel")
# A label of a multilabel row that nobody knows: it enters no fit, no budget and no score of that label.
MISSING = -1
# Below these a test split says little: units (groups, else cases) of the rarest class, and groups.
FEW_UNITS, FEW_GROUPS = 20, 10
# Below this many images a test split that we draw wastes them: test folds are suggested, by this command.
FEW_IMAGES, TEST_BY_FOLDS = 500, "mt probe --test-folds 5 --repeats 3"
# The metric that a task is judged by, unless the dataset's publisher names another.
HEADLINE: dict[str, str] = {
    "binary": "roc_auc",
    "multiclass": "accuracy",
    "ordinal": "quadratic_kappa",
    "multilabel": "mean_auc",
}

PART = 1 << 16  # texts that are Python strings at a time
Rows: TypeAlias = "npt.NDArray[np.integer[Any]] | npt.NDArray[np.bool_]"

F = TypeVar("F")  # features: a matrix, a tuple with one matrix per model, or None
G = TypeVar("G")


class Texts(Sequence[str]):
    """Many short texts as one array: ids, groups and names of files, of which a dataset may have ten million.

    A list of Python strings takes 60 to 110 bytes per text beside its letters; `Texts` takes the bytes of the longest.
    They are UTF-8 of one width, as a feature file stores them and numpy sorts them.

    encoded: (n,) bytes, padded with zeros; names of files that are not UTF-8 keep their bytes (surrogateescape).  No
    text holds a NUL character.
    """

    __slots__ = ("encoded",)
    __hash__ = None  # type: ignore[assignment]

    def __init__(self, encoded: npt.NDArray[np.bytes_]) -> None:
        self.encoded = encoded

    @classmethod
    def of(cls, values: Iterable[str]) -> Texts:
        """Return these texts as one array; `Texts` are returned as they are."""
        if isinstance(values, Texts):
            return values
        import numpy as np

        remaining, parts = iter(values), []
        while part := list(islice(remaining, PART)):
            parts.append(_encoded(part))
        return cls(np.concatenate(parts) if parts else np.empty(0, dtype="S1"))

    def __len__(self) -> int:
        return len(self.encoded)

    @overload
    def __getitem__(self, place: int) -> str: ...
    @overload
    def __getitem__(self, place: slice | Rows) -> Texts: ...
    def __getitem__(self, place: int | slice | Rows) -> str | Texts:
        found: Any = self.encoded[place]
        return _text(found) if isinstance(found, bytes) else Texts(found)

    def __iter__(self) -> Iterator[str]:
        for start in range(0, len(self), PART):
            part = self.encoded[start : start + PART]
            try:
                yield from part.astype("U").tolist()  # ASCII: three times as fast as one text at a time
            except UnicodeDecodeError:
                yield from map(_text, part.tolist())

    def __contains__(self, value: object) -> bool:
        return isinstance(value, str) and "\0" not in value and bool((self.encoded == _bytes(value)).any())

    def __eq__(self, other: object) -> bool:
        if isinstance(other, Texts):
            return len(self) == len(other) and bool((self.encoded == other.encoded).all())
        if isinstance(other, Sequence) and not isinstance(other, str):
            return len(self) == len(other) and all(one == two for one, two in zip(self, other, strict=True))
        return NotImplemented

    def __repr__(self) -> str:
        shown = ", ".join(map(repr, self[:3])) + (", ..." if len(self) > 3 else "")
        return f"Texts({len(self):,}: {shown})"

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> npt.NDArray[Any]:
        """Return an array of strings, as numpy makes one of a list of them: four bytes per letter."""
        import numpy as np

        return np.array(list(self), dtype=dtype or np.str_)

    def take(self, rows: Rows) -> Texts:
        """Return some of the texts, by number."""
        return Texts(self.encoded[rows])

    def distinct(self) -> tuple[list[str], npt.NDArray[np.int64]]:
        """Return the different texts in the order in which they first occur, and (n,) the number of each row's text."""
        import numpy as np

        values, first, code = np.unique(self.encoded, return_index=True, return_inverse=True)
        order = np.argsort(first, kind="stable")
        place = np.empty(len(order), dtype=np.int64)
        place[order] = np.arange(len(order))
        return list(Texts(values[order])), place[code]

    def mapped(self, function: Callable[[str], str]) -> Texts:
        """Return the function's value for each text; it is called once per different text among 65,536 neighbours."""
        import numpy as np

        parts = []
        for start in range(0, len(self), PART):
            values, code = np.unique(self.encoded[start : start + PART], return_inverse=True)
            parts.append(Texts.of(function(value) for value in Texts(values)).encoded[code])
        return Texts(np.concatenate(parts)) if parts else self


class Prefixed(Sequence[str]):
    """Texts with a common beginning, such as the paths of files in one folder; `rest` holds what follows it."""

    __slots__ = ("beginning", "rest")
    __hash__ = None  # type: ignore[assignment]

    def __init__(self, beginning: str, rest: Texts) -> None:
        self.beginning, self.rest = beginning, rest

    def __len__(self) -> int:
        return len(self.rest)

    @overload
    def __getitem__(self, place: int) -> str: ...
    @overload
    def __getitem__(self, place: slice | Rows) -> Prefixed: ...
    def __getitem__(self, place: int | slice | Rows) -> str | Prefixed:
        found = self.rest[place]
        return Prefixed(self.beginning, found) if isinstance(found, Texts) else self.beginning + found

    def __iter__(self) -> Iterator[str]:
        return map(self.beginning.__add__, self.rest)

    def __eq__(self, other: object) -> bool:
        if isinstance(other, Sequence) and not isinstance(other, str):
            return len(self) == len(other) and all(one == two for one, two in zip(self, other, strict=True))
        return NotImplemented


@dataclass(frozen=True, eq=False)
class LabelledRows(Generic[F]):
    """Rows whose labels may be read, in a fixed order: a split, a budget, a fold, or test cases.

    X: their features: a matrix (n, dim), a tuple of matrices (n, d_m), one per model, or None.
    y: (n,) int64 class numbers, or (n, L) int8 zeros and ones, one column per label of a multilabel task; `MISSING`
    where a label is not known.
    groups: for each row what must not be split across train and test, usually the patient; None if unknown.
    ids: for each row its name; empty where names do not matter.
    columns: metadata by name, one value per row.
    """

    X: F
    y: Array
    groups: Groups | None = None
    ids: Sequence[str] = ()
    columns: Mapping[str, Sequence[Any]] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.y)

    def take(self, rows: Array) -> LabelledRows[F]:
        """Return some of the rows, by row number, in the order of `rows`."""
        X: Any = self.X
        if X is not None:
            X = tuple(one[rows] for one in X) if isinstance(X, tuple) else X[rows]
        return LabelledRows(
            X,
            self.y[rows],
            None if self.groups is None else _taken(self.groups, rows),
            _taken(self.ids, rows) if len(self.ids) else (),
            {name: _taken(values, rows) for name, values in self.columns.items()},
        )

    def with_features(self, X: G) -> LabelledRows[G]:
        """Return the same rows with other features."""
        return LabelledRows(X, self.y, self.groups, self.ids, self.columns)


@dataclass(frozen=True, eq=False)
class ScoredRows:
    """Labelled rows with the probabilities that a fitted method gives them.

    p: (n,) probabilities of class 1 for binary, (n, K) for multiclass and ordinal, (n, L) for multilabel.
    flags: what a reader of a score should know.  fold: (n,) the test fold of each row, if each fold has its own model.
    """

    rows: LabelledRows[Any]
    p: Array
    flags: tuple[str, ...] = ()
    fold: Array | None = None

    def __len__(self) -> int:
        return len(self.p)

    @property
    def y(self) -> Array:
        return self.rows.y

    @property
    def groups(self) -> Groups | None:
        return self.rows.groups

    def take(self, rows: Array) -> ScoredRows:
        """Return some of the rows with their probabilities."""
        fold = None if self.fold is None else self.fold[rows]
        return replace(self, rows=self.rows.take(rows), p=self.p[rows], fold=fold)


class CaseFeatures(Protocol):
    """What probing reads of a split: a feature file, or one whose rows are pooled to cases."""

    @property
    def manifest(self) -> dict[str, Any]: ...
    @property
    def fingerprints(self) -> dict[str, str]: ...
    @property
    def dataset(self) -> str: ...
    @property
    def split(self) -> str: ...
    @property
    def backbone(self) -> str: ...
    @property
    def task(self) -> str: ...
    @property
    def class_names(self) -> tuple[str, ...]: ...
    @property
    def dim(self) -> int: ...
    @property
    def ids(self) -> Sequence[str]: ...
    @property
    def labels(self) -> Array: ...
    @property
    def groups(self) -> Groups | None: ...
    @property
    def columns(self) -> Mapping[str, Sequence[Any]]: ...
    @property
    def embeddings(self) -> Any: ...


def _taken(values: Any, rows: Array) -> Any:
    """Return the values of some rows, from an array, `Texts` or any other sequence."""
    return values[rows] if hasattr(values, "take") else [values[row] for row in rows]


def distinct(values: Sequence[str]) -> tuple[list[str], npt.NDArray[np.int64]]:
    """Return the different texts in the order in which they first occur, and (n,) the number of each row's text."""
    return Texts.of(values).distinct()


def sortable(values: Any) -> npt.NDArray[Any]:
    """Return an array that sorts as the texts do, by code point: their bytes if all are UTF-8, else strings."""
    import numpy as np

    return values.encoded if isinstance(values, Texts) and _is_utf8(values.encoded) else np.asarray(values)


def _is_utf8(encoded: npt.NDArray[np.bytes_]) -> bool:
    """Say whether all texts are UTF-8: other bytes sort differently as bytes than as strings."""
    try:
        for start in range(0, len(encoded), PART):
            part = encoded[start : start + PART]
            if not part.tobytes().isascii():
                [value.decode() for value in part.tolist()]
    except UnicodeDecodeError:
        return False
    return True


def _encoded(values: list[str]) -> npt.NDArray[np.bytes_]:
    import numpy as np

    try:
        return np.array(values, dtype=np.bytes_)  # ASCII
    except UnicodeEncodeError:
        return np.array([_bytes(value) for value in values], dtype=np.bytes_)


def _bytes(value: str) -> bytes:
    return value.encode("utf-8", "surrogateescape")


def _text(value: bytes) -> str:
    return value.decode("utf-8", "surrogateescape")
