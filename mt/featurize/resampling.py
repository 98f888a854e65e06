"""Pillow's resizing as exact matrix products: any device gives the pixels that Pillow gives, bit for bit.

Pillow (src/libImaging/Resample.c) computes the weights of each output pixel in double precision, divides them by their
sum and rounds them to `BITS` fractional bits, half away from zero.  It filters across, then down, and after each pass
keeps `clip((2^21 + sum) >> 22)`; Pillow 13 filters down first for some tall pictures (`down_first`).  All of these are
integers, so a matrix product is exact if its partial sums are integers that the number format holds: up to 2^53 in
float64, up to 2^24 in float32, for which each weight is split into parts that are small enough (`split`).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor

from mt.backbones.preprocess import Interpolation, Placement, Preprocess

BITS = 22
LARGEST_PIXEL = 255
EXACT_IN_FLOAT32 = 1 << 24
FAST_FLOAT64 = {(6, 0), (7, 0), (8, 0), (9, 0), (10, 0)}  # compute capabilities with at least half of float32's rate
Integers = npt.NDArray[np.int64]
_SUPPORT = {"bilinear": 1.0, "bicubic": 2.0}


@dataclass(frozen=True)
class Summand:
    """One summand of a weight matrix: `matrix` (outputs, inputs) times 2^`shift`."""

    matrix: Tensor
    shift: int


class Resampler:
    """Resizes and crops pictures of one size on one device, as `Preprocess.geometry` does with Pillow.

    Called with uint8 pixels (N, height, width, 3), it returns uint8 (N, crop, crop, 3).  It computes only the pixels
    that the crop keeps.
    """

    def __init__(
        self, recipe: Preprocess, height: int, width: int, device: torch.device, dtype: torch.dtype | None = None
    ) -> None:
        place = recipe.placement(width, height)
        dtype = dtype or exact_dtype(device)
        across, down = _matrices(place, recipe.interpolation, height, width)
        self._across = [Summand(part.matrix.to(device), part.shift) for part in split(across, dtype)]
        self._down = [Summand(part.matrix.to(device), part.shift) for part in split(down, dtype)]
        self._down_first = down_first(height, width, place)
        self._crop, self._left, self._top = recipe.crop, max(0, -place.left), max(0, -place.top)

    def __call__(self, pixels: Tensor) -> Tensor:
        with torch.autocast(pixels.device.type, enabled=False):
            planes = pixels.permute(3, 0, 1, 2)
            if self._down_first:
                planes = _across(_down(planes, self._down), self._across)
            else:
                planes = _down(_across(planes, self._across), self._down)
        resized = planes.permute(1, 2, 3, 0)
        kept_height, kept_width = resized.shape[1:3]
        if (kept_height, kept_width) == (self._crop, self._crop):
            return resized.contiguous()
        padded = torch.zeros((len(pixels), self._crop, self._crop, 3), dtype=torch.uint8, device=pixels.device)
        padded[:, self._top : self._top + kept_height, self._left : self._left + kept_width] = resized
        return padded


def down_first(height: int, width: int, place: Placement) -> bool:
    """Return whether Pillow resizes down before it resizes across.

    Pillow 12 and older never do.  Pillow 13 does if resizing removes more than twice as many rows as columns; found by
    comparing 5,596 resized pictures with both orders.
    """
    taken_off = height - place.height
    return taken_off > 0 and taken_off > 2 * (width - place.width) and _pillow_chooses_the_order()


@cache
def _pillow_chooses_the_order() -> bool:
    """Return whether the installed Pillow resizes a tall picture down first; the two orders round differently."""
    picture = np.random.default_rng(0).integers(0, 256, (60, 8), dtype=np.uint8)
    found = np.asarray(Image.fromarray(picture).resize((5, 9), Image.Resampling.BILINEAR))
    rows = [Summand(torch.from_numpy(weights(60, 9, "bilinear")).double(), 0)]
    columns = [Summand(torch.from_numpy(weights(8, 5, "bilinear")).double(), 0)]
    planes = torch.from_numpy(picture)[None, None]
    return bool((_across(_down(planes, rows), columns)[0, 0].numpy() == found).all())


def exact_dtype(device: torch.device) -> torch.dtype:
    """Return float64 if the device computes it fast, else float32, for which `split` splits the weights."""
    if device.type == "cuda":
        return torch.float64 if torch.cuda.get_device_capability(device) in FAST_FLOAT64 else torch.float32
    return torch.float32 if device.type == "mps" else torch.float64


def weights(n_in: int, n_out: int, interpolation: Interpolation, box: tuple[float, float] | None = None) -> Integers:
    """Return Pillow's integer weights (n_out, n_in) for one direction.

    box: the part of the input, in pixels, that the output shows; all of it by default.
    """
    start, stop = (np.float32(edge) for edge in box or (0, n_in))
    scale = float(stop - start) / n_out
    stretch = max(scale, 1.0)
    reach = _SUPPORT[interpolation] * stretch
    centre = float(start) + (np.arange(n_out) + 0.5) * scale
    first = np.maximum(np.trunc(centre - reach + 0.5), 0).astype(np.int64)
    last = np.minimum(np.trunc(centre + reach + 0.5), n_in).astype(np.int64)
    taps = np.arange((last - first).max())
    place = first[:, None] + taps
    value = _KERNELS[interpolation]((place - centre[:, None] + 0.5) * (1.0 / stretch))
    value[place >= last[:, None]] = 0.0
    value /= np.cumsum(value, axis=1)[:, -1:]  # summed one by one, as Pillow does
    rounded = np.trunc(value * (1 << BITS) + np.where(value < 0, -0.5, 0.5)).astype(np.int64)
    matrix = np.zeros((n_out, n_in), np.int64)
    rows, columns = np.nonzero(rounded)
    matrix[rows, place[rows, columns]] = rounded[rows, columns]
    return matrix


def split(matrix: Integers | None, dtype: torch.dtype) -> list[Summand]:
    """Return parts that add up to the matrix; the product of each with pixels is exact in `dtype`.

    A float32 product is exact in any order of summation if the absolute weights of each output, times 255, add up to
    at most 2^24.  In float64 the bound is 2^53, which holds for any picture.  Two parts suffice for 3,000 taps; wider
    filters need more.
    """
    if matrix is None:
        return []
    if dtype == torch.float64:
        return [Summand(torch.from_numpy(matrix).to(dtype), 0)]
    for n_parts in range(1, BITS):
        for bits in range(1, BITS):
            parts, rest = [], matrix
            for _ in range(n_parts - 1):
                higher = (rest + (1 << (bits - 1))) >> bits
                parts.append(rest - (higher << bits))
                rest = higher
            parts.append(rest)
            if all(_is_exact(part) for part in parts):
                return [Summand(torch.from_numpy(part).to(dtype), number * bits) for number, part in enumerate(parts)]
    raise AssertionError("a part of one bit is exact for 65,793 taps and more")


def _is_exact(part: Integers) -> bool:
    return bool(np.abs(part).sum(axis=1).max() * LARGEST_PIXEL <= EXACT_IN_FLOAT32)


def _matrices(
    place: Placement, interpolation: Interpolation, height: int, width: int
) -> tuple[Integers | None, Integers | None]:
    """Return the weights across and down for the pixels that the crop keeps; None for a pass that changes nothing."""
    found = []
    for n_in, n_out, box, keep in (
        (width, place.width, place.box and (place.box[0], place.box[2]), place.columns),
        (height, place.height, place.box and (place.box[1], place.box[3]), place.rows),
    ):
        same = n_in == n_out and not box and (keep.start, keep.stop) == (0, n_in)
        found.append(None if same else weights(n_in, n_out, interpolation, box or None)[keep])
    return found[0], found[1]


def _across(planes: Tensor, parts: list[Summand]) -> Tensor:
    return _product(planes, parts) if parts else planes


def _down(planes: Tensor, parts: list[Summand]) -> Tensor:
    return _product(planes.transpose(2, 3), parts).transpose(2, 3) if parts else planes


def _product(pixels: Tensor, parts: list[Summand]) -> Tensor:
    """Return `clip((2^21 + pixels @ weights) >> 22)` along the last dimension, uint8."""
    dtype = parts[0].matrix.dtype
    if dtype == torch.float64:
        total = pixels.to(dtype) @ parts[0].matrix.T
        return total.mul_(2.0**-BITS).add_(0.5).floor_().clamp_(0, LARGEST_PIXEL).to(torch.uint8)
    values = pixels.to(dtype)
    total = torch.full((), 1 << (BITS - 1), dtype=torch.int32, device=pixels.device)
    for part in parts:
        total = total + ((values @ part.matrix.T).to(torch.int32) << part.shift)
    return (total >> BITS).clamp_(0, LARGEST_PIXEL).to(torch.uint8)


def _bilinear(x: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    x = np.abs(x)
    return np.where(x < 1, 1 - x, 0.0)


def _bicubic(x: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Keys' kernel with a = -0.5, evaluated in Pillow's order."""
    a, x = -0.5, np.abs(x)
    near = ((a + 2.0) * x - (a + 3.0)) * x * x + 1
    far = (((x - 5) * x + 8) * x - 4) * a
    return np.where(x < 1, near, np.where(x < 2, far, 0.0))


_KERNELS = {"bilinear": _bilinear, "bicubic": _bicubic}
