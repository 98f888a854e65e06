"""Augmentation by kind of image: only moves that keep the label valid.

A patch of tissue has no up or down; a chest has a left and a right.  Every sample's moves are drawn from the seed, the
epoch and the sample alone, so that neither batches, ranks nor a resumed run change them.  All models see the same.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from mt.types import Array

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Augmentation:
    """The moves that are drawn, and their size.

    shift, zoom: shares of the side.  contrast: a share.  brightness: standard deviations of the normalised images.
    """

    flip: bool = False
    quarter_turns: bool = False
    degrees: float = 0.0
    shift: float = 0.0
    zoom: float = 0.0
    contrast: float = 0.0
    brightness: float = 0.0

    @property
    def warps(self) -> bool:
        return bool(self.degrees or self.shift or self.zoom)

    @property
    def tones(self) -> bool:
        return bool(self.contrast or self.brightness)

    def draw(self, seed: int, epoch: int, samples: Sequence[int] | Array) -> Moves:
        """Return the moves of some samples, by their numbers in the training set."""
        drawn = [np.random.default_rng([seed, epoch, int(sample)]).uniform(-1, 1, 8) for sample in samples]
        return Moves(self, np.array(drawn, dtype=np.float64).reshape(-1, 8))


AUGMENTATIONS = {
    "none": Augmentation(),
    "mild": Augmentation(degrees=5, shift=0.03, zoom=0.05, contrast=0.1, brightness=0.1),
    "geometric": Augmentation(degrees=5, shift=0.03, zoom=0.05),  # where brightness itself is the label
    "flip": Augmentation(flip=True, degrees=10, shift=0.05, zoom=0.1, contrast=0.1, brightness=0.1),
    "right-angles": Augmentation(flip=True, quarter_turns=True),
}
# Kinds that are not here (xray, scan, oct, ...; unknown, of a folder or table) get `mild`, without flips: left and
# right may mean something.
BY_KIND = {"patch": "right-angles", "microscopy": "right-angles", "photo": "flip", "fundus": "flip"}


def augmentation_for(name: str, kind: str) -> Augmentation:
    """Return an augmentation by name; `auto` is what fits a dataset's kind."""
    return AUGMENTATIONS[BY_KIND.get(kind, "mild") if name == "auto" else name]


@dataclass(frozen=True)
class Moves:
    """The moves of n samples, uniform numbers in [-1, 1), (n, 8)."""

    augmentation: Augmentation
    drawn: Array

    def turn(self, pixels: Array) -> None:
        """Flip and turn pixels (n, S, S, C) by right angles in place: exact, on the thread that decoded them."""
        flips = (self.drawn[:, 0] < 0) & self.augmentation.flip
        turns = np.floor((self.drawn[:, 1] + 1) * 2).astype(int) * self.augmentation.quarter_turns
        for row in np.flatnonzero(flips | (turns > 0)):
            image = pixels[row, :, ::-1] if flips[row] else pixels[row]
            pixels[row] = np.rot90(image, turns[row]).copy()

    def warp(self, images: Tensor) -> Tensor:
        """Return normalised images (n, 3, S, S), turned, shifted, zoomed and toned, on their device."""
        import torch
        from torch.nn import functional as F

        if self.augmentation.warps:
            theta = torch.from_numpy(self._affine()).to(images.device, images.dtype)
            grid = F.affine_grid(theta, list(images.shape), align_corners=False)
            images = F.grid_sample(images, grid, padding_mode="border", align_corners=False)
        if self.augmentation.tones:
            tones = torch.from_numpy(self.drawn[:, 6:]).to(images.device, images.dtype)[:, :, None, None, None]
            middle = images.mean(dim=(1, 2, 3), keepdim=True)
            contrast = 1 + self.augmentation.contrast * tones[:, 0]
            images = (images - middle) * contrast + middle + self.augmentation.brightness * tones[:, 1]
        return images

    def _affine(self) -> Array:
        """Return the matrices (n, 2, 3) that `affine_grid` takes."""
        angle = self.drawn[:, 2] * math.radians(self.augmentation.degrees)
        zoom = 1 + self.drawn[:, 3] * self.augmentation.zoom
        move = self.drawn[:, 4:6] * 2 * self.augmentation.shift
        cos, sin = np.cos(angle) * zoom, np.sin(angle) * zoom
        return np.stack([np.stack([cos, -sin, move[:, 0]], 1), np.stack([sin, cos, move[:, 1]], 1)], 1)
