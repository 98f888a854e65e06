"""Generated H&E-like patches in PCam's manner, for a demo, tests and benchmarks with nothing to download.

The label is whether the *central* 32 x 32 pixels hold tumour nuclei; tumour outside the centre says nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from mt.cache.content import ContentIndex
from mt.datasets.base import Dataset, Json, Loaded, Split
from mt.datasets.decoding.row_hashes import as_rows, of_parameters
from mt.datasets.registry import DatasetRequest
from mt.errors import InputError
from mt.types import LabelledRows

# Raised whenever a generated pixel changes.
GENERATOR = 1
SIZE, CENTRE = 96, 32
DEFAULT_ROWS = 2000

# Optical density per unit of stain in red, green and blue: hematoxylin and eosin (Ruifrok and Johnston 2001).
HEMATOXYLIN = np.array([0.65, 0.70, 0.29])
EOSIN = np.array([0.07, 0.99, 0.11])
# Half the side of the square in which a nucleus is drawn; no nucleus, irregular edge included, reaches past it.
REACH = 11
_OFFSET_Y, _OFFSET_X = np.mgrid[-REACH : REACH + 1, -REACH : REACH + 1].astype(np.float64)
_ANGLE = np.arctan2(_OFFSET_Y, _OFFSET_X)


def load(request: DatasetRequest) -> Dataset:
    """Return `synthetic` (2,000 + 1,000 rows) or `synthetic@N` (N + N / 2), drawn with the request's seed."""
    rows = DEFAULT_ROWS
    if request.argument:
        if not request.argument.isdecimal() or int(request.argument) < 4:
            raise InputError(f"'{request.name}': expected synthetic@N with N >= 4 images, e.g. synthetic@10000")
        rows = int(request.argument)
    splits = {
        name: _split(name, number, count, request.settings.seed)
        for number, (name, count) in enumerate({"train": rows, "test": rows // 2}.items())
    }
    return Dataset(
        name=request.name,
        location=None,
        task="binary",
        class_names=("normal", "tumour"),
        licence=request.spec.licence,
        kind="patch",
        splits=splits,
    )


def _split(name: str, number: int, count: int, seed: int) -> Split:
    """Return a split whose labels alternate: half of any stretch of rows is tumour."""
    labels = np.arange(count, dtype=np.int64) % 2
    rows = LabelledRows(None, labels, ids=[f"{name}-{row:06d}" for row in range(count)])
    return Split(name, rows, Patches(seed, number, count))


@dataclass(frozen=True)
class Patches:
    """A source that draws image i when it is asked for, from the seed (seed, split, i)."""

    seed: int
    split: int
    count: int

    def __len__(self) -> int:
        return self.count

    def load(self, start: int, stop: int) -> list[Loaded]:
        return [
            patch(np.random.default_rng([self.seed, self.split, row]), tumour=row % 2 == 1)
            for row in range(start, min(stop, self.count))
        ]

    def content(self, index: ContentIndex) -> Json:
        """Return the parameters: they determine every pixel."""
        return {"generator": GENERATOR, "seed": self.seed, "split": self.split, "count": self.count}

    def row_hashes(self, index: ContentIndex, places: Sequence[int]) -> np.ndarray:
        """Return the hash of each image's seed, which does not depend on the number of images."""
        known = {"generator": GENERATOR, "seed": self.seed, "split": self.split}
        return as_rows(of_parameters({**known, "row": place}) for place in places)


def patch(rng: np.random.Generator, *, tumour: bool) -> np.ndarray:
    """Return one patch, uint8 (96, 96, 3), whose centre holds tumour nuclei or does not.

    Nuisance: stain colours and strengths, cell density, focus, background texture, tumour around the centre.
    """
    nuclei = _normal_nuclei(rng)
    if tumour:
        nuclei.append(_tumour_nuclei(rng, _places_inside(rng, int(rng.integers(2, 7)))))
    if rng.random() < 0.4:
        nuclei.append(_tumour_nuclei(rng, _places_outside(rng, int(rng.integers(1, 5)))))
    hematoxylin = _drawn(nuclei)
    eosin = _texture(rng, 6, 0.18) + _texture(rng, 24, 0.10) + rng.uniform(0.25, 0.55)
    blur = rng.uniform(0.4, 1.3)
    hematoxylin, eosin = _blurred(hematoxylin, blur), np.clip(_blurred(eosin, blur), 0.02, None)
    density = hematoxylin[..., None] * _stain(rng, HEMATOXYLIN) + eosin[..., None] * _stain(rng, EOSIN)
    light = rng.uniform(232, 252) * np.exp(-density) + rng.normal(0, 2.0, (SIZE, SIZE, 1))
    return np.asarray(np.clip(np.rint(light), 0, 255), dtype=np.uint8)


def _stain(rng: np.random.Generator, colour: np.ndarray) -> np.ndarray:
    """Return a stain's optical density as this laboratory and scanner have it."""
    return np.asarray(colour * rng.normal(1, 0.12, 3) * rng.uniform(0.75, 1.25))


def _normal_nuclei(rng: np.random.Generator) -> list[np.ndarray]:
    """Return lymphocytes, small, round and dark, and a few larger, paler stromal and reactive nuclei."""
    lymphocytes = rng.uniform(0, SIZE, (rng.integers(10, 55), 2))
    others = rng.uniform(0, SIZE, (rng.integers(0, 6), 2))
    return [
        _nuclei(rng, lymphocytes, radius=(2.6, 3.8), stain=(0.9, 1.5), waviness=0.06, stretch=1.2),
        _nuclei(rng, others, radius=(3.4, 5.4), stain=(0.5, 1.1), waviness=0.10, stretch=1.7),
    ]


def _tumour_nuclei(rng: np.random.Generator, places: np.ndarray) -> np.ndarray:
    """Return nuclei that are larger, paler and less regular, in sizes that overlap those of reactive ones."""
    return _nuclei(rng, places, radius=(5.0, 7.2), stain=(0.5, 1.1), waviness=0.16, stretch=1.4)


def _places_inside(rng: np.random.Generator, count: int) -> np.ndarray:
    low = (SIZE - CENTRE) / 2
    return rng.uniform(low, low + CENTRE, (count, 2))


def _places_outside(rng: np.random.Generator, count: int) -> np.ndarray:
    """Return places whose nuclei cannot touch the central square: at least as far from it as a nucleus reaches."""
    margin = (SIZE - CENTRE) / 2 - REACH - 1
    places = rng.uniform(0, SIZE, (count, 2))
    side = rng.integers(0, 2, count)
    depth = rng.uniform(0, margin, count)
    places[np.arange(count), side] = np.where(rng.random(count) < 0.5, depth, SIZE - 1 - depth)
    return places


def _nuclei(
    rng: np.random.Generator,
    places: np.ndarray,
    *,
    radius: tuple[float, float],
    stain: tuple[float, float],
    waviness: float,
    stretch: float,
) -> np.ndarray:
    """Return one row per nucleus: y, x, radius, stain, stretch, angle, waviness, lobes, phase."""
    count = len(places)
    return np.column_stack(
        (
            places,
            rng.uniform(*radius, count),
            rng.uniform(*stain, count),
            rng.uniform(1, stretch, count),
            rng.uniform(0, np.pi, count),
            rng.uniform(0, waviness, count),
            rng.integers(2, 5, count),
            rng.uniform(0, 2 * np.pi, count),
        )
    )


def _drawn(kinds: list[np.ndarray]) -> np.ndarray:
    """Return the hematoxylin image (96, 96) of all nuclei; where they overlap, the darker one shows."""
    canvas = np.zeros((SIZE + 2 * REACH, SIZE + 2 * REACH))
    for nuclei in kinds:
        stamps, reach = _stamps(nuclei)
        corners = nuclei[:, :2].astype(int) + REACH - reach
        for stamp, (y, x) in zip(stamps, corners, strict=True):
            window = canvas[y : y + 2 * reach + 1, x : x + 2 * reach + 1]
            np.maximum(window, stamp, out=window)
    return canvas[REACH : REACH + SIZE, REACH : REACH + SIZE]


def _stamps(nuclei: np.ndarray) -> tuple[np.ndarray, int]:
    """Return nuclei as wavy, soft-edged ellipses (count, 2 reach + 1, 2 reach + 1), and how far they reach."""
    radius, stain, stretch, angle, waviness, lobes, phase = (column[:, None, None] for column in nuclei[:, 2:].T)
    extent = radius * (1 + waviness) * np.sqrt(stretch) + 0.5
    reach = min(int(np.ceil(extent.max(initial=1.0))), REACH)
    near = slice(REACH - reach, REACH + reach + 1)
    y, x = _OFFSET_Y[near, near], _OFFSET_X[near, near]
    along = (x * np.cos(angle) + y * np.sin(angle)) / np.sqrt(stretch)
    across = (y * np.cos(angle) - x * np.sin(angle)) * np.sqrt(stretch)
    edge = radius * (1 + waviness * np.cos(lobes * _ANGLE[near, near] + phase))
    return stain * np.clip(edge + 0.5 - np.sqrt(along * along + across * across), 0, 1), reach


def _texture(rng: np.random.Generator, cells: int, strength: float) -> np.ndarray:
    """Return smooth noise (96, 96) with `cells` bumps per side."""
    coarse = Image.fromarray(rng.normal(0, strength, (cells, cells)).astype(np.float32))
    return np.asarray(coarse.resize((SIZE, SIZE), Image.Resampling.BICUBIC), dtype=np.float64)


def _blurred(image: np.ndarray, sigma: float) -> np.ndarray:
    """Return the image after a Gaussian of `sigma` pixels: the focus."""
    taps = np.exp(-0.5 * (np.arange(-3, 4) / sigma) ** 2)
    taps /= taps.sum()
    for axis in (0, 1):
        padded = np.pad(image, [(3, 3) if axis == side else (0, 0) for side in (0, 1)], mode="edge")
        windows = np.lib.stride_tricks.sliding_window_view(padded, 7, axis=axis)
        image = windows @ taps
    return image
