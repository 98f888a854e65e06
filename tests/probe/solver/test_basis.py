"""The eigenbasis keeps the precision of every direction, even of the weakest beside the strongest."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from mt.probe.solver import basis as basis_module
from mt.probe.solver.api import fit_logistic
from mt.probe.solver.basis import BLOCK, SAMPLED, TALL, Basis, build_basis, sample_rows
from tests.noting import recorded


def steep(n: int, d: int, decades: float) -> np.ndarray:
    """Rotated features whose directions' standard deviations fall by this many powers of ten."""
    rng = np.random.default_rng(0)
    scaled = rng.standard_normal((n, d)) * np.logspace(0, -decades, d)
    return np.asarray(scaled @ np.linalg.qr(rng.standard_normal((d, d)))[0] + 3)


def axes_of(basis: Basis) -> np.ndarray:
    assert basis.axes is not None
    return basis.axes.numpy()


def design_of(basis: Basis) -> torch.Tensor:
    assert isinstance(basis.design, torch.Tensor)
    return basis.design


def squares_of(basis: Basis) -> torch.Tensor:
    """Return the mean square of the rows along each eigenvector."""
    assert basis.eigenvectors is not None
    return (design_of(basis).double() @ basis.eigenvectors.double()).square().mean(0)


@pytest.mark.parametrize(("n", "d"), [(2 * BLOCK, BLOCK + 116), (120, 300)])
def test_the_basis_is_the_covariances(n: int, d: int) -> None:
    X = steep(n, d, 3)
    basis = build_basis(X, dtype=torch.float64, device=torch.device("cpu"))
    centred = X - X.mean(axis=0)
    axes, rank = axes_of(basis), min(n - 1, d)
    assert axes.shape == (d, rank)
    np.testing.assert_allclose(axes.T @ axes, np.eye(rank), atol=1e-10)
    np.testing.assert_allclose(design_of(basis)[:, :-1].numpy(), centred @ axes, atol=1e-10)
    np.testing.assert_allclose(basis.eigenvalues[:-1].numpy(), np.square(centred @ axes).mean(axis=0), rtol=1e-6)
    covariance = np.cov(centred @ axes, rowvar=False, bias=True)
    np.testing.assert_allclose(covariance, np.diag(basis.eigenvalues[:-1]), atol=1e-12 * float(basis.eigenvalues.max()))


def test_float32_keeps_every_direction(monkeypatch: pytest.MonkeyPatch) -> None:
    X = steep(900, 400, 7)

    def worst() -> float:
        cpu = torch.device("cpu")
        low, exact = (build_basis(X, dtype=dtype, device=cpu) for dtype in (torch.float32, torch.float64))
        error = (design_of(low) - design_of(exact)).square().mean(0).sqrt() / exact.eigenvalues.sqrt()
        return float(error.max())

    assert worst() < 1e-3
    monkeypatch.setattr(basis_module, "STRONG", 0.0)  # all directions in float32: the weak ones drown
    assert worst() > 0.1


