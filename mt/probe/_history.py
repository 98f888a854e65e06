"""The limited memory of L-BFGS for a batch of problems, in the compact form of Byrd, Nocedal and Schnabel (1994)."""

from __future__ import annotations

import torch
from torch import Tensor

HISTORY = 12


class History:
    """The last HISTORY steps s and changes of gradient y of each problem, and their inner products.

    With S, Y of the problem's pairs in order of time, R the upper triangle of SᵀY, D its diagonal and
    γ = sᵀy / yᵀy of the newest pair,  H = γ I + [S γY] [[R⁻ᵀ (D + γ YᵀY) R⁻¹, -R⁻ᵀ], [-R⁻¹, 0]] [S γY]ᵀ.
    """

    def __init__(self, like: Tensor) -> None:
        problems, size = len(like), like[0].numel()
        self.pairs = like.new_zeros(problems, 2 * HISTORY, size)
        self.sy = torch.zeros(problems, HISTORY, HISTORY, dtype=torch.float64, device=like.device)
        self.yy = torch.zeros_like(self.sy)
        self.order: list[int] = []

    def keep(self, problems: Tensor) -> None:
        """Go on with these problems only."""
        self.pairs, self.sy, self.yy = self.pairs[problems], self.sy[problems], self.yy[problems]

    def add(self, step: Tensor, change: Tensor) -> None:
        """Remember a pair (problems, outputs, columns), in place of the oldest.

        A pair without curvature, which only rounding makes, is remembered as one that changes nothing.
        """
        slot = self.order.pop(0) if len(self.order) == HISTORY else len(self.order)
        self.order.append(slot)
        new = torch.stack([step.flatten(1), change.flatten(1)], dim=2)
        curved = new.prod(2).sum(1) > torch.finfo(new.dtype).eps * new[..., 1].square().sum(1)
        new = new * curved[:, None, None]
        self.pairs[:, slot], self.pairs[:, HISTORY + slot] = new[..., 0], new[..., 1]
        products = torch.bmm(self.pairs, new).double()
        self.sy[:, slot], self.sy[:, :, slot] = products[:, HISTORY:, 0], products[:, :HISTORY, 1]
        self.yy[:, slot], self.yy[:, :, slot] = products[:, HISTORY:, 1], products[:, HISTORY:, 1]
        self.sy[:, slot, slot] += ~curved
        self.yy[:, slot, slot] += ~curved

    def solve(self, gradient: Tensor) -> Tensor:
        """Return H g."""
        if not self.order:
            return gradient.clone()
        order = torch.tensor(self.order, device=gradient.device)
        flat = gradient.flatten(1)
        inner = torch.bmm(self.pairs, flat[..., None]).double()
        sg, yg = inner[:, order], inner[:, HISTORY + order]
        sy = self.sy[:, order][:, :, order]
        yy = self.yy[:, order][:, :, order]
        gamma = (sy[:, -1, -1] / yy[:, -1, -1])[:, None, None]
        upper = sy.triu()
        u = torch.linalg.solve_triangular(upper, sg, upper=True)
        middle = sy.diagonal(dim1=1, dim2=2)[..., None] * u + gamma * (yy @ u - yg)
        t = torch.linalg.solve_triangular(upper.mT, middle, upper=False)
        factors = torch.zeros_like(inner)
        factors[:, order], factors[:, HISTORY + order] = t, -gamma * u
        combined = torch.bmm(factors.mT.to(flat.dtype), self.pairs)[:, 0]
        return (gamma[:, 0].to(flat.dtype) * flat + combined).reshape(gradient.shape)
