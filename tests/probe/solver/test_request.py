"""What fit_logistic refuses, before it computes anything, and how it says so."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from mt.errors import FitError, InputError
from mt.probe.solver.api import fit_logistic, solve_folds
from mt.probe.solver.request import LogisticRequest

X = np.random.default_rng(0).standard_normal((6, 3))
Y = np.array([0, 1, 0, 1, 0, 1])


def holed(value: float) -> np.ndarray:
    spoiled = X.copy()
    spoiled[4, 1] = value
    return spoiled


REFUSED = {
    "one class": ({"y": np.zeros(6, dtype=int)}, "one class only: all 6 rows are of class 0"),
    "one class of weight": ({"sample_weight": Y.astype(float)}, "one class only: all 3 rows are of class 1"),
    "nan": ({"X": holed(np.nan)}, "must be finite, found NaN or infinity in column 1"),
    "infinity": ({"X": holed(np.inf)}, "must be finite"),
    "flat features": ({"X": X[:, 0]}, r"shape \(rows, dim\) .* found \(6,\)"),
    "no features": ({"X": X[:, :0]}, "at least one of each"),
    "text features": ({"X": X.astype(str)}, "real numbers"),
    "lengths": ({"y": Y[:4]}, "Features have 6 rows, but labels have 4"),
    "zero C": ({"Cs": [1.0, 0.0]}, "must be positive and finite, found 0.0"),
    "negative C": ({"Cs": [-1.0]}, "found -1.0"),
    "nan C": ({"Cs": [np.nan]}, "found nan"),
    "no C": ({"Cs": []}, "non-empty"),
    "label 2 in binary": ({"y": Y * 2}, r"binary task lie in 0 \.\.\. 1, found 2"),
    "negative label": ({"y": Y - 1, "task": "multiclass"}, "found -1"),
    "label beyond n_classes": ({"y": Y * 5, "task": "ordinal", "n_classes": 4}, r"lie in 0 \.\.\. 3, found 5"),
    "fractional labels": ({"y": Y + 0.5}, "whole numbers"),
    "nan labels": ({"y": np.where(Y == 1, np.nan, 0.0)}, "whole numbers"),
    "text labels": ({"y": Y.astype(str)}, "whole numbers"),
    "matrix for binary": ({"y": np.c_[Y, Y]}, r"1 dimension\(s\), found shape \(6, 2\)"),
    "vector for multilabel": ({"task": "multilabel"}, r"2 dimension\(s\)"),
    "constant label": ({"y": np.c_[Y, Y * 0], "task": "multilabel"}, r"one class only in column\(s\) 1 of 2"),
    "weights' length": ({"sample_weight": np.ones(5)}, r"shape \(5,\), expected \(6,\)"),
    "negative weight": ({"sample_weight": -np.ones(6)}, "not negative"),
    "zero weights": ({"sample_weight": np.zeros(6)}, "not all zero"),
    "class weight's name": ({"class_weight": "even"}, "'balanced' or a mapping, found 'even'"),
    "class weight's class": ({"class_weight": {2: 1.0}}, r"classes 0 \.\.\. 1 .* found 2: 1.0"),
}


@pytest.mark.parametrize(("change", "message"), REFUSED.values(), ids=REFUSED)
@pytest.mark.parametrize("folded", [False, True], ids=["whole", "folds"])
def test_refuses(change: dict[str, Any], message: str, folded: bool) -> None:
    if folded and "column" in message and "one class" in message:
        pytest.skip("inside folds a constant label predicts its base rate")
    options: dict[str, Any] = {"X": X, "y": Y, "Cs": [1.0], "task": "binary"} | change
    with pytest.raises(FitError, match=message):
        solve_folds([LogisticRequest(**options)], [np.arange(6) % 2]) if folded else fit_logistic(**options)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"task": "binery"}, "No task 'binery'. Did you mean 'binary'"),
        ({"dtype": "float16"}, "No dtype 'float16'"),
        ({"device": "warp"}, "No device 'warp' here"),
    ],
)
def test_refuses_unknown_names(change: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        fit_logistic(X, Y, [1.0], **({"task": "binary"} | change))


@pytest.mark.parametrize("fold", [np.zeros(6, dtype=int), np.array([0, 2] * 3), np.arange(5), np.arange(6) / 2])
def test_refuses_folds_that_are_none(fold: np.ndarray) -> None:
    with pytest.raises(FitError, match=r"[Ff]old"):
        solve_folds([LogisticRequest(X, Y, [1.0], task="binary")], [fold])
