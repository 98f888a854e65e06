"""The pixels of a JPEG file are Pillow's, whichever decoder reads it."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageOps

from mt.datasets.decoding import jpeg
from mt.datasets.image_file import decode
from mt.datasets.images import ImageFiles

ADOBE = b"Adobe\0d\0\0\0\0"  # its marker, up to the byte that names the transform: 0 is CMYK, 2 is YCCK
COLOUR: tuple[dict[str, Any], ...] = tuple(
    {"quality": quality, "subsampling": subsampling, "progressive": progressive, **more}
    for quality in (30, 75, 95)
    for subsampling in ("4:4:4", "4:2:2", "4:2:0", "4:1:1")
    for progressive in (False, True)
    for more in ({}, {"restart_marker_rows": 1}, {"optimize": True})
)


def picture(width: int = 133, height: int = 97, seed: int = 0) -> Image.Image:
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (height // 8 + 1, width // 8 + 1, 3)).repeat(8, 0).repeat(8, 1)[:height, :width]
    return Image.fromarray(np.clip(coarse + rng.normal(0, 25, coarse.shape), 0, 255).astype(np.uint8))


def encoded(image: Image.Image, **options: Any) -> bytes:
    file = BytesIO()
    image.save(file, "JPEG", **options)
    return file.getvalue()


def by_pillow(data: bytes) -> np.ndarray:
    return np.asarray(Image.open(BytesIO(data)).convert("RGB"))


@pytest.mark.parametrize("options", COLOUR, ids=str)
def test_colour_files(options: dict[str, Any]) -> None:
    data = encoded(picture(), **options)
    found = jpeg.decode(data)
    assert found is not None
    np.testing.assert_array_equal(found, by_pillow(data))


@pytest.mark.parametrize("size", [(1, 1), (2, 3), (7, 3), (8, 8), (9, 17), (640, 480)])
@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_sizes_and_grey_files(size: tuple[int, int], mode: str) -> None:
    data = encoded(picture(*size).convert(mode), quality=85)
    found = jpeg.decode(data)
    assert found is not None
    np.testing.assert_array_equal(found, by_pillow(data))


def test_files_with_colours_that_are_not_transformed() -> None:
    data = encoded(picture(), keep_rgb=True)
    found = jpeg.decode(data)
    assert found is None or np.array_equal(found, by_pillow(data))


def exif(orientation: int) -> bytes:
    entries = Image.Exif()
    entries[0x0112] = orientation
    return entries.tobytes()


def test_an_upright_exif_entry_changes_nothing() -> None:
    data = encoded(picture(), exif=exif(1))
    np.testing.assert_array_equal(jpeg.decode(data), by_pillow(data))


@pytest.mark.parametrize(
    "data",
    [
        encoded(picture(), exif=exif(6)),
        encoded(picture().convert("CMYK")),
        encoded(picture().convert("CMYK")).replace(ADOBE + b"\0", ADOBE + b"\2"),
        encoded(picture())[:-900],
        encoded(picture())[:-2],
        encoded(picture()) + b"garbage",
        encoded(picture())[:300],
        encoded(picture(), exif=b"Exif\0\0II*\0\xff\xff"),
        b"\xff\xd8\xff\xd9",
        b"",
        b"\x89PNG",
    ],
    ids=["turned", "cmyk", "ycck", "cut", "no end", "garbage", "header", "broken exif", "empty", "nothing", "png"],
)
def test_what_goes_pillows_way(data: bytes) -> None:
    assert jpeg.decode(data) is None


def test_a_file_of_several_photographs_goes_pillows_way() -> None:
    file = BytesIO()
    picture().save(file, "MPO", save_all=True, append_images=[picture(seed=1)])
    assert jpeg.decode(file.getvalue()) is None


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"exif": exif(3)}, {"exif": exif(1)}], ids=str)
def test_the_reader_of_image_files_gives_pillows_upright_pixels(tmp_path: Path, options: dict[str, Any]) -> None:
    path = tmp_path / "picture.jpg"
    path.write_bytes(encoded(picture(), **options))
    expected = ImageOps.exif_transpose(Image.open(path)).convert("RGB")
    np.testing.assert_array_equal(np.asarray(decode(path)), np.asarray(expected))
    loaded = ImageFiles([str(path)]).load(0, 1)[0]
    assert isinstance(loaded, np.ndarray) == (options.get("exif") != exif(3))
    np.testing.assert_array_equal(np.asarray(loaded), np.asarray(expected))


def test_a_large_picture_is_left_to_pillow() -> None:
    assert jpeg.decode(encoded(picture(40, 30)), max_pixels=1199) is None
    assert jpeg.decode(encoded(picture(40, 30)), max_pixels=1200) is not None


def test_a_kind_that_this_build_decodes_otherwise_goes_pillows_way(monkeypatch: pytest.MonkeyPatch) -> None:
    real = jpeg._by_torchvision
    monkeypatch.setattr(jpeg, "_by_torchvision", lambda data: real(data) ^ np.uint8(1))
    jpeg._same_as_pillow.cache_clear()
    try:
        assert jpeg.decode(encoded(picture())) is None
    finally:
        jpeg._same_as_pillow.cache_clear()


@pytest.mark.parametrize("at", range(20, 1500, 97))
def test_a_flipped_byte_gives_pillows_pixels_or_goes_its_way(at: int) -> None:
    data = bytearray(encoded(picture(), quality=60))
    data[at] ^= 0x55
    found = jpeg.decode(bytes(data))
    if found is not None:
        np.testing.assert_array_equal(found, by_pillow(bytes(data)))
