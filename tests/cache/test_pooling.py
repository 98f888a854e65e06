"""Pooling of bags, in any order and in parts of any size, equals NumPy's result on each whole bag."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest

from mt.cache.pooling import RULES, pooled, width
from mt.errors import InputError


def expected(rows: np.ndarray, rule: str) -> np.ndarray:
    rows = rows.astype(np.float64)
    parts = {"mean": rows.mean(axis=0), "max": rows.max(axis=0), "std": rows.std(axis=0)}
    return np.concatenate([parts[name] for name in rule.split("+")])


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("dtype", ["float16", "float32"])
@pytest.mark.parametrize("step", [1, 7, 5000])
def test_a_pooled_bag_is_what_numpy_says(rule: str, dtype: str, step: int) -> None:
    rng = np.random.default_rng(0)
    bags = rng.integers(0, 5, 2000)
    bags[bags == 4] = 0  # a bag of more rows than are merged at once
    rows = (100 + rng.standard_normal((2000, 3))).astype(dtype)
    parts = ((bags[start : start + step], rows[start : start + step]) for start in range(0, 2000, step))
    found = pooled(parts, 4, 3, rule)
    assert found.shape == (4, width(3, rule))
    for bag in range(4):
        np.testing.assert_allclose(found[bag], expected(rows[bags == bag], rule), rtol=2e-7)


def test_a_bag_of_one_row_has_no_spread_and_an_empty_one_no_numbers() -> None:
    found = pooled([(np.array([1]), np.ones((1, 2), dtype="f4"))], 2, 2, "mean+std")
    assert found[1].tolist() == [1, 1, 0, 0]
    assert np.isnan(found[0]).all()


def test_an_unknown_rule_names_the_known() -> None:
    with pytest.raises(InputError, match=r"No pooling 'median'. Expected: mean, max, mean\+std, mean\+max."):
        pooled([], 1, 1, "median")


def test_memory_grows_with_the_bags_alone() -> None:
    rows = np.ones((4096, 64), dtype="f2")

    def peak(parts: int) -> int:
        tracemalloc.start()
        pooled(((np.full(len(rows), part % 3), rows) for part in range(parts)), 3, 64, "mean+std")
        size = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return size

    peak(1)
    assert peak(40) < 1.1 * peak(2) < 3 * rows.nbytes