@pytest.mark.parametrize("n", [2 * 50, TALL * 50])
def test_strong_features_need_no_double_precision(n: int) -> None:
    X = steep(n, 50, 1).astype(np.float32)
    basis = build_basis(X, dtype=torch.float32, device=torch.device("cpu"), order=np.arange(n)[::-1].copy())
    assert (basis.eigenvectors is None) == (n < TALL * 50)
    weights = torch.randn(3, 51, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    turn = basis.rotate()
    if turn is not None:
        weights = weights @ turn
    assert basis.rotate() is None
    coef, intercept = basis.to_features(weights)
    torch.testing.assert_close(basis.to_weights(coef, intercept), weights, rtol=1e-5, atol=1e-5)
    logits = X[::-1].astype(np.float64) @ coef.numpy().T + intercept.numpy()
    np.testing.assert_allclose((design_of(basis).double() @ weights.T).numpy(), logits, atol=1e-4)
    gram = (design_of(basis).T @ design_of(basis) / n).double()
    torch.testing.assert_close(gram, torch.diag(basis.eigenvalues), rtol=1e-4, atol=1e-5)


def test_a_weak_direction_is_rotated_in_double_precision() -> None:
    X = steep(TALL * 50, 50, 4)
    assert build_basis(X, dtype=torch.float32, device=torch.device("cpu")).eigenvectors is None


def test_of_many_rows_a_sample_tells_the_scale() -> None:
    X = steep(4 * SAMPLED * 50, 50, 1).astype(np.float32)
    basis = build_basis(X, dtype=torch.float32, device=torch.device("cpu"))
    squares = squares_of(basis)
    off = (squares / basis.eigenvalues - 1).abs()[:-1]
    assert 0.01 < off.max() < 1


def outside_the_sample(n: int, d: int) -> np.ndarray:
    """Return which of `n` rows the sample omits."""
    return ~np.isin(np.arange(n), sample_rows(n, SAMPLED * d).numpy())


@pytest.mark.parametrize("size", [1, 4])
def test_a_sample_that_misleads_leads_to_the_optimum_all_the_same(size: int) -> None:
    n, d = 4 * SAMPLED * 50, 50
    X = steep(n, d, 1)
    far = np.flatnonzero(outside_the_sample(n, d))[: n // 4]
    X[far] = (X[far] - 3) @ np.diag(np.logspace(size, -2, d)) + 3
    basis = build_basis(X.astype(np.float32), dtype=torch.float32, device=torch.device("cpu"))
    assert (basis.axes is None) == (size == 1)  # larger ones make the weakest direction weak beside all rows
    y = (X[:, 0] + X[:, 1:9].sum(axis=1) + np.random.default_rng(1).logistic(size=n) > 27).astype(int)
    Cs = [1e-3, 1.0, 1e3]
    found = fit_logistic(X, y, Cs, task="binary")
    best = fit_logistic(X, y, Cs, task="binary", dtype="float64", tol=1e-9)
    assert found.converged.all()
    assert (found.objective <= best.objective * (1 + 1e-5)).all()


def test_a_direction_that_the_sample_lacks_is_seen_by_all_rows() -> None:
    n, d = 2 * SAMPLED * 50, 50
    X = steep(n, d, 1)
    there = np.flatnonzero(outside_the_sample(n, d))
    X[:, 7] = 0
    X[there, 7] = np.resize([1.0, -1.0], len(there))
    basis = build_basis(X.astype(np.float32), dtype=torch.float32, device=torch.device("cpu"))
    assert basis.axes is None
    squares = squares_of(basis)
    torch.testing.assert_close(squares, basis.eigenvalues, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("repeated", [0, 1])
def test_few_rows_are_told_by_their_inner_products_where_none_repeats(
    monkeypatch: pytest.MonkeyPatch, repeated: int
) -> None:
    X = steep(120, 300, 2)
    X[:repeated] = X[-1]
    seen: list[Any] = []
    monkeypatch.setattr(basis_module, "_of_kernel", recorded(basis_module._of_kernel, seen))
    order = np.random.default_rng(0).permutation(120)
    basis = build_basis(X, dtype=torch.float32, device=torch.device("cpu"), order=order)
    assert (seen[0] is None) == bool(repeated)
    axes, centred = axes_of(basis), X - X.mean(axis=0)
    np.testing.assert_allclose(axes.T @ axes, np.eye(119 - repeated), atol=1e-9)
    np.testing.assert_allclose(design_of(basis)[:, :-1].numpy(), (centred @ axes)[order], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(axes @ (axes.T @ centred.T), centred.T, atol=1e-9)
    np.testing.assert_allclose(basis.eigenvalues[:-1].numpy(), np.square(centred @ axes).mean(axis=0), rtol=1e-6)


@pytest.mark.parametrize("X", [np.ones((5, 9)), np.eye(7), np.arange(8.0).reshape(2, 4) ** 2, np.zeros((3, 3))])
def test_the_fewest_rows_and_constant_ones(X: np.ndarray) -> None:
    centred = X - X.mean(axis=0)
    basis = build_basis(X, dtype=torch.float32, device=torch.device("cpu"))
    axes = axes_of(basis)
    assert axes.shape[1] == np.linalg.matrix_rank(centred)
    np.testing.assert_allclose(axes @ (axes.T @ centred.T), centred.T, atol=1e-9)
    np.testing.assert_allclose(design_of(basis)[:, :-1].numpy(), centred @ axes, atol=1e-5)
