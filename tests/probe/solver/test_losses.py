"""Losses of rows far on the right side of their class: exact zeros, never subnormal numbers."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from mt.probe.solver.fits import Loss, Sigmoid, Softmax

ROWS = 400


def sigmoid(weights: torch.Tensor) -> tuple[Loss, torch.Tensor]:
    signs = torch.ones(ROWS, 1, 1)
    signs[::2] = -1
    return Sigmoid(signs, weights[:, :, None]), torch.linspace(-110, 110, ROWS)[:, None, None]


def softmax(weights: torch.Tensor) -> tuple[Loss, torch.Tensor]:
    logits = torch.linspace(-110, 110, ROWS)[:, None, None] * torch.tensor([0.0, 0.5, 1.0])
    return Softmax(torch.arange(ROWS) % 3, weights, torch.zeros(1, 3)), logits


@pytest.mark.parametrize("kind", [sigmoid, softmax])
def test_nothing_is_subnormal(kind: Callable[[torch.Tensor], tuple[Loss, torch.Tensor]]) -> None:
    loss, logits = kind(torch.full((ROWS, 1), 1 / ROWS))
    tiny = torch.finfo(torch.float32).tiny
    for name in ("residual", "probabilities"):
        found = getattr(loss, name)(logits)
        assert not ((found != 0) & (found.abs() < tiny)).any(), name
        exact = getattr(loss.to(torch.float64), name)(logits.double())
        torch.testing.assert_close(found.double(), exact, rtol=1e-4, atol=1e-7)
    value = torch.func.grad(lambda at: loss.value(at).sum())(logits.double())
    torch.testing.assert_close(loss.residual(logits).double(), value, rtol=1e-4, atol=1e-7)
