"""Words that every room shares: arrays, tasks and their headline metrics, and rows with labels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Generic, Literal, Protocol, TypeAlias, TypeVar, get_args

if TYPE_CHECKING:
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

F = TypeVar("F")  # features: a matrix, a tuple with one matrix per model, or None
G = TypeVar("G")


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
    def ids(self) -> list[str]: ...
    @property
    def labels(self) -> Array: ...
    @property
    def groups(self) -> list[str] | None: ...
    @property
    def columns(self) -> dict[str, list[Any]]: ...
    @property
    def embeddings(self) -> Any: ...


def _taken(values: Any, rows: Array) -> Any:
    """Return the values of some rows, from an array, `Texts` or any other sequence."""
    return values[rows] if hasattr(values, "take") else [values[row] for row in rows]
