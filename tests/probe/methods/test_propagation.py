"""Label propagation: the linear system, what a fold sees, the weight inside the budget, the pool in the identity."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from mt.errors import InputError
from mt.probe.methods import propagation
from mt.probe.methods.blend import MeanProbe
from mt.probe.methods.linear import LinearProbe
from mt.probe.methods.propagation import PropagatedProbe, UnlabelledPool, _Graph
from mt.probe.protocols import PROTOCOLS, Fitted, Fitting
from mt.probe.run import fit_probes
from mt.results.store import ScoreStore
from mt.types import LabelledRows
from tests.probe.features import probed, write_pair

PROTOCOL = PROTOCOLS["propagate"]


def clusters(n: int = 120, *, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Return four tight clusters, the corners of a square: a line cannot part their classes, neighbours can."""
    rng = np.random.default_rng(seed)
    which = np.arange(n) % 4
    corners = np.array([[1.0, 1, 2], [3, 3, 2], [1, 3, 2], [3, 1, 2]])
    return (corners[which] + 0.15 * rng.normal(size=(n, 3))).astype(np.float32), np.array([0, 0, 1, 1])[which]


def fitted(X: np.ndarray, y: np.ndarray, rows: np.ndarray, **asked: object) -> Fitted:
    ids = [f"row {number}" for number in range(len(X))]
    budget = LabelledRows(X[rows], y[rows], None, [ids[row] for row in rows])
    fitting = Fitting(PROTOCOL).on("binary", 2)
    return fit_probes([(budget, 0)], fitting, pool=UnlabelledPool(X, ids), **asked)[0]  # type: ignore[arg-type]


def test_the_linear_system_is_solved() -> None:
    X, y = clusters()
    graph = _Graph(UnlabelledPool(X, range(120)).neighbours(10), 0.95)  # type: ignore[arg-type]
    S = graph.S.toarray()
    np.testing.assert_allclose(S, S.T, atol=1e-12)
    Y = np.zeros((120, 2))
    Y[np.arange(20), y[:20]] = 1
    exact = np.linalg.solve(np.eye(120) - 0.95 * S, Y)
    (found,) = graph.propagate([np.arange(20)], [y[:20]], 2)
    np.testing.assert_allclose(found, exact / exact.sum(axis=1, keepdims=True), atol=1e-4)


def test_sets_of_labels_do_not_change_each_other() -> None:
    X, y = clusters()
    graph = _Graph(UnlabelledPool(X, range(120)).neighbours(5), 0.95)  # type: ignore[arg-type]
    sets = [np.arange(8), np.arange(30)]
    together = graph.propagate(sets, [y[rows] for rows in sets], 2)
    for rows, one in zip(sets, together, strict=True):
        np.testing.assert_allclose(one, graph.propagate([rows], [y[rows]], 2)[0], atol=1e-4)


def test_rows_are_no_neighbours_of_themselves_even_among_twins() -> None:
    near = UnlabelledPool(np.ones((30, 4), dtype=np.float32), range(30)).neighbours(5)  # type: ignore[arg-type]
    assert near.shape == (30, 5)
    assert (near != np.arange(30)[:, None]).all()


def test_unlabelled_rows_carry_labels_where_a_line_cannot() -> None:
    (X, y), (new, truth) = clusters(), clusters(80, seed=1)
    rows = np.arange(16)
    one = fitted(X, y, rows)
    assert one.settings["weight"] > 0
    assert "uses_unlabelled" in one.flags
    alone = fit_probes([(LabelledRows(X[rows], y[rows]), 0)], Fitting(PROTOCOLS["default"]).on("binary", 2))[0]
    found, linear = ((probe.probabilities(new) > 0.5) == truth for probe in (one.probe, alone.probe))
    assert found.mean() > linear.mean()
    assert found.mean() > 0.9


def test_the_labels_of_other_train_rows_are_not_seen() -> None:
    X, y = clusters()
    other = y.copy()
    other[20:] = 1 - other[20:]
    one, two = (fitted(X, labels, np.arange(20)).probe.probabilities(X) for labels in (y, other))
    np.testing.assert_array_equal(one, two)


def test_held_out_labels_change_no_held_out_prediction() -> None:
    X, y = clusters()
    one = fitted(X, y, np.arange(40))
    assert one.folded is not None
    graph = _Graph(UnlabelledPool(X, range(120)).neighbours(10), 0.95)  # type: ignore[arg-type]
    fold = one.folded.fold[0]
    other = one.folded.y.copy()
    other[fold == 0] = 1 - other[fold == 0]
    own, others = (
        propagation._out_of_fold(replace(one.folded, y=labels), graph, np.arange(40))[0, fold == 0]
        for labels in (one.folded.y, other)
    )
    np.testing.assert_allclose(own, others, atol=1e-5)


def test_weight_zero_is_the_logistic_regression() -> None:
    """Where neighbours say nothing the choice is logistic regression, and no embedding need be kept."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(200, 30)).astype(np.float32)
    y = (X[:, 0] > 0).astype(int)
    one = fitted(X, y, np.arange(150))
    assert one.settings["weight"] == 0
    assert isinstance(one.probe, LinearProbe)


def test_too_few_labels_to_hold_any_out_are_averaged_by_halves() -> None:
    X, y = clusters()
    one = fitted(X, y, np.array([0, 2]))
    assert {"fixed_C", "fixed_weight"} <= set(one.flags)
    assert isinstance(one.probe, MeanProbe)
    assert one.probe.weights == (0.5, 0.5)
    same = fitted(X, y, np.array([0, 1]))
    assert "one_class" in same.flags


def test_a_validation_split_chooses_the_weight() -> None:
    (X, y), (new, truth) = clusters(), clusters(80, seed=1)
    one = fitted(X, y, np.arange(16), validation=LabelledRows(new, truth))
    assert one.settings["weight"] > 0
    assert one.folded is None


def test_the_pool_is_part_of_the_identity_and_its_absence_of_others(tmp_path: Path) -> None:
    write_pair(tmp_path)
    study = probed(tmp_path, protocol="propagate", fractions=[0.2], seeds=2)
    with ScoreStore(study.store) as store:
        outcome = store.fit(study.scores[0].fit).outcome
    assert "uses_unlabelled" in outcome["flags"]
    assert {"weight", "temperature", "C"} <= set(outcome["settings"])
    again = probed(tmp_path, protocol="propagate", fractions=[0.2], seeds=2)
    assert (again.n_fitted, again.n_stored) == (0, 2)


def test_a_model_that_would_hold_too_many_embeddings_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_pair(tmp_path)
    monkeypatch.setattr(propagation, "MOST", 1000)
    asked = {"protocol": "propagate", "fractions": [0.2], "seeds": 1}
    probed(tmp_path, **asked)
    with pytest.raises(InputError, match=r"keeps all 120 train embeddings.*--protocol default --save") as caught:
        probed(tmp_path, **asked, save=tmp_path / "saved")
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.glob("saved/*"))


def test_a_new_image_gets_the_mean_of_its_neighbours() -> None:
    bank = np.eye(3, dtype=np.float32)
    shares = np.array([[1, 0], [0.5, 0.5], [0, 1]], dtype=np.float32)
    pool = UnlabelledPool(bank, range(3))  # type: ignore[arg-type]
    probe = PropagatedProbe("binary", 2, pool.scaling, pool.bank, shares, 2, 1.0)
    p = probe.probabilities(np.array([[1, 0.9, 0], [0, 0.2, 1]], dtype=np.float32))
    np.testing.assert_allclose(p, [0.25, 0.75], atol=1e-6)
