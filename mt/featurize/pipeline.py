"""One pass over a split's images for all backbones: decoding, embedding and writing overlap, in constant memory."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from types import TracebackType
from typing import Self

import numpy as np

from mt.cache.feature_file.format import Status
from mt.cache.feature_file.shards import BlockWriter
from mt.cache.known_rows import KnownRows
from mt.datasets import Split
from mt.errors import DatasetError
from mt.featurize.engines.base import Computed, EmbeddedRows, Engine, Pass, RowBatch
from mt.terminal.progress import Advance


@dataclass
class Job:
    """A model and the feature file that its embeddings go to.

    known: the rows whose embeddings other files hold; they are copied, the other rows are computed.
    """

    model: str
    writer: BlockWriter
    batch_size: int
    threads: int
    known: KnownRows

    def needed(self) -> set[int]:
        """Return the numbers of the batches that blocks still lack.

        The batches are those of an uninterrupted run: a resumed run computes each image in the same batch, and so gets
        the same bits.
        """
        first_rows = np.arange(0, self.writer.n_rows, self.writer.block_rows)
        computed = np.add.reduceat(~self.known.mask, first_rows, dtype=np.int64)  # rows of each block
        stops = np.cumsum(computed)
        begin, end = (stops - computed) // self.batch_size, -(-stops // self.batch_size)
        blocks = [block for block in self.writer.missing if computed[block]]
        return {number for block in blocks for number in range(begin[block], end[block])}


def missing_rows(jobs: Sequence[Job]) -> int:
    """Return the number of images that a pass reads: the rows of every batch that some job still needs."""
    return sum(map(len, _batches(jobs).values()))


def _batches(jobs: Sequence[Job]) -> dict[int, np.ndarray]:
    """Return the rows of each batch that some job needs, by number, in order; all are parts of one array."""
    rows, size = np.flatnonzero(~jobs[0].known.mask), jobs[0].batch_size
    return {n: rows[n * size : (n + 1) * size] for n in sorted(set().union(*(job.needed() for job in jobs)))}


def run_pass(engine: Engine, split: Split, jobs: Sequence[Job], *, on_error: str, advance: Advance) -> None:
    """Fill every missing block of every job, reading each image that is not known once, and write blocks as they fill.

    All jobs share block size, batch size, threads and known rows.  Finished blocks stay if the pass is interrupted.

    Raises:
        DatasetError: an image could not be read and `on_error` is `raise`.
        CacheError: embeddings that are not finite.
    """
    wanted = [(job.model, job.needed()) for job in jobs]
    work = [
        RowBatch(number, rows, tuple(model for model, numbers in wanted if number in numbers))
        for number, rows in _batches(jobs).items()
    ]
    one = Pass(split.images, work, jobs[0].batch_size, jobs[0].threads)
    writers = {job.model: job.writer for job in jobs}
    with _WritingThread(jobs) as sink:
        for batch in engine.computed(one):
            if batch.errors and on_error == "raise":
                raise DatasetError(
                    f"{str(batch.errors[0]).removesuffix('.')}. To mark such images and continue: --on-error skip"
                )
            for model, embeddings in batch.embeddings.items():
                sink.put(writers[model], batch, embeddings)
            advance(len(batch.status))


class _OpenBlocks:
    """The missing blocks of one file, each gathered until it is complete; known rows are filled in at once."""

    def __init__(self, job: Job) -> None:
        self.writer, self.known = job.writer, job.known
        self.missing = frozenset(job.writer.missing)
        self._open: dict[int, tuple[np.ndarray, np.ndarray]] = {}

    def copy(self) -> None:
        """Write the blocks of which every row is known."""
        for block in sorted(self.missing):
            if self.known.mask[self._rows(block)].all():
                self._write_if_whole(block)

    def add(self, batch: Computed, embeddings: np.ndarray) -> None:
        """Put the rows of a batch into their blocks, and write the blocks that are now complete."""
        blocks = batch.work.rows // self.writer.block_rows
        for block in sorted(set(blocks.tolist()) & self.missing):
            here = blocks == block
            values, status = self._block(block)
            at = batch.work.rows[here] - block * self.writer.block_rows
            status[at] = batch.status[here]
            values[at] = np.where((batch.status[here] == Status.OK)[:, None], embeddings[here], 0)
            self._write_if_whole(block)

    def _rows(self, block: int) -> slice:
        first = block * self.writer.block_rows
        return slice(first, min(first + self.writer.block_rows, self.writer.n_rows))

    def _block(self, block: int) -> tuple[np.ndarray, np.ndarray]:
        if block not in self._open:
            rows = self._rows(block)
            values = self.known.copied(rows)
            self._open[block] = values, np.where(self.known.mask[rows], Status.OK, Status.MISSING).astype(np.uint8)
        return self._open[block]

    def _write_if_whole(self, block: int) -> None:
        values, status = self._block(block)
        if (status != Status.MISSING).all():
            self.writer.write_block(block, values, status)
            del self._open[block]


class _WritingThread:
    """A thread that copies embeddings from the device and writes complete blocks while the next batch computes."""

    def __init__(self, jobs: Sequence[Job], depth: int = 8) -> None:
        self._blocks = {id(job.writer): _OpenBlocks(job) for job in jobs}
        self._queue: queue.Queue[tuple[BlockWriter, Computed, EmbeddedRows] | None] = queue.Queue(depth)
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="write", daemon=True)

    def put(self, writer: BlockWriter, batch: Computed, embeddings: EmbeddedRows) -> None:
        """Hand over a batch; wait if the disk is slower than the network."""
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
        self._try(self._copy)
        while (item := self._queue.get()) is not None:
            if self._error is None:
                self._try(partial(self._add, *item))

    def _try(self, step: Callable[[], None]) -> None:
        try:
            step()
        except BaseException as error:
            self._error = error

    def _copy(self) -> None:
        for blocks in self._blocks.values():
            blocks.copy()

    def _add(self, writer: BlockWriter, batch: Computed, embeddings: EmbeddedRows) -> None:
        self._blocks[id(writer)].add(batch, embeddings.rows(len(batch.status)))
