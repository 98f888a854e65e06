"""The inputs of networks in training: rows in the coordinates that each network sees, and dropout of input features."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from mt.fuse.dvme.coordinates import Lens, scale_of


def most_rows(batch: int) -> int:
    """Return the largest number of rows that a batch of about `batch` rows can have."""
    return batch + batch // 2 + 1


class NetworkInputs:
    """The rows of a budget as each network sees them, and the noise of their features' dropout.

    faster: for each projection, the factor on its learning rate.  With it, a step changes a weight by the same share of
    its size as a step of a network on all features.
    """

    def __init__(self, lenses: Sequence[Lens], X: Sequence[Tensor], dropout: Sequence[float]) -> None:
        first, device = lenses[0], X[0].device
        self._scales = [scale_of(kept, x.shape[1]) for kept, x in zip(first.dims, X, strict=True)]
        self.faster = [1 / scale for scale in self._scales]
        self._shared = [rows * scale for rows, scale in zip(first.shared.rows, self._scales, strict=True)]
        self._own: list[Tensor | None] = []
        self._noise: list[Tensor | None] = []  # (n,) the standard deviation of a coordinate at dropout 0.5
        for model, (x, scale) in enumerate(zip(X, self._scales, strict=True)):
            own = [lens.own[model] for lens in lenses]
            parts = [part for part in own if part is not None]
            self._own.append(torch.stack(parts) * scale if parts else None)
            self._noise.append(x.square().mean(dim=1).sqrt() * scale if parts else None)
        self._dropout = torch.tensor(dropout, dtype=X[0].dtype, device=device)
        self._drops = any(dropout)

    def take(self, which: Tensor, rows: Tensor) -> list[Tensor]:
        """Return the inputs (networks, rows, c_m) of networks `which` at rows (networks, rows) of their own."""
        return [
            shared[rows] if own is None else torch.cat([shared[rows], own[which[:, None], rows]], dim=-1)
            for shared, own in zip(self._shared, self._own, strict=True)
        ]

    def dropped(
        self, inputs: Sequence[Tensor], which: Tensor, rows: Tensor, noise: torch.Generator, most: int
    ) -> list[Tensor]:
        """Return inputs with a share of their features dropped and the rest scaled up.

        In coordinates dropped features are Gaussian noise (Wang and Manning, ICML 2013): of mean 0, and of variance
        p / (1 - p) times the mean square of the row's features, the same along every axis.  The draws are the
        same for all networks, and for as many rows as a batch ever has, so that batching does not change results.
        """
        if not self._drops:
            return list(inputs)
        p = self._dropout[which][:, None, None]
        found = []
        for x, size in zip(inputs, self._noise, strict=True):
            shape = (most, x.shape[2])
            if size is None:
                drawn = torch.rand(shape, generator=noise)[: x.shape[1]].to(x.device)
                found.append(x * (drawn >= p) / (1 - p))
            else:
                drawn = torch.randn(shape, generator=noise)[: x.shape[1]].to(x.device)
                found.append(x + drawn * (size[rows][..., None] * (p / (1 - p)).sqrt()))
        return found
