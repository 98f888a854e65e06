"""Real images that installed packages bring, cut into labelled sets with test cases from other regions.

`digits` is mt's own dataset; each other set is written as `folder:` reads it, SPLIT/CLASS/REGION_NUMBER.png, and a
region is the group (`GROUP_REGEX`).
Patches of one picture lie in a grid of regions; a quarter of the regions are for testing, and patches do not cross
their borders, so a test patch shares no pixel with a training patch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

Pixels = npt.NDArray[np.uint8]
Labelled = Iterator[tuple[str, str, str, Pixels]]  # split, class, region, pixels
GROUP_REGEX = r"([a-z0-9]+)_\d+\.png$"
EDGE = 4  # regions per side of a picture


@dataclass(frozen=True)
class ImageSet:
    """A set by name.  cut: None for a dataset of mt.  size: pixels for the networks."""

    name: str
    cut: Callable[[], Labelled] | None
    size: int = 32

    def dataset(self, folder: Path) -> str:
        """Return the dataset's name; its images are written below `folder` unless they are there."""
        if self.cut is None:
            return self.name
        own = folder / self.name
        if not own.exists():
            beside = own.with_suffix(".partial")
            for number, (split, label, region, pixels) in enumerate(self.cut()):
                path = beside / split / label / f"{region}_{number}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(pixels).save(path)
            beside.rename(own)
        return f"folder:{own}"


def _patches(picture: Pixels, *, patch: int, stride: int, seed: int = 0) -> Iterator[tuple[str, int, Pixels]]:
    """Yield split, region and pixels of the patches in each of EDGE x EDGE regions."""
    test = set(np.random.default_rng(seed).permutation(EDGE**2)[: EDGE**2 // 4].tolist())
    height, width = picture.shape[0] // EDGE, picture.shape[1] // EDGE
    for region in range(EDGE**2):
        top, left = region // EDGE * height, region % EDGE * width
        for y in range(top, top + height - patch + 1, stride):
            for x in range(left, left + width - patch + 1, stride):
                yield "test" if region in test else "train", region, picture[y : y + patch, x : x + patch]


def _by_middle(
    picture: Pixels, signal: npt.NDArray[Any], *, patch: int, stride: int, names: tuple[str, str]
) -> Labelled:
    """Yield patches whose middle has a signal in the highest or the lowest 40 %: the label is their own middle's."""
    quarter = patch // 4
    both = list(
        zip(_patches(picture, patch=patch, stride=stride), _patches(signal, patch=patch, stride=stride), strict=True)
    )
    values = np.array([found[quarter:-quarter, quarter:-quarter].mean() for _, (_, _, found) in both])
    low, high = np.quantile(values, [0.4, 0.6])
    for ((split, region, pixels), _), value in zip(both, values, strict=True):
        if not low < value < high:
            yield split, names[int(value >= high)], f"r{region}", pixels


def _three_channels(grey: npt.NDArray[Any]) -> Pixels:
    return np.repeat(grey.astype(np.uint8)[..., None], 3, axis=2)


def tissue() -> Labelled:
    """Immunohistochemistry (scikit-image): whether the middle of a patch is stained, from its grey levels alone."""
    from skimage import color, data

    picture = data.immunohistochemistry()
    stain = color.rgb2hed(picture)[..., 2]
    grey = _three_channels(255 * color.rgb2gray(picture))
    return _by_middle(grey, stain, patch=32, stride=8, names=("plain", "stained"))


def retina() -> Labelled:
    """A fundus photograph (scikit-image): whether a vessel runs through the middle of a patch."""
    from scipy import ndimage
    from skimage import data

    picture = data.retina()[150:-150, 150:-150]
    green = picture[..., 1].astype(np.float64)
    vessels = ndimage.median_filter(green, 25) - ndimage.gaussian_filter(green, 1)
    return _by_middle(picture, np.maximum(vessels, 0), patch=32, stride=20, names=("between", "vessel"))


def photographs() -> Labelled:
    """Patches of ten photographs (scikit-image, scikit-learn): which of them a patch is from."""
    from skimage import data
    from sklearn.datasets import load_sample_image

    pictures = {
        name: getattr(data, name)() for name in ("astronaut", "chelsea", "coffee", "rocket", "hubble_deep_field")
    }
    pictures |= {name: _three_channels(getattr(data, name)()) for name in ("brick", "grass", "gravel")}
    pictures |= {name: load_sample_image(f"{name}.jpg") for name in ("china", "flower")}
    for name, picture in pictures.items():
        found = list(_patches(picture, patch=24, stride=24))
        chosen = np.sort(np.random.default_rng(0).permutation(len(found))[:250])
        for split, region, pixels in (found[place] for place in chosen):
            yield split, name, f"{name.replace('_', '')}{region}", _three_channels(pixels.mean(axis=2))


def faces(test: int = 1) -> Labelled:
    """Faces and other crops of Labeled Faces in the Wild (scikit-image): 200, half of them faces.

    test: 1, every second image is for testing; 0, the others are.
    """
    from skimage import data

    for number, image in enumerate(data.lfw_subset()):
        split, label = "test" if number % 2 == test else "train", "face" if number < 100 else "other"
        yield split, label, f"f{number}", _three_channels(255 * image)


IMAGE_SETS = {
    one.name: one
    for one in (
        ImageSet("digits", None),
        ImageSet("tissue", tissue),
        ImageSet("retina", retina),
        ImageSet("photographs", photographs),
        ImageSet("faces", faces),
        ImageSet("faces-swapped", partial(faces, test=0)),
    )
}
