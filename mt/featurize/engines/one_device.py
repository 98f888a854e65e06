"""The backbones of a run on one device, in this process: decoding, copies and the network overlap."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from mt.featurize.embed import AUTO_BATCH_SIZE, Embedder, compute_description, embedders
from mt.featurize.engines.base import Computed, Pass, RowBatch
from mt.featurize.feed import Feed
from mt.featurize.reading import BatchReader, geometries_of
from mt.system.device import pick_device

if TYPE_CHECKING:
    from mt.backbones.load import Backbone
    from mt.datasets.base import ImageSource

# A batch to compute, with the source of its rows; None: no batch has arrived yet, so finish the ones that are begun.
Arriving = tuple["ImageSource", RowBatch] | None


class OneDevice:
    """The engine of a plain run; every worker of the other engines uses it too.

    workers: threads that decode.  batch_size: images per batch; None for the device's default.
    """

    def __init__(
        self,
        backbones: Mapping[str, Backbone],
        device: torch.device,
        *,
        precision: str,
        batch_size: int | None,
        workers: int,
    ) -> None:
        self.device, self._precision, self._workers = device, precision, workers
        size = batch_size or AUTO_BATCH_SIZE.get(device.type, AUTO_BATCH_SIZE["cuda"])
        made, self.batch_size = embedders(list(backbones.values()), device, precision=precision, batch_size=size)
        self._embedders = {embedder.backbone.name: embedder for embedder in made}

    def named_device(self) -> str | None:
        return None if self.device == pick_device("auto") else str(self.device)

    def describe(self, batch_size: int) -> dict[str, Any]:
        return compute_description(self.device, precision=self._precision, batch_size=batch_size)

    def embedder(self, model: str) -> Embedder:
        return self._embedders[model]

    def computed(self, one: Pass) -> Iterator[Computed]:
        torch.set_num_threads(one.threads)
        return self.stream(((one.images, work) for work in one.work), one.models, one.batch_size)

    def stream(self, arriving: Iterable[Arriving], models: Sequence[str], batch_size: int) -> Iterator[Computed]:
        """Yield the batches that arrive, in order; their embeddings may still be on the device."""
        used = [self._embedders[model] for model in models]
        for embedder in used:  # a file that is resumed may have been begun with larger batches
            embedder.chunk = max(embedder.chunk, batch_size)
        geometries = geometries_of([embedder.backbone.preprocess for embedder in used])
        feed = None if self.device.type == "cpu" else Feed(self.device, geometries, batch_size)
        read = BatchReader(geometries, batch_size, workers=self._workers, device=None if feed is None else self.device)
        begun: deque[RowBatch] = deque()

        def asked() -> Iterator[tuple[ImageSource, np.ndarray] | None]:
            for one in arriving:
                if one is None:
                    yield None
                    continue
                begun.append(one[1])
                yield one[0], one[1].rows

        for batch in read(asked()):
            work = begun.popleft()
            pixels = feed(batch.raw) if feed is not None else batch.pixels
            embeddings = {
                model: Fetched(self._embedders[model](pixels[self._embedders[model].backbone.preprocess.geometry_key]))
                for model in work.models
            }
            batch.raw.clear()
            yield Computed(work, batch.status, batch.errors, embeddings)

    def shown(self) -> str:
        return ""

    def close(self) -> None:
        """Nothing was started."""


class Fetched:
    """Embeddings whose copy from a device is enqueued at once, and waited for when their rows are read."""

    def __init__(self, embeddings: torch.Tensor) -> None:
        self._rows = embeddings
        self._done: torch.cuda.Event | None = None
        if embeddings.device.type == "cuda":
            self._rows = torch.empty(embeddings.shape, dtype=embeddings.dtype, pin_memory=True)
            self._rows.copy_(embeddings, non_blocking=True)
            self._done = torch.cuda.Event()  # type: ignore[no-untyped-call]
            self._done.record(torch.cuda.current_stream(embeddings.device))

    def rows(self, count: int) -> np.ndarray:
        """Wait for the first `count` rows and return them, float32 (count, dim)."""
        if self._done is not None:
            self._done.synchronize()
        return self._rows[:count].cpu().numpy()
