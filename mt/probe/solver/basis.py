"""The coordinates in which problems are solved: the eigenbasis of a draw, and changes of variables for a batch.

A minimiser of an L2-penalised linear model lies in the row space of the centred features, and an orthogonal change of
coordinates does not change the penalty.  So the features are rotated once, exactly, into the eigenvectors of their
covariance; there the curvature of every problem is close to diagonal, whatever its C, label or fold.

With more rows than columns and no weak direction, single precision represents all directions in the features' own
coordinates too.  Then nothing is rotated: the eigenvectors only scale the problems.  For that they may be computed in
single precision and, if there are very many rows, from a sample of them, which takes a third of the time.

Within the basis, a `Preconditioner` brings the Hessians of a batch of problems close to the identity.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol, TypeAlias

import numpy as np
import torch
from torch import Tensor

from mt.errors import FitError
from mt.probe.solver.request import Rows

# Bytes of float64 rows taken at once: for one matrix product, and to stay in a core's cache.
PRODUCT_BYTES, CACHE_BYTES = 64 << 20, 8 << 20
# Columns of the Gram matrix computed at once; entries below the diagonal blocks are not computed.
BLOCK = 384
# A direction with at least this share of the rows' mean square is strong.  The design's precision is enough for it:
# rounding is relative to a row's length, and so is small compared with the direction's spread.
STRONG = 1e-6
# Same threshold if the direction is estimated from the rows' inner products in double precision.
DOUBLE = 1e-9
# The eigenvectors of a design that is not rotated only scale: 32 rows per column estimate them accurately enough (with
# 16, fits take a tenth more iterations).  They are sampled at random, since the rows may be ordered.
SAMPLED = 32
# Rows copied out of a design at once.
CHUNK = 8192
# From this many rows per column on, rotating every step costs less than rotating the rows once.
TALL = 4


class Streamed(Protocol):
    """A design whose rows are read chunk by chunk: mt.probe.solver.streaming."""

    @property
    def shape(self) -> tuple[int, int]: ...
    @property
    def dtype(self) -> torch.dtype: ...
    @property
    def device(self) -> torch.device: ...
    @property
    def chunk_rows(self) -> int: ...
    def __len__(self) -> int: ...
    def element_size(self) -> int: ...
    def double(self) -> Streamed: ...
    def logits(self, weights: Tensor) -> Iterator[tuple[slice, Tensor]]: ...
    def losses(self, fits: Any, number: Tensor) -> tuple[Any, Tensor, Tensor]: ...
    def fill_held_out(self, oof: np.ndarray, weights: Tensor, number: np.ndarray) -> None: ...
    def block(self, batch: Any) -> Any: ...
    def hessian(self, loss: Any, weights: Tensor, penalty: Tensor, *, whole: bool) -> Tensor: ...


Design: TypeAlias = Tensor | Streamed


@dataclass
class Basis:
    """Centred features and the eigenbasis of their covariance.

    ``design`` (n, rank + 1) holds the centred rows in the coordinates of ``axes`` (dim, rank), which are orthonormal
    (None: the features' own), and ends in a column of ones for the intercept; row i of the design is row
    ``order[i]`` of the features.  ``eigenvectors`` (rank + 1, rank + 1) are the design's, one per column, with the
    intercept's among them (None: the design's own axes).  ``eigenvalues`` (rank + 1,) are the mean squares along them,
    of a sample of the rows if they only scale.  ``mean`` (dim,), axes and eigenvalues are float64.
    """

    mean: Tensor
    axes: Tensor | None
    eigenvalues: Tensor
    eigenvectors: Tensor | None
    design: Design
    order: Tensor

    def to_features(self, weights: Tensor) -> tuple[Tensor, Tensor]:
        """Return coefficients (..., dim) and intercepts (...) on the original features for weights (..., rank + 1)."""
        coef = weights[..., :-1] if self.axes is None else weights[..., :-1] @ self.axes.T
        return coef, weights[..., -1] - coef @ self.mean

    def to_weights(self, coef: Tensor, intercept: Tensor) -> Tensor:
        """Return the weights of coefficients and intercepts on the original features."""
        own = coef if self.axes is None else coef @ self.axes
        return torch.cat([own, (intercept + coef @ self.mean)[..., None]], dim=-1)

    def rotate(self) -> Tensor | None:
        """Rotate the design into its eigenbasis, in place; returns the matrix that rotates weights (..., rank + 1)."""
        if self.eigenvectors is None or not isinstance(self.design, Tensor):
            return None
        turn, self.eigenvectors = self.eigenvectors, None
        step = max(1, PRODUCT_BYTES // (len(turn) * turn.element_size()))
        for first in range(0, len(self.design), step):
            rows = slice(first, first + step)
            self.design[rows] = self.design[rows] @ turn
        exact = turn.double()
        self.axes = exact[:-1, :-1]
        return exact


def build_basis(
    features: np.ndarray, *, dtype: torch.dtype, device: torch.device, order: np.ndarray | None = None
) -> Basis:
    """Centre the features and find their eigenbasis, in double precision if a direction is weak.

    ``order`` (rows,): the row numbers in the order in which the design holds the rows; None keeps the features' order.
    """
    rows, dim = features.shape
    mean = _mean(features, device)
    wanted = torch.from_numpy(np.arange(rows) if order is None else order).to(device)
    if dtype != torch.float64:
        basis = (_strong if rows > dim else _of_kernel)(features, mean, wanted, dtype)
        if basis is not None:
            return basis
    return _rotated(features, mean, wanted, dtype)


def _strong(features: np.ndarray, mean: Tensor, wanted: Tensor, dtype: torch.dtype) -> Basis | None:
    """Return the basis computed in `dtype`, apart from the mean; None if a direction is weak."""
    rows, dim = features.shape
    design = torch.ones(rows, dim + 1, dtype=dtype, device=mean.device)
    place, start = wanted.argsort(), 0
    for chunk in _centred(features, mean, CACHE_BYTES):
        design[place[start : start + len(chunk)], :-1] = chunk.to(dtype)
        start += len(chunk)
    mean_square = float(torch.linalg.vector_norm(design[:, :-1])) ** 2 / rows
    for taken in dict.fromkeys((min(rows, SAMPLED * dim), rows)):
        gram = gram_of(design[:, :-1], sample_rows(rows, taken).to(design.device) if taken < rows else None)
        if _holds(gram, STRONG * mean_square * taken):
            break
    else:
        return None
    squares, vectors = torch.linalg.eigh(gram, UPLO="U")
    eigenvalues = torch.cat([squares.double() / taken, mean.new_ones(1)])
    eigenvectors = torch.eye(dim + 1, dtype=dtype, device=mean.device)
    eigenvectors[:-1, :-1] = vectors
    basis = Basis(mean, None, eigenvalues, eigenvectors, design, wanted)
    if rows < TALL * dim:
        basis.rotate()
    return basis


def sample_rows(rows: int, few: int) -> Tensor:
    """Return `few` row numbers in ascending order, drawn at random with a fixed seed."""
    drawn = np.random.default_rng(0).choice(rows, few, replace=False, shuffle=False)
    return torch.from_numpy(np.sort(drawn))


def _of_kernel(features: np.ndarray, mean: Tensor, wanted: Tensor, dtype: torch.dtype) -> Basis | None:
    """Return the basis from the rows' inner products, for rows <= columns; None if a direction is too weak.

    With K = U Λ Uᵀ the rows lie at U Λ^½ on the axes Xᵀ U Λ^-½.
    """
    whole = torch.cat(list(_centred(features, mean)))
    kernel = whole @ whole.T
    total = float(kernel.diagonal().sum())
    # Centred rows add up to zero, so one direction is always empty.
    if not _holds(kernel + total / len(kernel) ** 2, DOUBLE * total):
        return None
    squares, vectors = torch.linalg.eigh(kernel)
    squares, vectors = squares[1:], vectors[:, 1:]
    design = torch.ones(len(whole), len(kernel), dtype=dtype, device=mean.device)
    design[:, :-1] = (vectors * squares.sqrt())[wanted].to(dtype)
    eigenvalues = torch.cat([squares / len(whole), mean.new_ones(1)])
    return Basis(mean, whole.T @ (vectors * squares.rsqrt()), eigenvalues, None, design, wanted)


def _holds(gram: Tensor, least: float) -> bool:
    """Return whether the sum of squares along every direction is above `least`."""
    identity = torch.eye(len(gram), dtype=gram.dtype, device=gram.device)
    return int(torch.linalg.cholesky_ex(gram - least * identity, upper=True).info) == 0


def _rotated(features: np.ndarray, mean: Tensor, wanted: Tensor, dtype: torch.dtype) -> Basis:
    """Return the basis with the design rotated into it.

    Everything is float64, except the rotation into directions that are strong enough for `dtype`.
    """
    rows, dim = features.shape
    frame, coordinates = None, None
    if rows < dim:
        # Row space first: centredᵀ = Q R gives each row `rows` coordinates without squaring the condition number.
        whole = torch.cat(list(_centred(features, mean)))
        frame, triangle = torch.linalg.qr(whole.T)
        coordinates = [triangle.T]
    elif rows * dim * 8 <= PRODUCT_BYTES:
        coordinates = list(_centred(features, mean))
    width = min(rows, dim)
    gram = torch.zeros(width, width, dtype=torch.float64, device=mean.device)
    for chunk in coordinates or _centred(features, mean):
        add_gram(gram, chunk, chunk)
    squares, vectors = torch.linalg.eigh(gram, UPLO="U")
    del gram
    weak = int((squares < STRONG * squares.sum()).sum()) if dtype != torch.float64 else width
    strong_axes = vectors[:, weak:].to(dtype)
    squares[:weak] = 0
    design = torch.ones(rows, width + 1, dtype=dtype, device=mean.device)
    place, start = wanted.argsort(), 0
    for chunk in coordinates or _centred(features, mean):
        at = place[start : start + len(chunk)]
        turned = chunk @ vectors[:, :weak]
        squares[:weak] += turned.square().sum(0)
        design[at, :weak] = turned.to(dtype)
        design[at, weak:-1] = chunk.to(dtype) @ strong_axes
        start += len(chunk)
    axes = vectors if frame is None else frame @ vectors
    return _cut_rank(mean, axes, squares / rows, design, wanted)


def gram_of(design: Tensor, some: Tensor | None, weight: Tensor | None = None) -> Tensor:
    """Return Σ weight z zᵀ over some rows z (None: all); only entries on and above the diagonal are complete."""
    gram = design.new_zeros(design.shape[1], design.shape[1])
    if some is None:
        add_gram(gram, design, design)
        return gram
    for start in range(0, len(some), CHUNK):
        rows = some[start : start + CHUNK]
        part = design[rows]
        add_gram(gram, part, part if weight is None else part * weight[rows, None])
    return gram


def add_gram(gram: Tensor, left: Tensor, right: Tensor) -> None:
    """Add leftᵀ right, which is symmetric, to the Gram matrix; only entries on and above the diagonal are complete."""
    for first in range(0, len(gram), BLOCK):
        gram[first : first + BLOCK, first:].addmm_(left[:, first : first + BLOCK].T, right[:, first:])


def _cut_rank(mean: Tensor, axes: Tensor, variances: Tensor, design: Tensor, order: Tensor) -> Basis:
    """Drop the leading directions that hold only rounding.

    Small variances are measured on the rotated rows, where rounding is (eps · width)² of the largest variance, not eps
    as in the Gram matrix.  So columns 1e-8 times smaller than others are kept.
    """
    width = len(variances)
    floor = variances.max().clamp(min=0) * (torch.finfo(torch.float64).eps * max(design.shape)) ** 2
    kept = torch.nonzero(variances > floor)
    first = int(kept[0]) if len(kept) else width
    one = torch.ones(1, dtype=torch.float64, device=variances.device)
    return Basis(mean, axes[:, first:], torch.cat([variances[first:], one]), None, design[:, first:], order)


def _mean(features: np.ndarray, device: torch.device) -> Tensor:
    """Return the columns' means (dim,) in float64.  Raises FitError if one is not finite."""
    total = torch.zeros(features.shape[1], dtype=torch.float64, device=device)
    for _, chunk in row_chunks(features, device):
        total += chunk.sum(0)
    if not torch.isfinite(total).all():
        column = int(torch.nonzero(~torch.isfinite(total))[0])
        raise FitError(f"Features must be finite, found NaN or infinity in column {column}.")
    return total / len(features)


def row_chunks(features: Rows, device: torch.device, at_once: int = CACHE_BYTES) -> Iterator[tuple[slice, Tensor]]:
    """Yield (rows, those rows in float64 on the device), at most `at_once` bytes at a time."""
    step = max(1, at_once // (8 * max(1, features.shape[1])))
    for start in range(0, len(features), step):
        rows = slice(start, min(start + step, len(features)))
        chunk = np.array(features[rows], dtype=np.float64, order="C")
        yield rows, torch.from_numpy(chunk).to(device)


def _centred(features: np.ndarray, mean: Tensor, at_once: int = PRODUCT_BYTES) -> Iterator[Tensor]:
    for _, chunk in row_chunks(features, mean.device, at_once):
        yield chunk.sub_(mean)


# Preconditioners: changes of variables within the basis ---------------------------------------------------------------

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
