"""Images, decoded ahead of the network by threads: batches of uint8 pixels in a window of fixed size.

For the CPU each thread also resizes the pictures it decoded; for a device they keep their size (`mt.featurize.feed`).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from mt.cache.feature_file.format import Status
from mt.datasets import ImageError, Split
from mt.datasets.base import ImageSource, Loaded
from mt.datasets.decoding.nvjpeg import TOGETHER
from mt.datasets.decoding.row_hashes import runs
from mt.datasets.images import ImageFiles
from mt.featurize.device_decoder import DeviceDecoder
from mt.featurize.feed import RawRows, Resamplers, as_pixels

if TYPE_CHECKING:
    import torch

    from mt.backbones.preprocess import Preprocess

# Rows per decoding task: enough to amortise a read of a chunked HDF5, few enough for all threads to share a batch.
TASK_ROWS = 8
AHEAD = 3  # batches that are being decoded while one is computed


@dataclass
class Batch:
    """Some `rows` of a split, in rising order, padded to the batch size.

    `pixels` holds one uint8 array (batch, S, S, 3) per geometry; a row that could not be read is zero there and its
    `status` says why, with the message in `errors`.  For a device `raw` holds the pictures in their own sizes instead.
    """

    rows: np.ndarray
    pixels: Mapping[Hashable, np.ndarray]
    status: np.ndarray
    errors: list[ImageError] = field(default_factory=list)
    raw: list[RawRows] = field(default_factory=list)


# What a decoding task returns: errors, and raw pictures if a device resizes.
Decoded = tuple[list[ImageError], RawRows | None]


def read_batches(
    split: Split,
    batches: Sequence[np.ndarray],
    *,
    batch_size: int,
    recipes: Sequence[Preprocess],
    workers: int,
    device: torch.device | None = None,
) -> Iterator[Batch]:
    """Yield the batches with these rows of a split in order.

    A geometry that several recipes share is resized and cropped once.  device: the device that does so, and that
    decodes if the split says so; the batches then hold raw pictures.
    """
    read = BatchReader(geometries_of(recipes), batch_size, workers=workers, device=device)
    return read((split.images, rows) for rows in batches)


class BatchReader:
    """Decodes batches of rows, `AHEAD` of them at any time.

    geometries: how pictures are resized, by their key.  workers: threads.  device: resizes instead of the threads.
    """

    def __init__(
        self,
        geometries: Mapping[Hashable, Preprocess],
        batch_size: int,
        *,
        workers: int,
        device: torch.device | None = None,
    ) -> None:
        self._batch_size, self._workers = batch_size, workers
        self._geometries, self._device = geometries, device
        self._resamplers = None if device is None else Resamplers(device, geometries)
        self._decode: _Decode | None = None

    def __call__(self, asked: Iterable[tuple[ImageSource, np.ndarray] | None]) -> Iterator[Batch]:
        """Yield the batches with these rows of these sources, in order.

        None means that no further batch is known yet: one batch that is being decoded is finished instead.
        """
        window: deque[tuple[Batch, list[Future[Decoded]]]] = deque()
        pool = ThreadPoolExecutor(self._workers, thread_name_prefix="decode")
        try:
            for one in asked:
                if one is not None:
                    decode = self._of(one[0])
                    window.append(_submit(pool, decode, decode.batch(one[1], self._batch_size)))
                if len(window) > AHEAD or (one is None and window):
                    yield _finished(*window.popleft())
            while window:
                yield _finished(*window.popleft())
        finally:
            pool.shutdown(wait=True, cancel_futures=True)

    def _of(self, images: ImageSource) -> _Decode:
        """Return the decoder of a source, kept for the next batch: a plain run has one source."""
        if self._decode is None or self._decode.images is not images:
            self._decode = _Decode(images, self._geometries, self._device, self._resamplers)
        return self._decode


def geometries_of(recipes: Sequence[Preprocess]) -> dict[Hashable, Preprocess]:
    """Return one recipe per geometry."""
    return {recipe.geometry_key: recipe for recipe in recipes}


def _submit(pool: ThreadPoolExecutor, decode: _Decode, batch: Batch) -> tuple[Batch, list[Future[Decoded]]]:
    starts = range(0, len(batch.rows), decode.rows)
    return batch, [pool.submit(decode, batch, start, start + decode.rows) for start in starts]


def _finished(batch: Batch, tasks: list[Future[Decoded]]) -> Batch:
    for task in tasks:
        errors, rows = task.result()
        batch.errors.extend(errors)
        if rows is not None:
            batch.raw.append(rows)
    return batch


class _Decode:
    """Decodes rows of a source, and resizes them for every geometry unless a device does so.

    rows: the number of rows that are decoded together.
    """

    def __init__(
        self,
        images: ImageSource,
        geometries: Mapping[Hashable, Preprocess],
        device: torch.device | None,
        resamplers: Resamplers | None,
    ) -> None:
        self.images, self.geometries, self.device = images, geometries, device
        self._there = None
        if resamplers is not None and isinstance(images, ImageFiles) and images.on_device:
            self._there = DeviceDecoder(images, resamplers)
        self.rows = TASK_ROWS if self._there is None else TOGETHER

    def batch(self, rows: np.ndarray, size: int) -> Batch:
        """Return a batch of rows that is not decoded yet."""
        wanted = self.geometries if self.device is None else {}
        pixels = {key: np.zeros((size, r.crop, r.crop, 3), np.uint8) for key, r in wanted.items()}
        return Batch(rows, pixels, np.full(len(rows), Status.OK, np.uint8))

    def __call__(self, batch: Batch, start: int, stop: int) -> Decoded:
        """Decode the rows at places `start` to `stop` of the batch; return unreadable images, and raw pictures."""
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
        """Yield the place in the batch and the image of each row that the device did not decode."""
        place = start
        for first, last in runs(batch.rows[start:stop].tolist(), most=self.rows):
            if self._there is None or rows is None:
                yield from enumerate(self.images.load(first, last), place)
            else:
                for row in self._there(first, last, rows, place):
                    yield place + row - first, self._there.rest.load(row, row + 1)[0]
            place += last - first
