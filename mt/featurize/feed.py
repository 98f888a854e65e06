"""Pictures for a device: copied as raw pixels through pinned buffers, and resized there to the same bits as Pillow's.

The device resizes the pictures (`mt.featurize.resampling`), since decoding alone keeps the CPU's cores busy.  It
resizes many pictures of one size at once, so Pillow resizes those of rare sizes on a core.  Both give the same pixels.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from mt.backbones.preprocess import Preprocess
from mt.featurize.resampling import Resampler

Pixels = npt.NDArray[np.uint8]
UPLOAD_BYTES = 32 << 20  # of pictures of one size in one copy, at most
SIZES_KEPT = 32  # picture sizes whose weights stay on the device
FEW = 4  # Pillow resizes sizes that fewer pictures have
BUFFERS = 4


@dataclass
class RawRows:
    """Decoded pictures of some rows of a batch.

    by_size: places in the batch and pixels (H, W, 3) of pictures that the device resizes, by (H, W).
    resized: places and pixels (crop, crop, 3) of pictures that Pillow resized, by geometry.
    there: places and pixels (n, crop, crop, 3) of pictures that the device decoded and resized, each with its geometry.
    """

    by_size: dict[tuple[int, int], tuple[list[int], list[Pixels]]] = field(default_factory=dict)
    resized: dict[Hashable, tuple[list[int], list[Pixels]]] = field(default_factory=dict)
    there: list[tuple[Hashable, list[int], Tensor]] = field(default_factory=list)

    def add(self, place: int, picture: Pixels) -> None:
        places, pictures = self.by_size.setdefault((picture.shape[0], picture.shape[1]), ([], []))
        places.append(place)
        pictures.append(picture)

    def resize_rare_sizes(self, geometries: Mapping[Hashable, Preprocess]) -> None:
        """Resize with Pillow the pictures of sizes that fewer than FEW rows have."""
        for size in [size for size, (places, _) in self.by_size.items() if len(places) < FEW]:
            places, pictures = self.by_size.pop(size)
            for key, recipe in geometries.items():
                kept = self.resized.setdefault(key, ([], []))
                kept[0].extend(places)
                kept[1].extend(recipe.geometry(picture) for picture in pictures)


class Resamplers:
    """The resamplers of one device by geometry and picture size; the SIZES_KEPT most recently used are kept."""

    def __init__(self, device: torch.device, geometries: Mapping[Hashable, Preprocess]) -> None:
        self.device, self.geometries = device, geometries
        self._kept: OrderedDict[tuple[Hashable, int, int], Resampler] = OrderedDict()

    def __call__(self, key: Hashable, height: int, width: int) -> Resampler:
        name = key, height, width
        if name not in self._kept:
            self._kept[name] = Resampler(self.geometries[key], height, width, self.device)
            while len(self._kept) > SIZES_KEPT:
                self._kept.popitem(last=False)
        self._kept.move_to_end(name)
        return self._kept[name]


class Feed:
    """Copies batches to one device: for each geometry a tensor uint8 (batch, crop, crop, 3), zero in padding rows."""

    def __init__(self, device: torch.device, geometries: Mapping[Hashable, Preprocess], batch_size: int) -> None:
        self.device, self.geometries, self.batch_size = device, geometries, batch_size
        self._upload = PinnedUpload(device) if device.type == "cuda" else None
        self._resamplers = Resamplers(device, geometries)

    def __call__(self, parts: Sequence[RawRows]) -> dict[Hashable, Tensor]:
        """Return the batch that the parts make up, on the device; the copies run while the device computes."""
        batch = {
            key: torch.zeros((self.batch_size, recipe.crop, recipe.crop, 3), dtype=torch.uint8, device=self.device)
            for key, recipe in self.geometries.items()
        }
        for size, places, pictures in _together(parts):
            there = self._moved(pictures)
            for key, pixels in batch.items():
                _put(pixels, places, self._resamplers(key, *size)(there))
        for part in parts:
            for key, (places, pictures) in part.resized.items():
                _put(batch[key], places, self._moved(pictures))
            for key, places, rows in part.there:
                _put(batch[key], places, rows)
        return batch

    def _moved(self, pictures: Sequence[Pixels]) -> Tensor:
        if self._upload is not None:
            return self._upload(pictures)
        return torch.from_numpy(np.stack(pictures)).to(self.device)


class PinnedUpload:
    """Copies pictures of one size to a CUDA device, on a stream of its own, through pinned buffers used in turn."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._stream: Any = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        self._buffers: deque[tuple[Tensor, torch.cuda.Event]] = deque()

    def __call__(self, pictures: Sequence[Pixels]) -> Tensor:
        shape = (len(pictures), *pictures[0].shape)
        buffer, sent = self._free(int(np.prod(shape)))
        staged = buffer[: int(np.prod(shape))].view(shape)
        np.stack(pictures, out=staged.numpy())
        with torch.cuda.stream(self._stream):
            there = staged.to(self._device, non_blocking=True)
            sent.record(self._stream)
        self._buffers.append((buffer, sent))
        computing = torch.cuda.current_stream(self._device)
        computing.wait_event(sent)
        there.record_stream(computing)
        return there

    def _free(self, size: int) -> tuple[Tensor, torch.cuda.Event]:
        """Return a buffer that is large enough and whose last copy is done."""
        if len(self._buffers) >= BUFFERS:
            buffer, sent = self._buffers.popleft()
            sent.synchronize()
            if buffer.numel() >= size:
                return buffer, sent
        return torch.empty(size, dtype=torch.uint8, pin_memory=True), torch.cuda.Event()  # type: ignore[no-untyped-call]


def _together(parts: Sequence[RawRows]) -> list[tuple[tuple[int, int], list[int], list[Pixels]]]:
    """Return the pictures of all parts grouped by size, at most UPLOAD_BYTES per group."""
    found: list[tuple[tuple[int, int], list[int], list[Pixels]]] = []
    opened: dict[tuple[int, int], int] = {}
    for part in parts:
        for size, (places, pictures) in part.by_size.items():
            at = opened.get(size)
            fits = at is not None and (len(found[at][1]) + len(places)) * pictures[0].nbytes <= UPLOAD_BYTES
            if at is None or not fits:
                opened[size] = len(found)
                found.append((size, list(places), list(pictures)))
                continue
            found[at][1].extend(places)
            found[at][2].extend(pictures)
    return found


def _put(target: Tensor, places: Sequence[int], rows: Tensor) -> None:
    """Write rows to their places; consecutive places need no index tensor on the device."""
    first, last = places[0], places[-1]
    if last - first + 1 == len(places) and list(places) == list(range(first, last + 1)):
        target[first : last + 1] = rows
    else:
        target[torch.tensor(places, device=target.device)] = rows


def as_pixels(picture: Any) -> Pixels:
    """Return a decoded picture as an array (H, W, 3), uint8."""
    if isinstance(picture, np.ndarray):
        return picture
    return np.asarray(picture if picture.mode == "RGB" else picture.convert("RGB"))
