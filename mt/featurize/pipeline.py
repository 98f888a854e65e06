"""One pass over a split's images for all backbones at once: decode, embed and write overlap, memory stays flat."""

from __future__ import annotations

import queue
import threading
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

import numpy as np
import torch

from mt.cache.feature_file.format import Status
from mt.cache.feature_file.write import FeatureWriter
from mt.datasets import Split
from mt.errors import DatasetError
from mt.featurize.embed import Embedder
from mt.featurize.feed import Feed
from mt.featurize.reading import Batch, geometries_of, read_batches
from mt.terminal.progress import Advance


@dataclass
class Job:
    """A backbone and the feature file that its embeddings go to."""

    embedder: Embedder
    writer: FeatureWriter
    batch_size: int


def missing_rows(jobs: Sequence[Job]) -> int:
    """Return how many images a pass reads: the rows of every block that some job still lacks."""
    writer = jobs[0].writer
    blocks = frozenset[int]().union(*(job.writer.missing for job in jobs))
    return sum(min(writer.block_rows, writer.n_rows - block * writer.block_rows) for block in blocks)


def run_pass(
    split: Split, jobs: Sequence[Job], *, workers: int, on_error: str, advance: Advance
) -> None:
    """Embed every missing block of every job, reading each image once, and write the blocks as they fill.

    All jobs share block and batch size.  What was finished stays when the pass is cut short.

    Raises:
        DatasetError: an image could not be read and `on_error` is `raise`.
        CacheError: embeddings that are not finite.
    """
    block_rows, batch_size = jobs[0].writer.block_rows, jobs[0].batch_size
    missing = [(job, frozenset(job.writer.missing)) for job in jobs]
    blocks = sorted(frozenset[int]().union(*(wanted for _, wanted in missing)))
    recipes = [job.embedder.backbone.preprocess for job in jobs]
    device = jobs[0].embedder.device
    feed = None if device.type == "cpu" else Feed(device, geometries_of(recipes), batch_size)
    with _BlockWriter() as sink:
        for batch in read_batches(
            split, blocks, block_rows=block_rows, batch_size=batch_size, recipes=recipes, workers=workers,
            device=None if feed is None else device,
        ):  # fmt: skip
            if batch.errors and on_error == "raise":
                raise DatasetError(f"{batch.errors[0]} Leave such images out with --on-error skip.")
            pixels = feed(batch.raw) if feed is not None else batch.pixels
            for job, wanted in missing:
                if batch.block in wanted:
                    embeddings = job.embedder(pixels[job.embedder.backbone.preprocess.geometry_key])
                    sink.put(job.writer, batch, Fetched(embeddings))
            batch.raw.clear()
            advance(len(batch.status))


class Fetched:
    """Embeddings on their way from a device: the copy is enqueued at once, and waited for when its rows are read."""

    def __init__(self, embeddings: torch.Tensor) -> None:
        self._rows = embeddings
        self._done: torch.cuda.Event | None = None
        if embeddings.device.type == "cuda":
            self._rows = torch.empty(embeddings.shape, dtype=embeddings.dtype, pin_memory=True)
            self._rows.copy_(embeddings, non_blocking=True)
            self._done = torch.cuda.Event()  # type: ignore[no-untyped-call]
            self._done.record(torch.cuda.current_stream(embeddings.device))

    def rows(self, count: int) -> np.ndarray:
        """Return the first `count` rows (count, dim), once they are here."""
        if self._done is not None:
            self._done.synchronize()
        return self._rows[:count].cpu().numpy()


@dataclass
class _Block:
    """The batches of one block of one file, gathered until the block is whole."""

    embeddings: list[np.ndarray] = field(default_factory=list)
    status: list[np.ndarray] = field(default_factory=list)
    rows: int = 0


class _BlockWriter:
    """A thread that fetches embeddings from the device and writes whole blocks, while the next batch computes."""

    def __init__(self, depth: int = 8) -> None:
        self._queue: queue.Queue[tuple[FeatureWriter, Batch, Fetched] | None] = queue.Queue(depth)
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="write", daemon=True)

    def put(self, writer: FeatureWriter, batch: Batch, embeddings: Fetched) -> None:
        """Hand over a batch; waits when the disk is slower than the network."""
        if self._error is not None:
            raise self._error
        self._queue.put((writer, batch, embeddings))

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._queue.put(None)
        self._thread.join()
        if self._error is not None and error is None:
            raise self._error

    def _run(self) -> None:
        gathered: dict[tuple[int, int], _Block] = defaultdict(_Block)
        while (item := self._queue.get()) is not None:
            if self._error is not None:
                continue
            try:
                self._gather(gathered, *item)
            except BaseException as error:
                self._error = error

    @staticmethod
    def _gather(
        gathered: dict[tuple[int, int], _Block], writer: FeatureWriter, batch: Batch, embeddings: Fetched
    ) -> None:
        block = gathered[id(writer), batch.block]
        rows = embeddings.rows(len(batch.status))
        if (batch.status != Status.OK).any():
            rows = np.where((batch.status == Status.OK)[:, None], rows, 0)
        block.embeddings.append(rows)
        block.status.append(batch.status)
        block.rows += len(rows)
        first = batch.block * writer.block_rows
        if block.rows == min(writer.block_rows, writer.n_rows - first):
            writer.write_block(batch.block, np.concatenate(block.embeddings), np.concatenate(block.status))
            del gathered[id(writer), batch.block]
