"""The attention of networks side by side, written for few models: sums over models, rows innermost.

Products of 3 x 3 matrices, one per row and head, take longer than all layers around them.  Here every operation runs
over the rows of all networks at once, and the gradient is written out:

    A_ij = softmax_j(q_i . k_j / sqrt(d)),   o_i = sum_j A_ij v_j
    dv_j = sum_i A_ij g_i,   dS = softmax'(g_i . v_j) / sqrt(d),   dq_i = sum_j dS_ij k_j,   dk_j = sum_i dS_ij q_i
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

_FROM, _TO = 2, 3  # the dimensions of weights (networks, heads, j, i, rows): model i takes from model j


class Attend(torch.autograd.Function):
    """Attention over models: (networks, 3, heads, d, models, rows) to (networks, heads, d, models, rows)."""

    @staticmethod
    def forward(ctx: Any, parts: Tensor) -> Tensor:  # type: ignore[override]
        query, key, value = parts.unbind(1)
        attention = torch.softmax(_products(query, key) / query.shape[2] ** 0.5, dim=_FROM)
        ctx.save_for_backward(parts, attention)
        return _mixed(attention, value, _FROM)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:  # type: ignore[override]
        parts, attention = ctx.saved_tensors
        query, key, value = parts.unbind(1)
        slope = attention * _products(gradient, value)
        slope = (slope - attention * slope.sum(dim=_FROM, keepdim=True)) / query.shape[2] ** 0.5
        return torch.stack(
            [_mixed(slope, key, _FROM), _mixed(slope, query, _TO), _mixed(attention, gradient, _TO)], dim=1
        )


def _products(x: Tensor, y: Tensor) -> Tensor:
    """Return the inner products (networks, heads, j, i, rows) of x_i and y_j (networks, heads, d, models, rows)."""
    models = y.shape[3]
    return torch.stack([(x * y[..., number : number + 1, :]).sum(dim=2) for number in range(models)], dim=_FROM)


def _mixed(weights: Tensor, x: Tensor, along: int) -> Tensor:
    """Return the sums (networks, heads, d, models, rows) of x weighted, over one of the weights' models."""
    first, *others = [
        (weights.select(along, number)[:, :, None], x[..., number : number + 1, :]) for number in range(x.shape[3])
    ]
    total = first[0] * first[1]
    for weight, one in others:
        total.addcmul_(weight, one)
    return total


def attend(parts: Tensor) -> Tensor:
    """Return what each model takes from all: (networks, heads, d, models, rows).

    parts: query, key and value as (networks, 3, heads, d, models, rows).
    """
    found: Tensor = Attend.apply(parts)
    return found
