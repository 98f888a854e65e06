"""What every engine is: a pure function from batches of rows to embeddings.  Who writes them is not its business."""

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
    """One batch: the `rows` of a source, by rising number, and the models whose files lack some of them."""

    number: int
    rows: np.ndarray
    models: tuple[str, ...]


@dataclass(frozen=True)
class Pass:
    """All batches of one pass over some images.

    batch_size: to which every batch is padded.  threads: with how many of torch's threads every device computes.
    Files record both, and embeddings depend on nothing else that differs between engines.
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
    """The embeddings of a batch, which may still be on their way."""

    def rows(self, count: int) -> np.ndarray:
        """Return the first `count` rows (count, dim), once they are here."""
        ...


@dataclass
class Computed:
    """A batch that was computed: the status of each row, what could not be read, and embeddings by model."""

    work: RowBatch
    status: np.ndarray
    errors: Sequence[ImageError] = ()
    embeddings: Mapping[str, EmbeddedRows] = field(default_factory=dict)


class Engine(Protocol):
    """Computes batches, in any order.

    batch_size: the largest that every device holds, up to what was asked for.
    """

    batch_size: int

    @property
    def device(self) -> torch.device:
        """What computes; where several do, their kind."""
        ...

    def named_device(self) -> str | None:
        """Return what `--device` is in a plain run on one device of this kind; None where it is what `auto` picks."""
        ...

    def describe(self, batch_size: int) -> dict[str, Any]:
        """Return what, beside the fingerprint, can change the last bits of an embedding: recorded in every file."""
        ...

    def embedder(self, model: str) -> Embedder | None:
        """Return what computes a model in this process, on the same kind of device; None where nothing does."""
        ...

    def computed(self, one: Pass) -> Iterator[Computed]:
        """Yield every batch of a pass once, as it is computed."""
        ...

    def shown(self) -> str:
        """Return how the workers are doing, in a few words; nothing where there is one."""
        ...

    def close(self) -> None:
        """End what the engine started."""
        ...
