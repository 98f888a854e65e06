"""Images, decoded ahead of the network by threads: batches of uint8 pixels that never outgrow a fixed window."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from mt.cache.feature_file.status import Status
from mt.datasets import ImageError, Split

if TYPE_CHECKING:
    from mt.backbones.preprocess import Preprocess

# Rows that one decoding task takes: enough to amortise a read of a chunked HDF5, few enough to share a batch.
TASK_ROWS = 8


@dataclass
class Batch:
    """Rows `start` to `start + len(status)` of a split, padded to the batch size.

    `pixels` holds one uint8 array (batch, S, S, 3) a geometry; a row that could not be read is zero there and its
    `status` says why, with the message in `errors`.
    """

    block: int
    start: int
    pixels: Mapping[Any, np.ndarray]
    status: np.ndarray
    errors: list[ImageError] = field(default_factory=list)


def read_batches(
    split: Split,
    blocks: Sequence[int],
    *,
    block_rows: int,
    batch_size: int,
    recipes: Sequence[Preprocess],
    workers: int,
    ahead: int = 3,
) -> Iterator[Batch]:
    """Yield the batches of the given blocks in order, `ahead` of them being decoded at any time.

    A geometry that several recipes share is resized and cropped once.
    """
    geometries = {recipe.geometry_key: recipe for recipe in recipes}
    starts = (
        (block, start)
        for block in blocks
        for start in range(block * block_rows, min((block + 1) * block_rows, len(split)), batch_size)
    )
    window: deque[tuple[Batch, list[Future[list[ImageError]]]]] = deque()
    pool = ThreadPoolExecutor(workers, thread_name_prefix="decode")
    try:
        for block, start in starts:
            window.append(_submit(pool, split, geometries, block, start, block_rows, batch_size))
            if len(window) > ahead:
                yield _finished(*window.popleft())
        while window:
            yield _finished(*window.popleft())
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _submit(
    pool: ThreadPoolExecutor,
    split: Split,
    geometries: Mapping[Any, Preprocess],
    block: int,
    start: int,
    block_rows: int,
    batch_size: int,
) -> tuple[Batch, list[Future[list[ImageError]]]]:
    stop = min(start + batch_size, (block + 1) * block_rows, len(split))
    pixels = {key: np.zeros((batch_size, r.crop, r.crop, 3), np.uint8) for key, r in geometries.items()}
    batch = Batch(block, start, pixels, np.full(stop - start, Status.OK, np.uint8))
    tasks = [
        pool.submit(_decode, split, geometries, batch, row, min(row + TASK_ROWS, stop))
        for row in range(start, stop, TASK_ROWS)
    ]
    return batch, tasks


def _finished(batch: Batch, tasks: list[Future[list[ImageError]]]) -> Batch:
    for task in tasks:
        batch.errors.extend(task.result())
    return batch


def _decode(
    split: Split, geometries: Mapping[Any, Preprocess], batch: Batch, start: int, stop: int
) -> list[ImageError]:
    """Fill rows `start` to `stop` of the batch's arrays; return what could not be read."""
    errors = []
    for row, image in enumerate(split.images.load(start, stop), start - batch.start):
        if isinstance(image, ImageError):
            batch.status[row] = image.status
            errors.append(image)
            continue
        for key, recipe in geometries.items():
            batch.pixels[key][row] = recipe.geometry(image)
    return errors
