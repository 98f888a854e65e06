"""Changes of variables after which the Hessians of a batch of problems are close to the identity."""

from __future__ import annotations

from collections.abc import Sequence
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
    """The inverse root of a curvature that is diagonal on axes of the columns and of the outputs.

    ``columns`` (columns, columns) and ``outputs`` (problems, outputs, outputs) are orthonormal, an axis a column; None
    are the variables' own.
    """

    factor: Tensor
    intercept_curvature: Tensor
    columns: Tensor | None
    outputs: Tensor | None

    @classmethod
    def of(cls, curvature: Tensor, columns: Tensor | None = None, outputs: Tensor | None = None) -> Diagonal:
        return cls(curvature.rsqrt(), curvature[..., -1:].amin(1, keepdim=True), columns, outputs)

    def weights(self, scaled: Tensor) -> Tensor:
        along = scaled * self.factor
        if self.columns is not None:
            along = along @ self.columns.T
        return along if self.outputs is None else self.outputs @ along

    def gradient(self, gradient: Tensor) -> Tensor:
        along = gradient if self.outputs is None else self.outputs.mT @ gradient
        return (along if self.columns is None else along @ self.columns) * self.factor

    def select(self, problems: Tensor) -> Diagonal:
        outputs = None if self.outputs is None else self.outputs[problems]
        return Diagonal(self.factor[problems], self.intercept_curvature[problems], self.columns, outputs)


@dataclass(frozen=True)
class Dense:
    """The inverse transposed Cholesky factor of each problem's Hessian, or of blocks of it (blocks, size, size)."""

    factors: tuple[Tensor, ...]
    intercept_curvature: Tensor

    @classmethod
    def of(cls, hessian: Tensor, columns: int) -> Dense:
        """Factorise one problem's; rounding in a singular one is lifted to ROUNDING units of its diagonal."""
        diagonal = hessian.diagonal(dim1=-2, dim2=-1).clamp(min=torch.finfo(hessian.dtype).tiny)
        root = diagonal.sqrt()
        equal = hessian / root[..., None] / root[..., None, :]
        equal.diagonal(dim1=-2, dim2=-1).add_(ROUNDING * torch.finfo(hessian.dtype).eps)
        factor, failed = torch.linalg.cholesky_ex(equal)
        usable = torch.where(failed[..., None, None] == 0, factor, torch.eye(len(root[0])).to(factor))
        return cls((usable * root[..., None],), diagonal.reshape(1, -1, columns)[..., -1:].amin(1, keepdim=True))

    @classmethod
    def together(cls, each: Sequence[Dense]) -> Dense:
        """Return the scaling of all their problems."""
        factors = tuple(factor for one in each for factor in one.factors)
        return cls(factors, torch.cat([one.intercept_curvature for one in each]))

    def weights(self, scaled: Tensor) -> Tensor:
        return self._solve(scaled, transposed=True)

    def gradient(self, gradient: Tensor) -> Tensor:
        return self._solve(gradient, transposed=False)

    def _solve(self, right: Tensor, *, transposed: bool) -> Tensor:
        solved = torch.empty_like(right)
        for factor, given, into in zip(self.factors, right, solved, strict=True):
            triangle = factor.mT if transposed else factor
            blocks = given.reshape(len(factor), -1, 1)
            into.copy_(torch.linalg.solve_triangular(triangle, blocks, upper=transposed).reshape(into.shape))
        return solved

    def select(self, problems: Tensor) -> Dense:
        return Dense(tuple(self.factors[p] for p in problems.tolist()), self.intercept_curvature[problems])
