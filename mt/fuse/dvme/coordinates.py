"""A smaller network for few rows: each model's embeddings projected on the directions of most of the rows' variance.

A network on c of d directions learns from one step what a network on all features learns from one of the same size,
since coordinates are scaled by sqrt(c / d): their row has the length that c standardised features have.  The directions
use all rows of the budget and no label.  So that the logistic start stays exact, each network also sees the part of its
own start that lies outside of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from mt.fuse.dvme.problem import Linear

# With few rows, a network sees one direction per eight rows, at least 64; more would only be overfitted.
LEAST, ROWS_PER_DIRECTION = 64, 8
# Products with the rows that sharpen the directions, and directions in reserve (Halko et al., SIAM Review 2011).
PASSES, RESERVE = 3, 8


def kept_directions(rows: int, dim: int) -> int:
    """Return the number of directions of one model's features that a network sees; `dim` if above half of it."""
    kept = min(rows, max(LEAST, rows // ROWS_PER_DIRECTION))
    return kept if 2 * kept <= dim else dim


@dataclass(frozen=True)
class Directions:
    """Orthonormal axes (d_m, r) float64 of each model, None for its own features, and rows (n, r) in them."""

    axes: tuple[Tensor | None, ...]
    rows: tuple[Tensor, ...]

    @classmethod
    def of(cls, X: Sequence[Tensor], seed: int) -> Directions:
        """Find the directions of each model's rows X_m (n, d_m)."""
        axes = [_leading(x, kept_directions(*x.shape), seed) for x in X]
        rows = [x if axis is None else (x.double() @ axis).to(x.dtype) for x, axis in zip(X, axes, strict=True)]
        return cls(tuple(axes), tuple(rows))

    def with_start(self, X: Sequence[Tensor], start: Linear) -> Lens:
        """Return what a network with this linear start sees: the directions, and the start's part outside of them."""
        device = X[0].device
        extra: list[Tensor | None] = []
        parts = torch.split(torch.from_numpy(start.coef).to(device), [x.shape[1] for x in X], dim=1)
        for axis, coef in zip(self.axes, parts, strict=True):
            if axis is None:
                extra.append(None)
                continue
            outside = coef - (coef @ axis) @ axis.T
            extra.append(torch.linalg.qr((outside - (outside @ axis) @ axis.T).T).Q)
        own = [None if e is None else (x.double() @ e).to(x.dtype) for x, e in zip(X, extra, strict=True)]
        return Lens(self, tuple(extra), tuple(own), parts, torch.from_numpy(start.intercept).to(device))


@dataclass(frozen=True)
class Lens:
    """What one network sees of the rows.

    extra: axes (d_m, k) of each model beside the shared directions, orthogonal to them; own: the rows (n, k) in them.
    coef: the start's coefficients (outputs, d_m) per model; intercept (outputs,).
    """

    shared: Directions
    extra: tuple[Tensor | None, ...]
    own: tuple[Tensor | None, ...]
    coef: tuple[Tensor, ...]
    intercept: Tensor

    @property
    def dims(self) -> tuple[int, ...]:
        """The number of coordinates of each model that the network sees."""
        return tuple(
            rows.shape[1] + (0 if own is None else own.shape[1])
            for rows, own in zip(self.shared.rows, self.own, strict=True)
        )

    def axes(self, model: int) -> Tensor | None:
        """Return a model's scaled axes (d_m, c): coordinates are x @ axes."""
        axis, extra = self.shared.axes[model], self.extra[model]
        if axis is None or extra is None:
            return None
        return torch.cat([axis, extra], dim=1) * scale_of(self.dims[model], len(axis))

    def start(self) -> tuple[Tensor, Tensor]:
        """Return the linear classifier on the coordinates: (outputs, sum of c), (outputs,), on the CPU."""
        parts = []
        for model, coef in enumerate(self.coef):
            axes = self.axes(model)
            parts.append(coef if axes is None else coef @ axes / scale_of(self.dims[model], len(axes)) ** 2)
        return torch.cat(parts, dim=1).cpu(), self.intercept.cpu()


def scale_of(kept: int, dim: int) -> float:
    """Return what coordinates on `kept` of `dim` directions are scaled by."""
    return float(np.sqrt(kept / dim))


def _leading(X: Tensor, kept: int, seed: int) -> Tensor | None:
    """Return the directions (d, kept) in which rows X (n, d) are longest, by a randomised range finder, float64."""
    rows, dim = X.shape
    if kept == dim:
        return None
    drawn = np.random.default_rng(seed).standard_normal((rows, min(rows, kept + RESERVE)))
    double = X.double()
    found = torch.linalg.qr(double.T @ torch.from_numpy(drawn).to(X.device)).Q
    for _ in range(PASSES):
        found = torch.linalg.qr(double.T @ (double @ found)).Q
    _, _, turned = torch.linalg.svd(double @ found, full_matrices=False)
    axes: Tensor = found @ turned.T[:, :kept]
    return axes
