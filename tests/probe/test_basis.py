"""The eigenbasis: every direction keeps its precision, the weakest beside the strongest too."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from mt.probe import _basis
from mt.probe._basis import BLOCK, build_basis


def steep(n: int, d: int, decades: float) -> np.ndarray:
    """Rotated features whose directions' standard deviations fall by so many powers of ten."""
    rng = np.random.default_rng(0)
    scaled = rng.standard_normal((n, d)) * np.logspace(0, -decades, d)
    return scaled @ np.linalg.qr(rng.standard_normal((d, d)))[0] + 3


@pytest.mark.parametrize(("n", "d"), [(2 * BLOCK, BLOCK + 116), (120, 300)])
def test_the_basis_is_the_covariances(n, d):
    X = steep(n, d, 3)
    basis = build_basis(X, dtype=torch.float64, device=torch.device("cpu"))
    centred = X - X.mean(axis=0)
    axes, rank = basis.axes.numpy(), min(n - 1, d)
    assert axes.shape == (d, rank)
    np.testing.assert_allclose(axes.T @ axes, np.eye(rank), atol=1e-10)
    np.testing.assert_allclose(basis.design[:, :-1].numpy(), centred @ axes, atol=1e-10)
    np.testing.assert_allclose(basis.eigenvalues[:-1].numpy(), np.square(centred @ axes).mean(axis=0), rtol=1e-6)
    covariance = np.cov(centred @ axes, rowvar=False, bias=True)
    np.testing.assert_allclose(covariance, np.diag(basis.eigenvalues[:-1]), atol=1e-12 * float(basis.eigenvalues.max()))


def test_float32_keeps_every_direction(monkeypatch):
    X = steep(900, 400, 7)

    def worst() -> float:
        cpu = torch.device("cpu")
        low, exact = (build_basis(X, dtype=dtype, device=cpu) for dtype in (torch.float32, torch.float64))
        error = (low.design - exact.design).square().mean(0).sqrt() / exact.eigenvalues.sqrt()
        return float(error.max())

    assert worst() < 1e-3
    monkeypatch.setattr(_basis, "STRONG", 0.0)  # all directions in float32: the weak ones drown
    assert worst() > 0.1
