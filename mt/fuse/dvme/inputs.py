"""DVME's inputs: each model's embeddings, standardised on the budget's rows as in the protocol `default`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mt.probe.methods.linear import Scaling
from mt.types import Array

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Inputs:
    """The scaling of each model's embeddings, learned from the budget's rows without their labels."""

    scalings: tuple[Scaling, ...]

    @classmethod
    def learn(cls, embeddings: Sequence[Array]) -> Inputs:
        """Learn mean and scale of every column of M embeddings (n, d_m)."""
        return cls(tuple(Scaling.learn(X, "standardize") for X in embeddings))

    @property
    def dims(self) -> tuple[int, ...]:
        return tuple(len(scaling.mean) for scaling in self.scalings)

    def apply(self, embeddings: Sequence[Array], dtype: str = "float32") -> list[Tensor]:
        """Return M tensors (n, d_m), standardised and clipped."""
        import torch

        parts = zip(self.scalings, embeddings, strict=True)
        return [torch.from_numpy(scaling.apply(X, dtype)) for scaling, X in parts]
