"""Images, decoded ahead of the network by threads: batches of uint8 pixels that never outgrow a fixed window.

For the CPU each thread also resizes what it decoded; for a device the pictures stay as they are (`mt.featurize.feed`).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from mt.cache.feature_file.format import Status
from mt.datasets import ImageError, Split
from mt.datasets.base import Loaded
from mt.datasets.decoding.nvjpeg import TOGETHER
from mt.datasets.images import ImageFiles
from mt.featurize.device_decoder import DeviceDecoder
from mt.featurize.feed import RawRows, as_pixels

if TYPE_CHECKING:
    import torch

    from mt.backbones.preprocess import Preprocess

# Rows that one decoding task takes: enough to amortise a read of a chunked HDF5, few enough to share a batch.
TASK_ROWS = 8


@dataclass
class Batch:
    """Rows `start` to `start + len(status)` of a split, padded to the batch size.

    `pixels` holds one uint8 array (batch, S, S, 3) per geometry; a row that could not be read is zero there and its
    `status` says why, with the message in `errors`.  For a device `raw` holds the pictures in their own sizes instead.
    """

    block: int
    start: int
    pixels: Mapping[Hashable, np.ndarray]
    status: np.ndarray
    errors: list[ImageError] = field(default_factory=list)
    raw: list[RawRows] = field(default_factory=list)


# What a decoding task gives back.
Decoded = tuple[list[ImageError], RawRows | None]


def read_batches(
    split: Split,
    blocks: Sequence[int],
    *,
    block_rows: int,
    batch_size: int,
    recipes: Sequence[Preprocess],
    workers: int,
    device: torch.device | None = None,
    ahead: int = 3,
) -> Iterator[Batch]:
    """Yield the batches of the given blocks in order, `ahead` of them being decoded at any time.

    A geometry that several recipes share is resized and cropped once.  device: what is to do that, and to decode where
    the split says so; the batches then hold raw pictures.
    """
    decode = _Decode(split, geometries_of(recipes), device)
    starts = (
        (block, start)
        for block in blocks
        for start in range(block * block_rows, min((block + 1) * block_rows, len(split)), batch_size)
    )
    window: deque[tuple[Batch, list[Future[Decoded]]]] = deque()
    pool = ThreadPoolExecutor(workers, thread_name_prefix="decode")
    try:
        for block, start in starts:
            stop = min(start + batch_size, (block + 1) * block_rows, len(split))
            window.append(_submit(pool, decode, decode.batch(block, start, stop, batch_size), stop))
            if len(window) > ahead:
                yield _finished(*window.popleft())
        while window:
            yield _finished(*window.popleft())
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def geometries_of(recipes: Sequence[Preprocess]) -> dict[Hashable, Preprocess]:
    """Return one recipe per geometry."""
    return {recipe.geometry_key: recipe for recipe in recipes}


def _submit(
    pool: ThreadPoolExecutor, decode: _Decode, batch: Batch, stop: int
) -> tuple[Batch, list[Future[Decoded]]]:
    tasks = [
        pool.submit(decode, batch, row, min(row + decode.rows, stop)) for row in range(batch.start, stop, decode.rows)
    ]
    return batch, tasks


def _finished(batch: Batch, tasks: list[Future[Decoded]]) -> Batch:
    for task in tasks:
        errors, rows = task.result()
        batch.errors.extend(errors)
        if rows is not None:
            batch.raw.append(rows)
    return batch


class _Decode:
    """Decodes rows of a split, and resizes them for every geometry unless a device is to do that.

    rows: how many are decoded together.
    """

    def __init__(
        self, split: Split, geometries: Mapping[Hashable, Preprocess], device: torch.device | None
    ) -> None:
        self.split, self.geometries, self.device = split, geometries, device
        images, self._there = split.images, None
        if device is not None and isinstance(images, ImageFiles) and images.on_device:
            self._there = DeviceDecoder(images, device, geometries)
        self.rows = TASK_ROWS if self._there is None else TOGETHER

    def batch(self, block: int, start: int, stop: int, size: int) -> Batch:
        """Return a batch of rows `start` to `stop` that is still to be decoded."""
        wanted = self.geometries if self.device is None else {}
        pixels = {key: np.zeros((size, r.crop, r.crop, 3), np.uint8) for key, r in wanted.items()}
        return Batch(block, start, pixels, np.full(stop - start, Status.OK, np.uint8))

    def __call__(self, batch: Batch, start: int, stop: int) -> Decoded:
        """Decode rows `start` to `stop` of the split into the batch; return what could not be read, and raw rows."""
        errors, rows = [], None if self.device is None else RawRows()
        for row, image in self._decoded(batch, start, stop, rows):
            if isinstance(image, ImageError):
                batch.status[row] = image.status
                errors.append(image)
            elif rows is not None:
                rows.add(row, as_pixels(image))
            else:
                for key, recipe in self.geometries.items():
                    batch.pixels[key][row] = recipe.geometry(image)
        if rows is not None:
            rows.resize_rare_sizes(self.geometries)
        return errors, rows

    def _decoded(self, batch: Batch, start: int, stop: int, rows: RawRows | None) -> Iterator[tuple[int, Loaded]]:
        """Yield the place in the batch and the image of each row that the device has not put among the rows."""
        if self._there is None or rows is None:
            yield from enumerate(self.split.images.load(start, stop), start - batch.start)
            return
        for row in self._there(start, stop, rows, start - batch.start):
            yield row - batch.start, self._there.rest.load(row, row + 1)[0]
