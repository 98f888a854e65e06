"""A stand-in for nvJPEG that runs without a card: Pillow's pixels, each one level off, on the device asked for."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from io import BytesIO

import numpy as np
import pytest
import torch
from PIL import Image

from mt.datasets.decoding import nvjpeg

DAMAGED = b"damaged"  # a file with these bytes fails, and all that are decoded with it


class NvJpeg:
    """Called as `nvjpeg.by_nvjpeg`; `batches` are the numbers of files that were decoded together."""

    def __init__(self) -> None:
        self.batches: list[int] = []

    def __call__(self, files: Sequence[bytes], device: torch.device) -> list[torch.Tensor]:
        if device.type == "cpu":
            raise RuntimeError("nvJPEG does not run on the CPU")
        self.batches.append(len(files))
        if any(DAMAGED in data for data in files):
            raise RuntimeError("nvjpegDecodeBatched failed")
        return [torch.from_numpy(pixels_of(data)).permute(2, 0, 1).to(device) for data in files]


def pixels_of(data: bytes) -> np.ndarray:
    """Return the pixels (H, W, 3) that the stand-in makes of a file."""
    return np.asarray(Image.open(BytesIO(data)).convert("RGB")) ^ np.uint8(1)


@pytest.fixture
def card(monkeypatch: pytest.MonkeyPatch) -> Iterator[NvJpeg]:
    """Put a stand-in where torchvision calls nvJPEG."""
    stand_in = NvJpeg()
    nvjpeg._reads.cache_clear()
    monkeypatch.setattr(nvjpeg, "by_nvjpeg", stand_in)
    yield stand_in
    nvjpeg._reads.cache_clear()
