"""The solvers by name, the request that a solver gets, and the checks before any computation, each with its message.

`torch` is ours; `sklearn` is the reference, which starts each problem from zero and solves it alone, in float64 to a
tight tolerance; `cuml` is NVIDIA's, on a GPU.  This module imports none of them.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, replace
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, TypeGuard

import numpy as np

from mt.errors import FitError, MissingExtraError, unknown
from mt.types import MISSING, TASKS

if TYPE_CHECKING:
    from mt.probe.solver.row_source import StreamedRows

Rows: TypeAlias = "np.ndarray | StreamedRows"
DTYPES = ("float32", "float64")
ClassWeight = Mapping[int, float] | Literal["balanced"] | None


@dataclass(frozen=True)
class Solver:
    """A solver of logistic regressions along C.  Solving several requests together does not change their numbers.

    ``revision`` is raised whenever the solver's numbers change; it is stored with every score.  ``batched``: whether it
    solves requests together, which takes less time than one after another.
    """

    name: str
    revision: int
    batched: bool


SOLVERS = {
    solver.name: solver
    for solver in (
        Solver("torch", revision=7, batched=True),
        Solver("sklearn", revision=1, batched=False),
        Solver("cuml", revision=1, batched=False),
    )
}


def check_solver(name: str) -> Solver:
    """Return the solver of that name, installed or not.  Raises InputError for an unknown name."""
    if name not in SOLVERS:
        raise unknown("solver", name, SOLVERS, see="mt probe --help")
    return SOLVERS[name]


def get_solver(name: str) -> Solver:
    """Return the solver of that name.

    Raises InputError for an unknown name, and MissingExtraError if it is not installed.
    """
    solver = check_solver(name)
    if name == "cuml" and importlib.util.find_spec("cuml") is None:
        raise MissingExtraError(
            "Solver 'cuml' needs the package cuml and an NVIDIA GPU, and cuml is not installed. "
            "Install it: pip install 'medical-transfer[gpu]', or take --solver torch"
        )
    return solver


@dataclass(frozen=True, eq=False)
class LogisticRequest:
    """Logistic regressions on the same rows, one per C.  The fields are the arguments of `fit_logistic`."""

    X: Rows
    y: np.ndarray
    Cs: Sequence[float] | np.ndarray
    _: KW_ONLY
    task: str
    n_classes: int | None = None
    sample_weight: np.ndarray | None = None
    class_weight: ClassWeight = None
    tol: float = 1e-5
    max_iter: int = 1000
    device: str = "auto"
    dtype: str = "float32"
    memory: int | None = None

    def at(self, C: float) -> LogisticRequest:
        """Return the same request at one C."""
        return replace(self, Cs=[C])


def is_streamed(X: Any) -> TypeGuard[StreamedRows]:
    """Return whether rows are read from their file in every pass."""
    return hasattr(X, "traffic")


def check_features(X: Rows) -> Rows:
    """Return the features as a real (rows, dim) array without a copy; streamed rows as they are.

    Raises FitError for another shape, no rows or columns, or values that are not real numbers.
    """
    array = X if is_streamed(X) else np.asanyarray(X)
    if len(array.shape) != 2 or 0 in array.shape:
        raise FitError(f"Features must have shape (rows, dim) with at least one of each, found {array.shape}.")
    if array.dtype.kind not in "fiub":
        raise FitError(f"Features must be real numbers, found dtype {array.dtype}.")
    return array


def check_penalties(Cs: Sequence[float] | np.ndarray) -> np.ndarray:
    """Return Cs as float64 (Cs,).  Raises FitError unless all are positive and finite."""
    array = np.asarray(Cs, dtype=np.float64)
    if array.ndim != 1 or len(array) == 0:
        raise FitError(f"Cs must be a non-empty list of numbers, found shape {array.shape}.")
    if not (np.isfinite(array) & (array > 0)).all():
        bad = array[~(np.isfinite(array) & (array > 0))][0]
        raise FitError(f"Every C must be positive and finite, found {bad}.")
    return array


def check_targets(y: np.ndarray, weight: np.ndarray, *, task: str, n_classes: int | None) -> tuple[np.ndarray, int]:
    """Return targets (rows, labels) int64 and the number of outputs: classes, labels, or 1 for binary.

    A class counts as present if one of its rows has a positive ``weight`` (rows,).  Labels of a multilabel task may
    be MISSING.  Raises InputError for an unknown task, and FitError for labels that do not fit the task or the rows, or
    that hold one class only.
    """
    if task not in TASKS:
        raise unknown("task", task, TASKS, see="mt probe --help")
    array = np.asarray(y)
    wanted = 2 if task == "multilabel" else 1
    if array.ndim != wanted:
        raise FitError(f"Labels of a {task} task have {wanted} dimension(s), found shape {array.shape}.")
    if len(array) != len(weight):
        raise FitError(f"Features have {len(weight)} rows, but labels have {len(array)}.")
    if array.dtype.kind not in "iubf" or not np.isfinite(array).all() or (array != np.floor(array)).any():
        raise FitError(f"Labels of a {task} task must be whole numbers, found dtype {array.dtype}.")
    targets = array.astype(np.int64).reshape(len(array), -1)
    limit = 2 if task in ("binary", "multilabel") else (n_classes or int(targets.max()) + 1)
    lowest = MISSING if task == "multilabel" else 0
    outside = targets[(targets < lowest) | (targets >= limit)]
    if outside.size:
        raise FitError(f"Labels of this {task} task lie in 0 ... {limit - 1}, found {outside[0]}.")
    counted = targets[weight > 0]
    if task != "multilabel" and (counted == counted[0]).all():
        raise FitError(f"Labels of one class only: all {len(counted)} rows are of class {counted[0, 0]}; needed: two.")
    return targets, {"binary": 1, "multilabel": targets.shape[1]}.get(task, limit)


def refuse_constant_labels(targets: np.ndarray) -> None:
    """Raise FitError when a label of a multilabel task (rows, labels) has one class only among its known rows."""
    constant = np.flatnonzero(~((targets == 0).any(0) & (targets == 1).any(0)))
    if len(constant):
        named = ", ".join(map(str, constant[:10]))
        raise FitError(f"Labels of one class only in column(s) {named} of {targets.shape[1]}.")


def check_sample_weight(sample_weight: np.ndarray | None, rows: int) -> np.ndarray:
    """Return weights (rows,) float64, ones by default.  Raises FitError for weights that are not usable."""
    if sample_weight is None:
        return np.ones(rows)
    array = np.asarray(sample_weight, dtype=np.float64)
    if array.shape != (rows,):
        raise FitError(f"sample_weight has shape {array.shape}, expected ({rows},).")
    if not np.isfinite(array).all() or (array < 0).any() or not array.any():
        raise FitError("sample_weight must be finite, not negative and not all zero.")
    return array


def check_class_weight(class_weight: ClassWeight, classes: int) -> np.ndarray | Literal["balanced"] | None:
    """Return one weight per class number (classes,), "balanced" or None; a class that a mapping omits has weight 1."""
    if class_weight is None:
        return None
    if isinstance(class_weight, str):
        if class_weight != "balanced":
            raise FitError(f"class_weight must be 'balanced' or a mapping, found '{class_weight}'.")
        return "balanced"
    weights = np.ones(classes)
    for number, weight in class_weight.items():
        if number not in range(classes) or not (np.isfinite(weight) and weight >= 0):
            raise FitError(f"class_weight maps classes 0 ... {classes - 1} to weights >= 0, found {number}: {weight}.")
        weights[number] = weight
    return weights


def check_dtype(name: str) -> str:
    """Return the name of a precision.  Raises InputError unless it is "float32" or "float64"."""
    if name not in DTYPES:
        raise unknown("dtype", name, DTYPES, see="help(mt.fit_logistic)")
    return name


def check_folds(fold: np.ndarray, rows: int) -> np.ndarray:
    """Return fold numbers (rows,) as int64.  Raises FitError unless they are 0 ... K-1, K >= 2, each with rows."""
    array = np.asarray(fold)
    if array.shape != (rows,) or array.dtype.kind not in "iu":
        raise FitError(f"fold must number each of {rows} rows, found shape {array.shape}, dtype {array.dtype}.")
    found = np.unique(array)
    if len(found) < 2 or not np.array_equal(found, np.arange(len(found))):
        raise FitError(f"Folds must be numbered 0 ... K-1 with K >= 2, found {found[:10].tolist()}.")
    return array.astype(np.int64)
