"""The interface of an engine: a pure function from batches of rows to embeddings, which writes nothing."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    import numpy as np
    import torch

    from mt.datasets import ImageError
    from mt.datasets.base import ImageSource
    from mt.featurize.embed import Embedder


@dataclass(frozen=True)
class RowBatch:
    """One batch: the `rows` of a source, in rising order, and the models whose files lack some of them."""

    number: int
    rows: np.ndarray
    models: tuple[str, ...]


@dataclass(frozen=True)
class Pass:
    """All batches of one pass over some images.

    batch_size: the size to which every batch is padded.  threads: the number of torch's threads on every device.
    Files record both; nothing else that differs between engines affects embeddings.
    """

    images: ImageSource
    work: Sequence[RowBatch]
    batch_size: int
    threads: int

    @property
    def models(self) -> tuple[str, ...]:
        """The models that some batch goes through."""
        return tuple(dict.fromkeys(model for work in self.work for model in work.models))


class EmbeddedRows(Protocol):
    """The embeddings of a batch, whose copy from the device may not be complete yet."""

    def rows(self, count: int) -> np.ndarray:
        """Wait for the first `count` rows and return them, float32 (count, dim)."""
        ...


@dataclass
class Computed:
    """A batch that was computed: the status of each row, what could not be read, and embeddings by model."""

    work: RowBatch
    status: np.ndarray
    errors: Sequence[ImageError] = ()
    embeddings: Mapping[str, EmbeddedRows] = field(default_factory=dict)


class Engine(Protocol):
    """Computes batches; it may yield them in any order.

    batch_size: the largest that fits on every device, up to the one that was asked for.
    """

    batch_size: int

    @property
    def device(self) -> torch.device:
        """The device that computes; of several, their kind."""
        ...

    def named_device(self) -> str | None:
        """Return `--device` of a plain run on one device of this kind; None if `auto` picks it."""
        ...

    def describe(self, batch_size: int) -> dict[str, Any]:
        """Return what can change an embedding's last bits beside the fingerprint; every file records it."""
        ...

    def embedder(self, model: str) -> Embedder | None:
        """Return what computes a model in this process on the same kind of device; None if only workers do."""
        ...

    def computed(self, one: Pass) -> Iterator[Computed]:
        """Yield every batch of a pass once, as it is computed."""
        ...

    def shown(self) -> str:
        """Return the workers' rates in a few words; nothing for a single device."""
        ...

    def close(self) -> None:
        """End what the engine started."""
        ...
