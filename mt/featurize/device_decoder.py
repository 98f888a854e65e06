"""JPEG files that a device decodes and resizes (`--decoder device`); only the network's input stays on it."""

from __future__ import annotations

import threading
from collections import defaultdict

import torch
from torch import Tensor

from mt.datasets.decoding.nvjpeg import decode_batch
from mt.datasets.images import ImageFiles
from mt.featurize.feed import FEW, UPLOAD_BYTES, RawRows, Resamplers


class DeviceDecoder:
    """Decodes and resizes rows of a split on a device, one batch at a time, however many threads read files.

    `rest` are the same images, for rows that Pillow decodes.
    """

    def __init__(self, images: ImageFiles, resamplers: Resamplers) -> None:
        self._images, self._device, self._geometries = images, resamplers.device, resamplers.geometries
        self.rest = images.by_pillow()
        self._resamplers = resamplers
        self._one_batch = threading.Lock()

    def __call__(self, start: int, stop: int, rows: RawRows, first: int) -> list[int]:
        """Decode rows `start` to `stop` to the places from `first` on; return the rows that Pillow must decode."""
        files = self._images.contents(start, stop)
        with self._one_batch:
            found = decode_batch(files, self._images.decoding.most_pixels, self._device)
            by_size: dict[tuple[int, int], tuple[list[int], list[Tensor]]] = defaultdict(lambda: ([], []))
            for number, pixels in enumerate(found):
                if pixels is not None:
                    places, pictures = by_size[pixels.shape[0], pixels.shape[1]]
                    places.append(first + number)
                    pictures.append(pixels)
            for size, (places, pictures) in by_size.items():
                self._resize(size, places, pictures, rows)
        return [start + number for number, pixels in enumerate(found) if pixels is None]

    def _resize(self, size: tuple[int, int], places: list[int], pictures: list[Tensor], rows: RawRows) -> None:
        """Resize pictures of one size on the device, UPLOAD_BYTES at once; fewer than FEW are left to Pillow."""
        if len(places) < FEW:
            for place, picture in zip(places, pictures, strict=True):
                rows.add(place, picture.cpu().numpy())
            return
        at_once = max(1, UPLOAD_BYTES // pictures[0].nbytes)
        for low in range(0, len(places), at_once):
            some = torch.stack(pictures[low : low + at_once])
            for key in self._geometries:
                rows.there.append((key, places[low : low + at_once], self._resamplers(key, *size)(some)))
