"""JPEG files decoded by a CUDA card in batches (nvJPEG, through torchvision): `--decoder device`.

Its pixels differ from Pillow's: its inverse transform, chroma upsampling and rounding differ.  So the decoder is part
of a dataset's name and fingerprint.  On first use it decodes a built-in sample of each kind.  Pillow decodes the kinds
that it refuses or misreads, and files that are turned, cut short, damaged, or not a plain JPEG.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from io import BytesIO
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from mt.datasets.decoding import jpeg
from mt.errors import InputError, MtError
from mt.system.device import has_cuda

if TYPE_CHECKING:
    import torch
    from torch import Tensor

TOGETHER = 64  # files that one call decodes
FAR = 8.0  # mean difference to Pillow, in grey levels, from which a sample counts as misread (wrong colours)


def require(device: torch.device | None = None) -> torch.device:
    """Return the device that decodes: `device` if it is a GPU, else the current CUDA card.

    Raises:
        InputError: it decodes no JPEG file.
    """
    import torch

    where = torch.device("cuda") if device is None or device.type == "cpu" else device
    if not any(_reads(kind, where) for kind in jpeg.samples()):
        found = "no CUDA device" if where.type == "cuda" and not has_cuda() else f"none on '{where}'"
        raise InputError(
            f"--decoder device requires a CUDA device and a torchvision with nvJPEG, found {found}. "
            "Use --decoder pillow, the default."
        )
    return where


def decode_batch(
    files: Sequence[bytes], max_pixels: int | None = None, device: torch.device | None = None
) -> list[Tensor | None]:
    """Return the RGB pixels uint8 (H, W, 3) of each file's bytes on the device, or None to leave it to Pillow.

    max_pixels: a larger picture is left to Pillow, which refuses it.

    Raises:
        InputError: as `require`.
        MtError: the device has no memory for one picture.
    """
    where = require(device)
    chosen = [number for number, data in enumerate(files) if _is_for_device(data, where, max_pixels)]
    found: list[Tensor | None] = [None] * len(files)
    for number, pixels in zip(chosen, _decoded([files[number] for number in chosen], where), strict=True):
        found[number] = pixels
    return found


def _is_for_device(data: bytes, device: torch.device, max_pixels: int | None) -> bool:
    header = jpeg.read_header(data)
    if header is None or not jpeg.is_plain(header, data):
        return False
    return not (max_pixels and header.width * header.height > max_pixels) and _reads(header.kind, device)


def _decoded(files: Sequence[bytes], device: torch.device) -> list[Tensor | None]:
    """Return the pixels of each file.  A batch that fails is halved: nvJPEG gives nothing of the good files in it."""
    import torch

    if not files:
        return []
    try:
        return [pixels.permute(1, 2, 0) for pixels in by_nvjpeg(files, device)]
    except RuntimeError as error:
        if len(files) > 1:
            half = len(files) // 2
            return [*_decoded(files[:half], device), *_decoded(files[half:], device)]
        if isinstance(error, torch.OutOfMemoryError):
            raise MtError(f"{device} has no memory to decode a picture. Use --decoder pillow, the default.") from error
        return [None]


@cache
def _reads(kind: tuple[object, ...], device: torch.device) -> bool:
    """Return whether the device decodes a sample of this kind to Pillow's pixels, up to a mean difference of `FAR`."""
    sample = jpeg.samples().get(kind)
    if sample is None:
        return False
    try:
        (found,) = by_nvjpeg([sample], device)
    except (ImportError, RuntimeError):
        return False
    pixels, expected = found.permute(1, 2, 0).cpu().numpy(), np.asarray(Image.open(BytesIO(sample)).convert("RGB"))
    return pixels.shape == expected.shape and bool(np.abs(pixels.astype(float) - expected).mean() < FAR)


def by_nvjpeg(files: Sequence[bytes], device: torch.device) -> list[Tensor]:
    """Return uint8 (3, H, W) per file, on a CUDA device."""
    import torch
    from torchvision.io import ImageReadMode, decode_jpeg

    if device.type != "cuda" or not has_cuda():  # torchvision would print its stack
        raise RuntimeError(f"nvJPEG does not run on {device}")
    encoded = [torch.frombuffer(bytearray(data), dtype=torch.uint8) for data in files]
    found: list[Tensor] = decode_jpeg(encoded, mode=ImageReadMode.RGB, device=device)
    return found
