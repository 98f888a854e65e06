"""Changes of variables after which the Hessians of a batch of problems are close to the identity."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import torch
from torch import Tensor

# Units in the last place of a Hessian's entries that are only rounding.
ROUNDING = 500


class Preconditioner(Protocol):
    """A change of variables W = T v; all tensors are (problems, outputs, columns)."""

    @property
    def intercept_curvature(self) -> Tensor:
        """The smallest curvature along an output's intercept (problems, 1, 1)."""

    def weights(self, scaled: Tensor) -> Tensor:
        """Return T v."""

    def gradient(self, gradient: Tensor) -> Tensor:
        """Return Tᵀ g."""

    def select(self, problems: Tensor) -> Preconditioner:
        """Return the change of variables of these problems, given by ascending number."""


@dataclass(frozen=True)
class Diagonal:
    """The inverse root of a curvature that is diagonal on axes of the columns and of the outputs.

    ``columns`` (columns, columns) and ``outputs`` (problems, outputs, outputs) are orthonormal, one axis per column;
    None: the variables' own axes.
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
    """The Cholesky factor of one problem's Hessian, or of its diagonal blocks (blocks, size, size)."""

    factor: Tensor
    intercept_curvature: Tensor

    @classmethod
    def of(cls, hessian: Tensor, columns: int) -> Dense:
        """Factorise; ROUNDING units in the last place are added to the diagonal, for a Hessian that is singular."""
        diagonal = hessian.diagonal(dim1=-2, dim2=-1).clamp(min=torch.finfo(hessian.dtype).tiny)
        root = diagonal.sqrt()
        equal = hessian / root[..., None] / root[..., None, :]
        equal.diagonal(dim1=-2, dim2=-1).add_(ROUNDING * torch.finfo(hessian.dtype).eps)
        factor, failed = torch.linalg.cholesky_ex(equal)
        usable = torch.where(failed[..., None, None] == 0, factor, torch.eye(len(root[0])).to(factor))
        return cls(usable * root[..., None], diagonal.reshape(1, -1, columns)[..., -1:].amin(1, keepdim=True))

    def weights(self, scaled: Tensor) -> Tensor:
        return self._solve(self.factor.mT, scaled, upper=True)

    def gradient(self, gradient: Tensor) -> Tensor:
        return self._solve(self.factor, gradient, upper=False)

    @staticmethod
    def _solve(triangle: Tensor, right: Tensor, *, upper: bool) -> Tensor:
        blocks = right.reshape(len(triangle), -1, 1)
        solved: Tensor = torch.linalg.solve_triangular(triangle, blocks, upper=upper)
        return solved.reshape(right.shape)

    def select(self, problems: Tensor) -> Dense:
        """Return itself: it has one problem."""
        return self


@dataclass(frozen=True)
class Stacked:
    """The changes of variables of several batches of problems, one after another."""

    each: tuple[Preconditioner, ...]

    @cached_property
    def intercept_curvature(self) -> Tensor:
        return torch.cat([scaling.intercept_curvature for scaling in self.each])

    @cached_property
    def _sizes(self) -> list[int]:
        return [len(scaling.intercept_curvature) for scaling in self.each]

    def weights(self, scaled: Tensor) -> Tensor:
        parts = zip(self.each, scaled.split_with_sizes(self._sizes), strict=True)
        return torch.cat([scaling.weights(part) for scaling, part in parts])

    def gradient(self, gradient: Tensor) -> Tensor:
        parts = zip(self.each, gradient.split_with_sizes(self._sizes), strict=True)
        return torch.cat([scaling.gradient(part) for scaling, part in parts])

    def select(self, problems: Tensor) -> Preconditioner:
        chosen = torch.zeros(sum(self._sizes), dtype=torch.bool, device=problems.device)
        chosen[problems] = True
        parts = [torch.nonzero(part)[:, 0] for part in chosen.split_with_sizes(self._sizes)]
        return stacked([scaling.select(part) for scaling, part in zip(self.each, parts, strict=True) if len(part)])


def stacked(scalings: Sequence[Preconditioner]) -> Preconditioner:
    """Return the change of variables of all their problems, one after another."""
    return scalings[0] if len(scalings) == 1 else Stacked(tuple(scalings))
