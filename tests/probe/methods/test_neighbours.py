"""Nearest neighbours: the published votes, in blocks, with k chosen inside the budget."""

from __future__ import annotations

import numpy as np
import pytest

from mt.probe.method_settings import Neighbours
from mt.probe.methods import neighbours
from mt.probe.methods.linear import Scaling
from mt.probe.methods.neighbours import NeighbourProbe
from mt.probe.protocols import PROTOCOLS, Fitting
from mt.probe.run import fit_probe
from mt.types import LabelledRows
from tests.probe.brief import method_of


def data(n: int = 60, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    y = rng.permutation(np.arange(n) % 3)
    return (np.eye(3)[y] @ rng.normal(size=(3, 5)) + 0.8 * rng.normal(size=(n, 5))).astype(np.float32), y


def probe_on(X: np.ndarray, y: np.ndarray, k: int, vote: str, task: str = "multiclass") -> NeighbourProbe:
    scaling = Scaling.learn(X, "l2")
    return NeighbourProbe(task, int(y.max()) + 1, scaling, scaling.apply(X), y, k, vote, 0.07)


@pytest.mark.parametrize("vote", ["weighted", "majority"])
@pytest.mark.parametrize("k", [1, 7, 200])
def test_votes_are_those_of_the_whole_similarity_matrix(vote: str, k: int) -> None:
    (X, y), (queries, _) = data(), data(25, seed=1)
    unit, asked = (Z / np.linalg.norm(Z, axis=1, keepdims=True) for Z in (X, queries))
    similarity = asked @ unit.T
    expected = np.zeros((25, 3))
    for row, values in enumerate(similarity):
        for neighbour in np.argsort(-values)[:k]:
            expected[row, y[neighbour]] += np.exp(values[neighbour] / 0.07) if vote == "weighted" else 1
    expected /= expected.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(probe_on(X, y, k, vote).probabilities(queries), expected, atol=1e-4)


def test_blocks_change_nothing_and_stay_small(monkeypatch: pytest.MonkeyPatch) -> None:
    (X, y), (queries, _) = data(), data(50, seed=1)
    whole = probe_on(X, y, 5, "weighted").probabilities(queries)
    monkeypatch.setattr(neighbours, "_ENTRIES", 3 * len(X))
    sizes = [len(similarity) for _, similarity, _ in neighbours.nearest(queries, X, 5, "cpu")]
    assert max(sizes) == 3
    np.testing.assert_allclose(probe_on(X, y, 5, "weighted").probabilities(queries), whole, atol=1e-6)


def test_binary_returns_the_share_of_class_one() -> None:
    X, y = data()
    p = probe_on(X, (y > 0).astype(np.int64), 5, "majority", "binary").probabilities(X)
    assert p.shape == (60,)
    assert set(np.unique(p)) <= set(np.array([0, 0.2, 0.4, 0.6, 0.8, 1.0], np.float32))


@pytest.mark.parametrize("name", ["dino-knn", "thunder-knn"])
def test_k_is_chosen_out_of_fold_and_cut_to_the_rows_there_are(name: str) -> None:
    X, y = data()
    fitted = fit_probe(LabelledRows(X, y), Fitting(PROTOCOLS[name]).on("multiclass", 3), seed=0)
    scores = fitted.selection["scores"]
    ks = method_of(PROTOCOLS[name], Neighbours).ks
    by_fold = np.array(fitted.selection["folds"])
    assert by_fold.shape == (5, len(ks))
    if PROTOCOLS[name].selection_metric == "accuracy":  # folds of 12 rows each: their mean is what chose
        np.testing.assert_allclose(by_fold.mean(axis=0), scores)
    assert fitted.settings["k"] == min(ks[int(np.argmax(scores))], 60)
    few = np.concatenate([np.flatnonzero(y == c)[:1] for c in range(3)])
    alone = fit_probe(LabelledRows(X[few], y[few]), Fitting(PROTOCOLS[name]).on("multiclass", 3), seed=0)
    assert "fixed_k" in alone.flags
    assert alone.settings["k"] <= 3


def test_no_row_votes_for_itself_when_k_is_chosen() -> None:
    X, _ = data()
    noise = np.random.default_rng(5).integers(0, 3, len(X))
    fitted = fit_probe(LabelledRows(X, noise), Fitting(PROTOCOLS["thunder-knn"]).on("multiclass", 3), seed=0)
    assert fitted.selection["scores"][0] < 0.7  # k = 1 would be perfect if it found itself
