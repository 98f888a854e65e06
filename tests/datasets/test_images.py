"""Image files of many kinds are decoded to 8-bit RGB."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mt.cache.content import ContentIndex
from mt.cache.feature_file.format import Status
from mt.datasets.base import ImageError
from mt.datasets.image_file import decode
from mt.datasets.images import ImageFiles
from tests.datasets.layouts import pixels

RGB = pixels(0, 20, 30)
GREY = RGB[..., 0]


def png_16_bit(colour_type: int, samples: np.ndarray) -> bytes:
    """A 16-bit PNG written by hand: Pillow cannot write 16-bit RGB."""
    height, width = samples.shape[:2]
    lines = b"".join(b"\0" + row.astype(">u2").tobytes() for row in samples)
    header = struct.pack(">IIBBBBB", width, height, 16, colour_type, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(lines)), (b"IEND", b""))
    body = b"".join(struct.pack(">I", len(d)) + n + d + struct.pack(">I", zlib.crc32(n + d)) for n, d in chunks)
    return b"\x89PNG\r\n\x1a\n" + body


def encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def test_rgb_png_comes_back_as_it_was(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(encoded(Image.fromarray(RGB), "PNG"))
    image = decode(tmp_path / "a.png")
    assert image.mode == "RGB"
    assert np.array_equal(np.asarray(image), RGB)


def test_16_bit_grey_is_rounded_by_257() -> None:
    wide = np.array([[0, 1, 128, 129, 256, 257, 32768, 65406, 65407, 65535]], dtype=np.uint16)
    found = np.asarray(decode(png_16_bit(0, wide)))
    assert np.array_equal(found[0, :, 0], np.rint(wide[0] / 257))
    assert np.array_equal(found[..., 0], found[..., 2])


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_16_bit_grey_of_pillow(kind: str) -> None:
    wide = GREY.astype(np.uint16) * 257
    assert np.array_equal(np.asarray(decode(encoded(Image.fromarray(wide), kind)))[..., 1], GREY)


def test_16_bit_rgb_within_one_level() -> None:
    wide = np.random.default_rng(0).integers(0, 65536, (5, 7, 3))
    assert np.abs(np.asarray(decode(png_16_bit(2, wide))).astype(int) - wide / 257).max() <= 1


def test_greyscale_jpeg() -> None:
    image = decode(encoded(Image.fromarray(GREY), "JPEG", quality=95))
    assert image.mode == "RGB"
    assert np.ptp(np.asarray(image).astype(int), axis=2).max() == 0


def test_palette_png_with_and_without_transparency() -> None:
    palette = Image.fromarray(RGB).quantize(16)
    for data in (encoded(palette, "PNG"), encoded(palette, "PNG", transparency=bytes(range(16)))):
        assert np.array_equal(np.asarray(decode(data)), np.asarray(palette.convert("RGB")))


@pytest.mark.parametrize("mode", ["1", "L", "LA", "RGBA", "CMYK"])
def test_modes_as_pillow_converts_them(mode: str) -> None:
    image = Image.fromarray(RGB).convert(mode)
    kind = "TIFF" if mode == "CMYK" else "PNG"
    assert np.array_equal(np.asarray(decode(encoded(image, kind))), np.asarray(image.convert("RGB")))


def test_alpha_is_dropped_not_blended() -> None:
    transparent = np.dstack([RGB, np.zeros_like(GREY)])
    assert np.array_equal(np.asarray(decode(encoded(Image.fromarray(transparent), "PNG"))), RGB)


def test_cmyk_jpeg() -> None:
    image = Image.fromarray(RGB).convert("CMYK")
    data = encoded(image, "JPEG", quality=95)
    assert np.array_equal(np.asarray(decode(data)), np.asarray(Image.open(io.BytesIO(data)).convert("RGB")))


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF", "WEBP"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_rotation_is_applied_once(kind: str, orientation: int) -> None:
    y, x = np.mgrid[:20, :30]
    scene = np.dstack([y * 12, x * 8, np.full_like(x, 90)]).astype(np.uint8)
    exif = Image.Exif()
    exif[0x0112] = orientation
    lossless: dict[str, dict[str, int]] = {"JPEG": {"quality": 100, "subsampling": 0}, "WEBP": {"lossless": True}}
    upright = {
        1: scene,
        2: scene[:, ::-1],
        3: scene[::-1, ::-1],
        4: scene[::-1],
        5: scene.swapaxes(0, 1),
        6: np.rot90(scene, -1),
        7: np.rot90(scene, 2).swapaxes(0, 1),
        8: np.rot90(scene, 1),
    }[orientation]
    found = np.asarray(decode(encoded(Image.fromarray(scene), kind, exif=exif.tobytes(), **lossless.get(kind, {}))))
    assert found.shape == upright.shape
    assert np.abs(found.astype(int) - upright).max() <= (4 if kind == "JPEG" else 0)


def test_broken_exif_is_no_broken_image() -> None:
    data = encoded(Image.fromarray(RGB), "PNG", exif=b"Exif\0\0nonsense")
    assert np.array_equal(np.asarray(decode(data)), RGB)


def test_one_pixel() -> None:
    assert decode(encoded(Image.fromarray(RGB[:1, :1]), "PNG")).size == (1, 1)


def test_32_bit_floats_are_refused_with_advice() -> None:
    with pytest.raises(ImageError, match=r"32-bit floating-point pixels .*; choose: --intensity minmax"):
        decode(encoded(Image.fromarray(np.ones((3, 3), dtype=np.float32)), "TIFF"))


def failure(path: Path) -> ImageError:
    (found,) = ImageFiles([str(path)]).load(0, 1)
    assert isinstance(found, ImageError)
    assert str(path) in str(found)
    return found


@pytest.mark.parametrize(("kind", "keep"), [("PNG", 0.5), ("JPEG", 0.5), ("PNG", 0.9), ("JPEG", 0.7)])
def test_truncated(tmp_path: Path, kind: str, keep: float) -> None:
    data = encoded(Image.fromarray(pixels(0, 100, 100)), kind)
    path = tmp_path / "a.img"
    path.write_bytes(data[: int(len(data) * keep)])
    assert failure(path).status == Status.TRUNCATED


def test_empty_absent_and_nonsense(tmp_path: Path) -> None:
    (tmp_path / "empty.png").touch()
    (tmp_path / "text.png").write_text("this is not an image")
    (tmp_path / "folder.png").mkdir()
    assert failure(tmp_path / "empty.png").status == Status.EMPTY
    assert failure(tmp_path / "absent.png").status == Status.ABSENT
    assert failure(tmp_path / "text.png").status == Status.UNREADABLE
    assert failure(tmp_path / "folder.png").status == Status.UNREADABLE


def test_postscript_is_never_run(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_text("%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\nshowpage\n")
    assert failure(tmp_path / "a.png").status == Status.UNREADABLE


@pytest.mark.parametrize("factor", [0.9, 0.4])
def test_decompression_bomb(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, factor: float) -> None:
    """Pillow only warns up to twice its limit, and raises beyond; either is a row that is too large."""
    (tmp_path / "a.png").write_bytes(encoded(Image.fromarray(RGB), "PNG"))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", int(GREY.size * factor))
    assert failure(tmp_path / "a.png").status == Status.TOO_LARGE


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_decompression_bomb_where_warnings_are_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.png").write_bytes(encoded(Image.fromarray(RGB), "PNG"))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", GREY.size - 1)
    assert failure(tmp_path / "a.png").status == Status.TOO_LARGE


def test_a_bad_image_leaves_its_neighbours(tmp_path: Path) -> None:
    for name in "ac":
        (tmp_path / f"{name}.png").write_bytes(encoded(Image.fromarray(RGB), "PNG"))
    (tmp_path / "b.png").touch()
    source = ImageFiles([str(tmp_path / f"{name}.png") for name in "abc"])
    first, second, third = source.load(0, 3)
    assert isinstance(second, ImageError)
    assert np.array_equal(np.asarray(first), np.asarray(third))
    assert len(source.load(2, 9)) == 1


def test_content_is_of_bytes_not_places(tmp_path: Path, index: ContentIndex) -> None:
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / f"{folder}.png").write_bytes(encoded(Image.fromarray(RGB), "PNG"))
    one, two = (ImageFiles([str(tmp_path / name / f"{name}.png")]) for name in ("one", "two"))
    assert one.content(index) == two.content(index)
    (tmp_path / "two" / "two.png").write_bytes(encoded(Image.fromarray(RGB[::-1]), "PNG"))
    assert one.content(index) != two.content(index)
