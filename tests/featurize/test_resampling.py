"""Resizing by matrix products gives Pillow's pixels, bit for bit, in every form."""

from __future__ import annotations

import numpy as np
import PIL
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from mt.backbones.preprocess import Interpolation, Preprocess
from mt.featurize.resampling import EXACT_IN_FLOAT32, LARGEST_PIXEL, Resampler, split, weights

CPU = torch.device("cpu")
KERNELS: tuple[Interpolation, ...] = ("bilinear", "bicubic")
sides = st.one_of(st.integers(1, 64), st.integers(1, 3000))


def pixels_of(height: int, width: int, seed: int, *, extremes: bool) -> np.ndarray:
    """Return noise, or black and white alone: what makes sums largest."""
    rng = np.random.default_rng(seed)
    drawn = rng.integers(0, 2 if extremes else 256, (height, width, 3), dtype=np.uint8)
    return drawn * np.uint8(255) if extremes else drawn


@settings(max_examples=60, deadline=None)
@given(
    height=sides,
    width=sides,
    resize=st.integers(1, 300),
    crop=st.integers(1, 300),
    squash=st.booleans(),
    kernel=st.sampled_from(KERNELS),
    extremes=st.booleans(),
    seed=st.integers(0, 9),
    dtype=st.sampled_from([torch.float64, torch.float32]),
)
def test_any_size_gives_pillows_pixels(
    height: int,
    width: int,
    resize: int,
    crop: int,
    squash: bool,
    kernel: Interpolation,
    extremes: bool,
    seed: int,
    dtype: torch.dtype,
) -> None:
    long, short = max(height, width), min(height, width)
    if not squash and long * resize // short * resize > 1 << 22:
        height, width = min(height, 2 * short), min(width, 2 * short)  # the slivers have a test of their own
    recipe = Preprocess(resize, crop, kernel, squash=squash)
    image = pixels_of(height, width, seed, extremes=extremes)
    found = Resampler(recipe, height, width, CPU, dtype)(torch.from_numpy(image)[None])[0]
    np.testing.assert_array_equal(found.numpy(), recipe.geometry(Image.fromarray(image)))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("shape", [(3, 3000), (3000, 2), (1, 2999)])
def test_a_sliver_gives_pillows_pixels(shape: tuple[int, int], dtype: torch.dtype) -> None:
    recipe = Preprocess(300, 224, "bicubic")
    height, width = shape
    image = pixels_of(height, width, 0, extremes=True)
    place = recipe.placement(width, height)
    found = Resampler(recipe, height, width, CPU, dtype)(torch.from_numpy(image)[None])[0]
    np.testing.assert_array_equal(found.numpy(), recipe.geometry(Image.fromarray(image)))
    assert place.width * place.height <= 1 << 26


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize(("n_in", "n_out"), [(96, 256), (3000, 224), (3000, 7), (3000, 1), (20_000, 1), (1, 300)])
def test_parts_add_up_and_their_sums_are_exact_in_float32(kernel: Interpolation, n_in: int, n_out: int) -> None:
    matrix = weights(n_in, n_out, kernel)
    parts = split(matrix, torch.float32)
    added = torch.stack([part.matrix.double() * 2.0**part.shift for part in parts]).sum(0)
    np.testing.assert_array_equal(added.numpy(), matrix)
    assert all(part.matrix.abs().double().sum(1).max() * LARGEST_PIXEL <= EXACT_IN_FLOAT32 for part in parts)
    assert n_in / n_out > 3000 or len(parts) == 2


def test_a_weight_matrix_that_is_not_split_is_not_exact_in_float32() -> None:
    picture = torch.from_numpy(pixels_of(1, 3000, 0, extremes=False)[0, :, 0]).float()
    matrix = torch.from_numpy(weights(3000, 7, "bicubic"))
    assert not torch.equal((picture @ matrix.float().T).double(), picture.double() @ matrix.double().T)


@pytest.mark.parametrize(("height", "width"), [(60, 8), (300, 120), (900, 300)])
def test_the_order_of_the_passes_is_the_installed_pillows(height: int, width: int) -> None:
    recipe = Preprocess(9, 9, "bilinear", squash=True)
    image = pixels_of(height, width, 3, extremes=False)
    found = Resampler(recipe, height, width, CPU)(torch.from_numpy(image)[None])[0]
    np.testing.assert_array_equal(found.numpy(), recipe.geometry(image))
    across_first = Image.fromarray(image).resize((9, height), Image.Resampling.BILINEAR)
    other = np.asarray(across_first.resize((9, 9), Image.Resampling.BILINEAR))
    version = int(PIL.__version__.split(".")[0])
    assert np.array_equal(found.numpy(), other) == (version < 13)


def test_pictures_of_a_batch_are_resized_each_as_alone() -> None:
    recipe = Preprocess(40, 32, "bicubic")
    images = np.stack([pixels_of(57, 91, seed, extremes=False) for seed in range(5)])
    found = Resampler(recipe, 57, 91, CPU)(torch.from_numpy(images))
    np.testing.assert_array_equal(found.numpy(), np.stack([recipe.geometry(image) for image in images]))


def test_a_picture_that_needs_no_resizing_is_handed_on() -> None:
    recipe = Preprocess(None, 32)
    image = pixels_of(32, 32, 0, extremes=False)
    assert torch.equal(Resampler(recipe, 32, 32, CPU)(torch.from_numpy(image)[None])[0], torch.from_numpy(image))
