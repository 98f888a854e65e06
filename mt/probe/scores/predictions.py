"""Labels and predicted probabilities: checked once, and what every metric derives from them.

Probabilities `p` are (n,) = P(class 1) for binary, (n, classes) for multiclass and ordinal, (n, labels) for multilabel.
Labels `y` are (n,) class numbers, or (n, labels) zeros and ones for multilabel, MISSING where a label is not known.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from mt.errors import InputError
from mt.types import MISSING, Array


def checked(y: ArrayLike, p: ArrayLike) -> tuple[Array, Array]:
    """Return labels as integers and probabilities as float64 after checking that they belong together.

    Raises InputError on shapes that disagree, labels that are not class numbers, and predictions that are not finite.
    """
    labels, probabilities = np.asarray(y), np.asarray(p, dtype=np.float64)
    if len(labels) == 0 or len(labels) != len(probabilities):
        raise InputError(f"as many predictions as labels are needed: {len(labels)} labels, {len(probabilities)} rows")
    if labels.ndim == 2 and labels.shape != probabilities.shape:
        raise InputError(f"multilabel predictions have the shape {labels.shape}, found {probabilities.shape}")
    if not np.isfinite(probabilities).all():
        raise InputError("predictions are finite probabilities, found NaN or infinity")
    return _class_numbers(labels, n_classes(labels, probabilities)), probabilities


def _class_numbers(labels: Array, classes: int) -> Array:
    """Return labels as int64 after checking that each is one of 0 ... classes - 1."""
    if labels.dtype.kind not in "biuf":
        raise InputError(f"labels are the class numbers 0 to {classes - 1}, found {labels.ravel()[0]!r}")
    if labels.dtype.kind == "f" and np.isnan(labels).any():
        raise InputError(f"{int(np.isnan(labels).sum())} labels are NaN: remove the cases without a label")
    lowest = MISSING if labels.ndim == 2 else 0
    wrong = (labels < lowest) | (labels >= classes) | (labels != np.floor(labels))
    if wrong.any():
        found = ", ".join(f"{value:g}" for value in np.unique(labels[wrong])[:3].astype(np.float64))
        raise InputError(f"labels are the class numbers 0 to {classes - 1} of these predictions, found {found}")
    return labels.astype(np.int64)


def n_classes(y: Array, p: Array) -> int:
    """Return how many values a label can have: 2 for binary and multilabel, else the columns of `p`."""
    return 2 if p.ndim == 1 or y.ndim == 2 else p.shape[1]


def predicted_class(p: Array) -> Array:
    """Return the most probable class; in a tie the first.  Binary: class 1 above 1/2."""
    return p.argmax(axis=1) if p.ndim == 2 else (p > 0.5).astype(np.int64)


def class_columns(p: Array) -> Array:
    """Return float64 probabilities with a column per class, rows summing to one exactly (float32 is stored)."""
    columns = np.column_stack([1 - p, p]) if p.ndim == 1 else p
    return np.asarray(columns / columns.sum(axis=1, keepdims=True), dtype=np.float64)


def indicator(y: Array, p: Array) -> Array:
    """Return (n, classes or labels) zeros and ones, MISSING where a label is not known."""
    if y.ndim == 2:
        return y
    return np.asarray(y[:, None] == np.arange(n_classes(y, p)), dtype=np.int64)


def both_values(truth: Array) -> Array:
    """Return which columns (classes,) of an indicator some cases are known to hold and others not to hold."""
    return np.asarray((truth == 0).any(axis=0) & (truth == 1).any(axis=0))


def known_cases(column: Array) -> slice | Array:
    """Return the rows whose label is known, of one column of an indicator: a slice where that is all of them."""
    known = column != MISSING
    return slice(None) if known.all() else np.flatnonzero(known)


def left_out(y: ArrayLike, p: ArrayLike) -> list[int]:
    """Return the classes or labels that averages over classes leave out: absent from the cases, or held by all.

    Of a label only the cases count for which it is known.
    """
    return np.flatnonzero(~both_values(indicator(*checked(y, p)))).tolist()


def collapsed(y: ArrayLike, p: ArrayLike) -> bool:
    """Whether all cases get the same prediction: one class, or in multilabel one and the same set of labels."""
    labels, probabilities = checked(y, p)
    prediction = probabilities > 0.5 if labels.ndim == 2 else predicted_class(probabilities)
    return bool((prediction == prediction[0]).all())
