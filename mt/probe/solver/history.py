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
        self.inner = torch.zeros(problems, 2 * HISTORY, 1, dtype=torch.float64, device=like.device)
        self.order: list[int] = []

    def keep(self, problems: Tensor) -> None:
        """Drop all other problems."""
        self.pairs, self.sy, self.yy = self.pairs[problems], self.sy[problems], self.yy[problems]

    def add(self, step: Tensor, change: Tensor, gradient: Tensor) -> None:
        """Store a pair (problems, outputs, columns) in place of the oldest, and the gradient after the step.

        A pair without curvature, which only rounding causes, is stored as one that has no effect.  The pairs take most
        of the memory, so all products with them are computed in one pass over it.
        """
        slot = self.order.pop(0) if len(self.order) == HISTORY else len(self.order)
        self.order.append(slot)
        new = torch.stack([step.flatten(1), change.flatten(1), gradient.flatten(1)], dim=1)
        curvature, size = (torch.linalg.vecdot(new[:, k], new[:, 1]) for k in (0, 1))
        curved = curvature > torch.finfo(new.dtype).eps * size
        if not curved.all():
            new[:, :2] *= curved[:, None, None]
        self.pairs[:, slot], self.pairs[:, HISTORY + slot] = new[:, 0], new[:, 1]
        # A single problem is expanded to two: torch would split the sums of one among threads, and round differently.
        batch = max(2, len(new)), -1, -1
        products = torch.bmm(self.pairs.expand(batch), new.expand(batch).mT)[: len(new)].double()
        self.inner = products[..., 2:]
        self.sy[:, slot], self.sy[:, :, slot] = products[:, HISTORY:, 0], products[:, :HISTORY, 1]
        self.yy[:, slot], self.yy[:, :, slot] = products[:, HISTORY:, 1], products[:, HISTORY:, 1]
        self.sy[:, slot, slot] += ~curved
        self.yy[:, slot, slot] += ~curved

    def solve(self, gradient: Tensor) -> Tensor:
        """Return H g, where g is the gradient that came with the newest pair."""
        if not self.order:
            return gradient.clone()
        order = torch.tensor(self.order, device=gradient.device)
        flat = gradient.flatten(1)
        sg, yg = self.inner[:, order], self.inner[:, HISTORY + order]
        sy = self.sy[:, order][:, :, order]
        yy = self.yy[:, order][:, :, order]
        gamma = (sy[:, -1, -1] / yy[:, -1, -1])[:, None, None]
        upper = sy.triu()
        u = torch.linalg.solve_triangular(upper, sg, upper=True)
        middle = sy.diagonal(dim1=1, dim2=2)[..., None] * u + gamma * (yy @ u - yg)
        t = torch.linalg.solve_triangular(upper.mT, middle, upper=False)
        factors = torch.zeros_like(self.inner)
        factors[:, order], factors[:, HISTORY + order] = t, -gamma * u
        # As rows: a problem then gets the same digits alone and in a batch.
        combined = torch.bmm(factors.to(flat.dtype).reshape(len(flat), 1, -1), self.pairs)[:, 0]
        return (gamma[:, 0].to(flat.dtype) * flat + combined).reshape(gradient.shape)
