"""Rows that are read chunk by chunk give the solutions of rows in memory, within the tolerance."""

from __future__ import annotations

import mmap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mt.errors import FitError
from mt.probe.methods.linear import Scaling
from mt.probe.solver import row_source, streaming
from mt.probe.solver.api import solve_folds, solve_paths, solve_refits
from mt.probe.solver.fits import probabilities
from mt.probe.solver.request import LogisticRequest
from mt.probe.solver.row_source import StreamedRows, Traffic
from mt.types import MISSING
from tests.noting import noted

CS = [1e-3, 0.1, 1.0, 100.0]
ROWS, DIM, CLASSES = 700, 10, 3
FOLD = np.arange(ROWS) % 4
TASKS = ["binary", "multiclass", "ordinal", "multilabel"]


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Read about 60 rows at once, so that every pass has a dozen chunks, the last one shorter."""
    monkeypatch.setattr(streaming, "CHUNK_BYTES", 61 * DIM * 4)
    monkeypatch.setattr(row_source, "READ_BYTES", 61 * DIM * 2)


def features(*, spread: float = 1.0, dtype: str = "float16") -> np.ndarray:
    """Return rows with one constant column, two equal ones, and spreads from 1 to `spread`."""
    rng = np.random.default_rng(0)
    X = rng.standard_normal((ROWS, DIM)) @ rng.standard_normal((DIM, DIM)) / 3 + 3
    X[:, 2], X[:, 4] = 1.5, X[:, 5]
    return (X * np.geomspace(1, spread, DIM)).astype(dtype)


def labels(task: str, X: np.ndarray, *, noise: float = 1.0) -> np.ndarray:
    rng = np.random.default_rng(1)
    Z = (X - X.mean(0, dtype="f8")) / np.maximum(X.std(0, dtype="f8"), 1e-9)
    logits = Z @ rng.standard_normal((DIM, CLASSES)) + noise * rng.gumbel(size=(ROWS, CLASSES))
    if task == "multilabel":
        y = (logits > 1).astype(np.int8)
        y[rng.random(y.shape) < 0.1] = MISSING
        return np.asarray(y)
    return np.asarray(np.where(logits[:, 0] > 0.5, 1, 0) if task == "binary" else logits.argmax(1))


def both(
    X: np.ndarray,
    y: np.ndarray,
    *,
    scaling: str = "standardize",
    dtype: str = "float32",
    Cs: Sequence[float] = CS,
    **options: Any,
) -> list[LogisticRequest]:
    """Return the request on rows in memory and the same on rows that are read."""
    learnt = Scaling.learn(X, scaling)
    options |= {"dtype": dtype, "n_classes": None if options["task"] == "binary" else CLASSES}
    streamed = StreamedRows(X, 1 << 20, Traffic()).scaled(learnt)
    return [LogisticRequest(rows, y, Cs, **options) for rows in (learnt.apply(X, dtype), streamed)]


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"class_weight": "balanced"},
        {"class_weight": {0: 2.0, 1: 0.5}, "dtype": "float64"},
        {"sample_weight": np.random.default_rng(3).integers(0, 3, ROWS).astype(float)},
    ],
    ids=["plain", "balanced", "weights-in-double", "sample-weights"],
)
def test_folds_refit_and_paths_equal_those_in_memory(task: str, options: dict[str, Any]) -> None:
    X = features()
    y = labels(task, X)
    memory, streamed = both(X, y, task=task, **options)
    (held, streamed_held), (path, streamed_path) = zip(
        *((solve_folds([one], [FOLD])[0], solve_paths([one])[0]) for one in (memory, streamed)), strict=True
    )
    assert streamed_held.fold_converged.all()
    assert streamed_path.converged.all()
    np.testing.assert_allclose(streamed_path.objective, path.objective, rtol=2e-5)
    for c in range(len(CS)):
        found, expected = (probabilities(one.oof[c].astype("f8"), task) for one in (streamed_held, held))
        np.testing.assert_allclose(found, expected, atol=2e-3)
    refit, streamed_refit = (
        solve_refits([memory.at(1.0)], [held])[0],
        solve_refits([streamed.at(1.0)], [streamed_held])[0],
    )
    np.testing.assert_allclose(streamed_refit.objective, refit.objective, rtol=2e-5)
    inside = Scaling.learn(X, "standardize").apply(X, "float64")
    np.testing.assert_allclose(streamed_refit.predict_proba(inside, 0), refit.predict_proba(inside, 0), atol=2e-3)


@pytest.mark.parametrize("task", ["binary", "multiclass", "multilabel"])
@pytest.mark.parametrize("scaling", ["none", "l2"])
@pytest.mark.parametrize("spread", [1.0, 1e4])
def test_features_that_are_not_standardised_keep_their_weak_directions(task: str, scaling: str, spread: float) -> None:
    X = features(spread=spread, dtype="float32")
    y = labels(task, X, noise=0.3)
    Cs = [1e-2, 1.0, 1e3]
    memory, streamed = (solve_paths([one])[0] for one in both(X, y, task=task, scaling=scaling, Cs=Cs))
    assert streamed.converged.all()
    np.testing.assert_allclose(streamed.objective, memory.objective, rtol=2e-5)


@pytest.mark.parametrize("task", ["binary", "multiclass"])
def test_separable_labels_at_large_C_reach_the_optimum(task: str) -> None:
    X = features(dtype="float32")
    y = labels(task, X, noise=0.0)
    memory, streamed = (solve_paths([one])[0] for one in both(X, y, task=task, Cs=[1.0, 1e3, 1e5]))
    assert streamed.converged.all()
    np.testing.assert_allclose(streamed.objective, memory.objective, rtol=2e-5)


@pytest.mark.parametrize("memory", [1 << 10, 1 << 20], ids=["read in every step", "held"])
def test_rows_that_are_chosen_are_the_rows_of_the_fit(memory: int) -> None:
    X = features()
    y, chosen = labels("multiclass", X), np.flatnonzero(np.random.default_rng(4).random(ROWS) < 0.4)
    source = StreamedRows(X, memory, Traffic())
    for rows in (source[chosen], source[np.isin(np.arange(ROWS), chosen)], source[np.arange(ROWS) >= 0][chosen]):
        [path] = solve_paths([LogisticRequest(rows, y[chosen], CS, task="multiclass")])
        [expected] = solve_paths([LogisticRequest(X[chosen], y[chosen], CS, task="multiclass")])
        np.testing.assert_allclose(path.objective, expected.objective, rtol=2e-5)


def test_the_rows_are_held_in_chunks_and_every_pass_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    X = features()
    rows = StreamedRows(X, 1 << 20, Traffic())
    read: list[slice] = []
    monkeypatch.setattr(StreamedRows, "raw", noted(StreamedRows.raw, lambda self, rows: read.append(rows)))
    [path] = solve_paths([LogisticRequest(rows, labels("binary", X), CS, task="binary")])
    *fitted, objective = read  # the objective is read at most 8 MiB at once
    assert max(part.stop - part.start for part in fitted) < ROWS / 2
    assert objective == slice(0, ROWS)
    assert rows.traffic.bytes == sum(len(X[part]) for part in read) * DIM * 2
    assert path.n_iter.max() < rows.traffic.passes < 3 * path.n_iter.max() + 10
    assert "passes" in str(rows.traffic)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_value_that_is_not_finite_is_refused_with_its_column(bad: float) -> None:
    X = features()
    X[ROWS - 1, 7] = bad
    request = LogisticRequest(StreamedRows(X, 1 << 20, Traffic()), labels("binary", features()), CS, task="binary")
    with pytest.raises(FitError, match="column 7"):
        solve_paths([request])


def test_logits_that_outgrow_the_limit_lie_in_a_file() -> None:
    rows = StreamedRows(features(), 1 << 20, Traffic())
    small, large = rows.empty((4, 100)), rows.empty((4, 1 << 20))
    assert not isinstance(small, np.memmap)
    assert isinstance(large, np.memmap)
    large[:] = 1.5
    assert float(large.sum()) == 1.5 * large.size


@pytest.mark.parametrize(("memory", "rows_per_read"), [(1 << 20, [210, 210, 210, 70]), (1 << 10, [70] * 10)])
@pytest.mark.parametrize("chosen", [False, True])
def test_rows_are_read_ahead_in_larger_parts_than_they_are_used(
    memory: int, rows_per_read: list[int], chosen: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    X, read = features(dtype="float64"), list[int]()
    monkeypatch.setattr(row_source, "READ_BYTES", 3 * 70 * X[0].nbytes)
    monkeypatch.setattr(StreamedRows, "raw", noted(StreamedRows.raw, lambda self, rows: read.append(len(X[rows]))))
    source = StreamedRows(X, memory, Traffic(), np.arange(ROWS) if chosen else None)
    parts = list(source.read_ahead(70))
    assert read == rows_per_read
    assert {len(part) for _, part in parts} == {70}
    np.testing.assert_array_equal(np.concatenate([part for _, part in parts]), X)
    np.testing.assert_array_equal(np.concatenate([np.arange(ROWS)[rows] for rows, _ in parts]), np.arange(ROWS))


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="the pages of a process are counted on Linux")
@pytest.mark.parametrize("chosen", [False, True])
def test_rows_that_were_read_no_longer_count_as_memory_of_the_process(chosen: bool, tmp_path: Path) -> None:
    X = np.random.default_rng(0).standard_normal((1 << 17, 64)).astype(np.float32)
    (tmp_path / "rows").write_bytes(b"head" + X.tobytes())
    with open(tmp_path / "rows", "rb") as file:
        mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    matrix = np.frombuffer(mapped, dtype=np.float32, offset=4).reshape(X.shape)
    source = StreamedRows(matrix, 1 << 20, Traffic(), np.arange(len(X)) if chosen else None)
    before = file_pages()
    for rows, part in source.read_ahead(1024):
        np.testing.assert_array_equal(part, X[rows])
    assert (file_pages() - before) * mmap.PAGESIZE < X.nbytes // 4
    np.testing.assert_array_equal(matrix, X)


def file_pages() -> int:
    """Return how many pages of files are mapped and held by this process."""
    return int(Path("/proc/self/statm").read_text().split()[2])


def test_chosen_rows_that_fit_are_read_once() -> None:
    X, traffic = features(), Traffic()
    chosen = np.flatnonzero(np.random.default_rng(4).random(ROWS) < 0.4)
    few = StreamedRows(X, 4 * X[chosen].nbytes, traffic)[chosen]
    many = StreamedRows(X, 4 * X[chosen].nbytes - 1, Traffic())[chosen]
    for _ in range(3):
        for rows in (few, many, few[np.arange(len(few)) >= 0]):
            np.testing.assert_array_equal(np.concatenate([part for _, part in rows.read_ahead(50)]), X[chosen])
    assert (few.held, many.held) == (True, False)
    assert traffic.bytes == X[chosen].nbytes
    assert many.traffic.bytes == 3 * X[chosen].nbytes
