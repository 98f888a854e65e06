"""Changes of variables after which the Hessians of a batch of problems are close to the identity."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

# Units in the last place of a Hessian's entries that hold nothing but rounding.
ROUNDING = 500


class Scaling(Protocol):
    """Weights W = T v; everything is (problems, outputs, columns)."""

    @property
    def intercept_curvature(self) -> Tensor:
        """The least curvature along an output's intercept (problems, 1, 1)."""

    def weights(self, scaled: Tensor) -> Tensor:
        """Return T v."""

    def gradient(self, gradient: Tensor) -> Tensor:
        """Return Tᵀ g."""

    def select(self, problems: Tensor) -> Scaling:
        """Return the scaling of these problems only."""


@dataclass(frozen=True)
class Diagonal:
    """The inverse root of a curvature that is diagonal in the eigenbasis, and on axes of the outputs if there are any.

    ``axes`` (problems, outputs, outputs) are orthonormal, one a column.
    """

    factor: Tensor
    intercept_curvature: Tensor
    axes: Tensor | None = None

    @classmethod
    def of(cls, curvature: Tensor, axes: Tensor | None = None) -> Diagonal:
        return cls(curvature.rsqrt(), curvature[..., -1:].amin(1, keepdim=True), axes)

    def weights(self, scaled: Tensor) -> Tensor:
        return scaled * self.factor if self.axes is None else self.axes @ (scaled * self.factor)

    def gradient(self, gradient: Tensor) -> Tensor:
        return (gradient if self.axes is None else self.axes.mT @ gradient) * self.factor

    def select(self, problems: Tensor) -> Diagonal:
        axes = None if self.axes is None else self.axes[problems]
        return Diagonal(self.factor[problems], self.intercept_curvature[problems], axes)


@dataclass(frozen=True)
class Dense:
    """The inverse transposed Cholesky factor of a Hessian, or of blocks of it (problems, blocks, size, size)."""

    factor: Tensor
    intercept_curvature: Tensor

    @classmethod
    def of(cls, hessian: Tensor, columns: int) -> Dense:
        """Factorise; rounding in a singular Hessian is lifted to ROUNDING units of its diagonal."""
        diagonal = hessian.diagonal(dim1=-2, dim2=-1).clamp(min=torch.finfo(hessian.dtype).tiny)
        root = diagonal.sqrt()
        equal = hessian / root[..., None] / root[..., None, :]
        equal.diagonal(dim1=-2, dim2=-1).add_(ROUNDING * torch.finfo(hessian.dtype).eps)
        factor, failed = torch.linalg.cholesky_ex(equal)
        usable = torch.where(failed[..., None, None] == 0, factor, torch.eye(len(root[0, 0])).to(factor))
        intercepts = diagonal.reshape(len(diagonal), -1, columns)[..., -1:]
        return cls(usable * root[..., None], intercepts.amin(1, keepdim=True))

    def weights(self, scaled: Tensor) -> Tensor:
        return self._solve(self.factor.mT, scaled, upper=True)

    def gradient(self, gradient: Tensor) -> Tensor:
        return self._solve(self.factor, gradient, upper=False)

    def _solve(self, triangle: Tensor, right: Tensor, *, upper: bool) -> Tensor:
        blocks = right.reshape(*triangle.shape[:3], 1)
        solved: Tensor = torch.linalg.solve_triangular(triangle, blocks, upper=upper)
        return solved.reshape(right.shape)

    def select(self, problems: Tensor) -> Dense:
        return Dense(self.factor[problems], self.intercept_curvature[problems])
