"""Files on disk reach every backbone as its authors' own PIL transform would deliver them."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision import transforms
from torchvision.transforms import InterpolationMode

from mt.backbones.load import REGISTRY
from mt.backbones.preprocess import Preprocess
from mt.datasets.image_file import decode
from mt.errors import InputError
from tests.backbones.entries import preprocess_of

IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
SWAV = ((0.485, 0.456, 0.406), (0.228, 0.224, 0.225))
HALF = ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
BILINEAR, BICUBIC = InterpolationMode.BILINEAR, InterpolationMode.BICUBIC
# backbone -> resize, crop, interpolation, (mean, std): written down from the official evaluation code
OFFICIAL = {
    "supervised": (256, 224, BILINEAR, IMAGENET),  # torchvision ResNet50_Weights.IMAGENET1K_V1.transforms()
    "supervised-v2": (232, 224, BILINEAR, IMAGENET),  # IMAGENET1K_V2.transforms()
    "simclr": (256, 224, BILINEAR, IMAGENET),  # VISSL linear benchmark: Resize 256, CenterCrop 224
    "simclr-bolts": (246, 224, BILINEAR, IMAGENET),  # SimCLRFinetuneTransform: int(224 + 0.1 * 224)
    "swav": (256, 224, BILINEAR, SWAV),  # eval_linear.py
    "dino": (256, 224, BICUBIC, IMAGENET),  # eval_linear.py, interpolation=3
    "mocov2": (256, 224, BILINEAR, IMAGENET),  # main_lincls.py
    "barlowtwins": (256, 224, BILINEAR, IMAGENET),  # evaluate.py
    "vicreg": (256, 224, BILINEAR, IMAGENET),  # evaluate.py
    "dinov2-vits14": (256, 224, BICUBIC, IMAGENET),  # data/transforms.py
    "efficientnet-lite0": (256, 224, BICUBIC, HALF),  # timm tf_efficientnet_lite0.in1k: crop_pct 0.875
    "efficientnet-lite1": (272, 240, BICUBIC, HALF),  # crop_pct 0.882
    "efficientnet-lite2": (292, 260, BICUBIC, HALF),  # crop_pct 0.89
}
KINDS = ["odd", "small", "tall", "grey", "16-bit", "rotated", "palette", "native"]


def official(name: str) -> tuple[transforms.Compose, transforms.Normalize]:
    key = name if name in OFFICIAL else "dino" if name.startswith("dino") else name
    resize, crop, interpolation, (mean, std) = OFFICIAL[key]
    geometry = transforms.Compose([transforms.Resize(resize, interpolation), transforms.CenterCrop(crop)])
    return geometry, transforms.Normalize(mean, std)


def texture(width: int, height: int, seed: int) -> np.ndarray:
    """Return smooth shapes with noise and hard edges, uint8 (height, width, 3): what shows a wrong filter."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width]
    waves = [127 + 90 * np.sin(x / (5 + channel) + y / (9 - channel)) for channel in range(3)]
    pixels = np.stack(waves, axis=-1) + rng.normal(0, 20, (height, width, 3))
    pixels[height // 3 : height // 2, width // 4 : width // 2] = (250, 10, 120)
    return np.clip(pixels, 0, 255).astype(np.uint8)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, Image.Image]]:
    """Each kind of file, and the 8-bit RGB image that it means."""
    folder = tmp_path_factory.mktemp("files")
    made: dict[str, tuple[Path, Image.Image]] = {}

    def add(kind: str, stored: Image.Image, meant: Image.Image, suffix: str = ".png", **options: object) -> None:
        path = folder / f"{kind}{suffix}"
        stored.save(path, **options)  # type: ignore[arg-type]
        made[kind] = path, meant

    sizes = (("odd", (501, 377)), ("small", (97, 131)), ("tall", (300, 1201)), ("native", (224, 224)))
    for seed, (kind, size) in enumerate(sizes):
        image = Image.fromarray(texture(*size, seed))
        add(kind, image, image)
    grey = Image.fromarray(texture(333, 257, 7)).convert("L")
    add("grey", grey, grey.convert("RGB"))
    deep = np.random.default_rng(8).integers(0, 65536, (289, 411), dtype=np.uint16)
    shallow = Image.fromarray(np.round(deep / 257).astype(np.uint8))
    add("16-bit", Image.fromarray(deep), shallow.convert("RGB"))
    upright = Image.fromarray(texture(401, 303, 9))
    turned = upright.transpose(Image.Transpose.ROTATE_90)
    exif = Image.Exif()
    exif[0x0112] = 6  # "rotate 90 degrees clockwise to display"
    add("rotated", turned, upright, exif=exif)
    palette = Image.fromarray(texture(300, 260, 10)).quantize(64)
    add("palette", palette, palette.convert("RGB"))
    return made


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", REGISTRY)
def test_the_official_transform_agrees(name: str, kind: str, files: dict[str, tuple[Path, Image.Image]]) -> None:
    """Within one grey level before normalisation, and the same normalisation."""
    path, meant = files[kind]
    geometry, normalize = official(name)
    expected = np.asarray(geometry(meant))
    recipe = preprocess_of(name)
    pixels = recipe.geometry(decode(path))
    assert pixels.shape == expected.shape
    assert pixels.dtype == np.uint8
    assert np.abs(pixels.astype(int) - expected.astype(int)).max() <= 1
    tensor = transforms.functional.to_tensor(Image.fromarray(pixels))
    assert torch.allclose(recipe(decode(path)), normalize(tensor), rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", REGISTRY)
def test_another_image_size_keeps_the_official_proportion(name: str) -> None:
    resize, crop, *_ = OFFICIAL[name if name in OFFICIAL else "dino"]
    recipe = preprocess_of(name).at_size(112)
    assert (recipe.crop, recipe.resize) == (112, round(112 * resize / crop))
    assert recipe.at_size(None) == recipe
    assert recipe.geometry(texture(97, 131, 0)).shape == (112, 112, 3)


@pytest.mark.parametrize("size", [(96, 96), (224, 224), (256, 256), (1, 1), (1, 90), (3, 2), (257, 256)])
@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
def test_arrays_and_every_size_are_taken(size: tuple[int, int], interpolation: Literal["bilinear", "bicubic"]) -> None:
    """Arrays, as PCam's and MedMNIST's, are the image of the same pixels; sizes down to 1x1."""
    recipe = Preprocess(256, 224, interpolation)
    array = texture(*size, 3)
    mode = BILINEAR if interpolation == "bilinear" else BICUBIC
    expected = transforms.CenterCrop(224)(transforms.Resize(256, mode)(Image.fromarray(array)))
    assert np.abs(recipe.geometry(array).astype(int) - np.asarray(expected).astype(int)).max() <= 1
    assert np.array_equal(recipe.geometry(array), recipe.geometry(Image.fromarray(array)))


@pytest.mark.parametrize("size", [(10, 10), (11, 30), (30, 11), (13, 12)])
def test_a_crop_larger_than_the_image_is_padded_as_torchvision_pads(size: tuple[int, int]) -> None:
    array = texture(*size, 4)
    expected = np.asarray(transforms.CenterCrop(16)(Image.fromarray(array)))
    assert np.array_equal(Preprocess(None, 16).geometry(array), expected)


def test_a_sliver_of_an_image_needs_no_gigabytes() -> None:
    """1 x 20,000 pixels would become 256 x 5,120,000."""
    column = np.repeat(np.linspace(0, 255, 20_000).astype(np.uint8)[:, None, None], 3, axis=2)
    pixels = Preprocess(256, 224).geometry(column)
    assert pixels.shape == (224, 224, 3)
    assert np.ptp(pixels) <= 1


def test_squashing_ignores_the_aspect_ratio() -> None:
    array = texture(40, 90, 5)
    expected = transforms.Resize((32, 32), BICUBIC)(Image.fromarray(array))
    squashed = Preprocess(32, 32, "bicubic", squash=True).geometry(array)
    assert np.abs(squashed.astype(int) - np.asarray(expected).astype(int)).max() <= 1


def test_pixels_that_fit_are_not_touched() -> None:
    array = texture(64, 64, 6)
    assert Preprocess(64, 64).geometry(array) is array
    assert np.array_equal(Preprocess(None, 64).geometry(Image.fromarray(array)), array)


def test_normalised_batches_are_channels_last_and_equal_to_single_images() -> None:
    recipe = preprocess_of("swav").at_size(32)
    arrays = [texture(40, 50, seed) for seed in range(3)]
    batch = recipe.normalize(torch.from_numpy(np.stack([recipe.geometry(array) for array in arrays])))
    assert batch.is_contiguous(memory_format=torch.channels_last)
    assert batch.dtype == torch.float32
    for one, array in zip(batch, arrays, strict=True):
        assert torch.equal(one, recipe(array))


def test_recipes_with_one_geometry_share_it() -> None:
    shared = {preprocess_of(name).geometry_key for name in ("supervised", "swav", "simclr", "mocov2")}
    assert len(shared) == 1
    assert len({preprocess_of(name).geometry_key for name in ("supervised", "supervised-v2", "dino")}) == 3


@pytest.mark.parametrize("size", [0, -224])
def test_sizes_below_one_pixel_are_refused(size: int) -> None:
    with pytest.raises(InputError, match="--image-size takes a number of pixels"):
        preprocess_of("dino").at_size(size)
