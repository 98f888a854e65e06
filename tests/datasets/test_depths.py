"""Depth, polarity and frames come from the file; metadata decides nothing; `--intensity` chooses black and white."""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
import tifffile
from PIL import Image, PngImagePlugin

from mt.cache.content import ContentIndex
from mt.cache.feature_file.format import Status
from mt.datasets import load_dataset
from mt.datasets.base import ImageError
from mt.datasets.decoding.notes import Notes
from mt.datasets.decoding.rules import Decoding, Intensity, frame_number
from mt.datasets.image_file import decode, examine
from mt.errors import InputError
from tests.datasets import plain_files as plain
from tests.datasets.layouts import pixels

RGB = pixels(0, 20, 30)
GREY = RGB[..., 0]


def ramp(top: int, kind: type = np.uint16) -> np.ndarray:
    return np.linspace(0, top, 64).astype(kind)[None].repeat(4, 0)


def grey(data: bytes, decoding: Decoding | None = None) -> np.ndarray:
    found = np.asarray(decode(data, decoding))
    assert np.array_equal(found[..., 0], found[..., 2])
    return found[..., 0].astype(int)


def shown(values: np.ndarray, low: float, high: float) -> np.ndarray:
    return np.rint(np.clip((values.astype(float) - low) / (high - low), 0, 1) * 255).astype(int)


@pytest.mark.parametrize("bits", [9, 10, 11, 12, 13, 14, 15, 16])
@pytest.mark.parametrize("photometric", [0, 1])
@pytest.mark.parametrize("order", ["<", ">"])
def test_grey_tiff_of_any_depth_and_polarity(bits: int, photometric: int, order: Literal["<", ">"]) -> None:
    top = 2**bits - 1
    expected = shown(ramp(top), 0, top)
    found = grey(plain.tiff(ramp(top), bits=bits, photometric=photometric, order=order))
    assert np.array_equal(found, expected if photometric == 1 else 255 - expected)


@pytest.mark.parametrize("compression", ["tiff_lzw", "tiff_adobe_deflate", "packbits", None])
@pytest.mark.parametrize("predictor", [1, 2])
def test_compressed_16_bit_tiff(compression: str | None, predictor: int) -> None:
    buffer = io.BytesIO()
    tags = {317: predictor} if compression in ("tiff_lzw", "tiff_adobe_deflate") else {}
    Image.fromarray(ramp(65535)).save(buffer, "TIFF", compression=compression, tiffinfo=tags)
    assert np.array_equal(grey(buffer.getvalue()), shown(ramp(65535), 0, 65535))


def test_colour_tiff_of_16_bits() -> None:
    wide = np.random.default_rng(0).integers(0, 65536, (5, 7, 3)).astype(np.uint16)
    found = np.asarray(decode(plain.tiff(wide, bits=16, photometric=2)))
    assert np.array_equal(found, np.rint(wide / 257))


def test_orientation_of_a_deep_tiff() -> None:
    assert np.array_equal(grey(plain.tiff(ramp(4095), bits=12, tag_274=3)), shown(ramp(4095), 0, 4095)[::-1, ::-1])


@pytest.mark.parametrize("maxval", [300, 1023, 4095, 65535])
@pytest.mark.parametrize("kind", ["P2", "P3", "P5", "P6"])
def test_pgm_and_ppm_by_maxval(kind: str, maxval: int) -> None:
    values = ramp(maxval)
    samples = np.repeat(values[..., None], 3, 2) if kind in ("P3", "P6") else values
    text = " ".join(map(str, samples.ravel())).encode()
    body = text if kind in ("P2", "P3") else samples.astype(">u2").tobytes()
    header = f"{kind}\n# a comment 9 9\n64 # width\n4\n{maxval}\n".encode()
    assert np.array_equal(grey(header + body), shown(values, 0, maxval))


def test_a_pgm_that_is_cut_short() -> None:
    with pytest.raises(ImageError, match=r"cut short .*of 256 samples") as caught:
        decode(b"P5 64 4 4095\n" + ramp(4095).astype(">u2").tobytes()[:-9])
    assert caught.value.status == Status.TRUNCATED


@pytest.mark.parametrize("bits", [9, 10, 12, 14])
def test_png_of_fewer_significant_bits(bits: int) -> None:
    """Scaled up to 16 as the specification says, by zeros or by repeated bits; or left as they were, as some do."""
    declared = plain.chunk(b"sBIT", bytes([bits]))
    narrow = ramp(2**bits - 1)
    expected = shown(narrow, 0, 2**bits - 1)
    repeated = (narrow << (16 - bits)) | (narrow >> max(2 * bits - 16, 0) if bits >= 8 else 0)
    for samples in (narrow, narrow << (16 - bits), repeated):
        assert np.abs(grey(plain.png(samples, bits=16, before=declared)) - expected).max() <= 1


def test_colour_png_of_fewer_significant_bits() -> None:
    wide = np.repeat(ramp(4095)[..., None], 3, 2)
    data = plain.png(wide, bits=16, before=plain.chunk(b"sBIT", b"\x0c\x0c\x0c"))
    assert np.array_equal(np.asarray(decode(data))[..., 1], shown(ramp(4095), 0, 4095))


BROKEN = {
    "a profile over 1 MB": (plain.chunk(b"iCCP", b"p\0\0" + b"x" * 1_500_000), b""),
    "bytes that are not a profile": (plain.chunk(b"iCCP", b"p\0\0nonsense"), b""),
    "a wrong checksum of text": (plain.chunk(b"tEXt", b"a\0b", crc=1), b""),
    "a wrong checksum of time": (plain.chunk(b"tIME", b"1234567", crc=1), b""),
    "a wrong checksum of EXIF": (plain.chunk(b"eXIf", b"nonsense", crc=1), b""),
    "a wrong checksum behind the pixels": (b"", plain.chunk(b"tEXt", b"a\0b", crc=1)),
    "short gamma": (plain.chunk(b"gAMA", b""), b""),
    "short resolution": (plain.chunk(b"pHYs", b"12"), b""),
    "no orientation": (plain.chunk(b"eXIf", b"II*\0\xff\xff\xff\xff"), b""),
}


@pytest.mark.parametrize("broken", BROKEN)
def test_metadata_never_decides_over_pixels(broken: str) -> None:
    before, after = BROKEN[broken]
    assert np.array_equal(np.asarray(decode(plain.png(RGB, before=before, after=after))), RGB)


def test_large_text_and_real_profiles() -> None:
    text = PngImagePlugin.PngInfo()
    for number in range(3):
        text.add_text(f"Comment{number}", "a" * 30_000_000, zip=True)
    for options in ({"pnginfo": text}, {"icc_profile": os.urandom(1_500_000)}):
        buffer = io.BytesIO()
        Image.fromarray(RGB).save(buffer, "PNG", **options)
        assert np.array_equal(np.asarray(decode(buffer.getvalue())), RGB)


def test_orientation_survives_a_broken_neighbour() -> None:
    exif = Image.Exif()
    exif[0x0112] = 3
    chunks = plain.chunk(b"eXIf", exif.tobytes()[6:]) + plain.chunk(b"tEXt", b"a\0b", crc=1)
    assert np.array_equal(np.asarray(decode(plain.png(RGB, before=chunks))), RGB[::-1, ::-1])


def test_damaged_pixels_stay_damaged() -> None:
    whole = plain.png(RGB, before=plain.chunk(b"tEXt", b"a\0b", crc=1))
    with pytest.raises(ImageError):
        decode(whole[: len(whole) // 2])


def test_profiles_are_ignored() -> None:
    from PIL import ImageCms

    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes()
    for kind in ("PNG", "TIFF"):
        buffer = io.BytesIO()
        Image.fromarray(RGB).save(buffer, kind, icc_profile=profile)
        assert np.array_equal(np.asarray(decode(buffer.getvalue())), RGB)


@pytest.mark.parametrize(
    ("text", "low", "high"),
    [("full", 0, 65535), ("minmax", 1000, 3000), ("window:1500,1000", 1000, 2000), ("percentile:10,90", 1200, 2800)],
)
def test_intensity_of_16_bits_that_use_a_small_part(text: str, low: float, high: float) -> None:
    values = np.linspace(1000, 3000, 2001).astype(np.uint16)[None].repeat(3, 0)
    decoding = Decoding(intensity=text)
    for data in (plain.tiff(values, bits=16), plain.png(values, bits=16)):
        assert np.array_equal(grey(data, decoding), shown(values, low, high))
        assert examine(data, Decoding(), Notes()).range_share == pytest.approx(2000 / 65535)
    colour = plain.png(np.repeat(values[..., None], 3, 2), bits=16)
    assert np.abs(np.asarray(decode(colour, decoding))[..., 1] - shown(values, low, high)).max() <= 1


def test_intensity_of_8_bits_and_of_white_is_zero() -> None:
    values = np.clip(GREY, 50, 99)
    assert np.array_equal(grey(plain.png(values), Decoding(intensity="minmax")), shown(values, 50, 99))
    deep = plain.tiff(values.astype(np.uint16), bits=16, photometric=0)
    assert np.array_equal(grey(deep, Decoding(intensity="minmax")), 255 - shown(values, 50, 99))


def test_floats_by_intensity() -> None:
    values = np.linspace(-1, 1, 64, dtype=np.float32)[None].repeat(4, 0)
    values[0, 0], values[0, 1] = np.nan, np.inf
    data = plain.tiff(values, bits=32, tag_339=3)
    found = grey(data, Decoding(intensity="minmax"))
    assert (found[0, 0], found[0, 1]) == (0, 255)
    assert np.array_equal(found[1], shown(values[1], -1, 1))
    assert np.array_equal(grey(data, Decoding(intensity="window:0,1"))[1], shown(values[1], -0.5, 0.5))
    for text in ("auto", "full"):
        with pytest.raises(ImageError, match="no known black and white; choose: --intensity minmax"):
            decode(data, Decoding(intensity=text))


def test_signed_and_32_bit_integers() -> None:
    signed = (ramp(4000).astype(np.int16) - 1000).astype(np.int16)
    data = plain.tiff(signed, bits=16, tag_339=2)
    assert np.array_equal(grey(data, Decoding(intensity="window:1000,4000")), shown(signed, -1000, 3000))
    assert np.array_equal(grey(data, Decoding(intensity="full")), shown(signed, -32768, 32767))
    with pytest.raises(ImageError, match="16-bit signed pixels have no known black and white"):
        decode(data)
    wide = plain.tiff(ramp(2**32 - 1, np.uint32), bits=32)
    assert np.array_equal(grey(wide, Decoding(intensity="full")), shown(ramp(2**32 - 1, np.uint32), 0, 2**32 - 1))


@pytest.mark.parametrize("text", ["best", "window:1", "window:1,0", "percentile:9,1", "percentile:0,101", "minmax,"])
def test_intensities_that_are_none(text: str) -> None:
    with pytest.raises(InputError, match=f"--intensity {text}"):
        Intensity.parse(text)


def many(kind: str) -> tuple[bytes, list[np.ndarray]]:
    """Three frames that differ in brightness, and a file of them."""
    frames = [np.full((9, 9), 40 * number, np.uint8) for number in (1, 2, 3)]
    if kind in ("8-bit TIFF", "16-bit TIFF"):
        deep = kind.startswith("16")
        pages = [frame.astype(np.uint16) * 257 if deep else frame for frame in frames]
        return plain.tiff(*pages, bits=16 if deep else 8), frames
    if kind == "channels":
        return plain.tiff(np.dstack(frames), bits=8, photometric=1), frames
    first, *others = [Image.fromarray(frame).convert("RGB") for frame in frames]
    buffer = io.BytesIO()
    options = {"lossless": True} if kind == "WEBP" else {}
    first.save(buffer, kind, save_all=True, append_images=others, duration=100, **options)
    return buffer.getvalue(), frames


@pytest.mark.parametrize("kind", ["8-bit TIFF", "16-bit TIFF", "channels", "GIF", "WEBP", "PNG"])
def test_several_frames(kind: str) -> None:
    data, frames = many(kind)
    with pytest.raises(ImageError, match="holds 3 frames, expected one; choose: --frame first, middle, N or all"):
        decode(data)
    for frame, place in {"first": 0, "middle": 1, "1": 0, "3": 2}.items():
        assert np.abs(grey(data, Decoding(frame=frame)) - frames[place]).max() <= 1
    with pytest.raises(ImageError, match="holds 3 frames, no frame 4"):
        decode(data, Decoding(frame="4"))


def test_smaller_copies_and_masks_are_no_pages() -> None:
    buffer = io.BytesIO()
    with tifffile.TiffWriter(buffer) as writer:
        writer.write(GREY, subfiletype=0)
        writer.write(GREY[::2, ::2], subfiletype=1)
    assert np.array_equal(grey(buffer.getvalue()), GREY)


def test_an_mpo_photograph_is_its_primary_image_and_counted() -> None:
    first, second = (Image.fromarray(pixels(seed, 32, 32)) for seed in (1, 2))
    buffer, alone = io.BytesIO(), io.BytesIO()
    first.save(buffer, "MPO", save_all=True, append_images=[second])
    first.save(alone, "JPEG")
    notes = Notes()
    found = np.asarray(examine(buffer.getvalue(), Decoding(), notes).image)
    assert np.array_equal(found, np.asarray(decode(alone.getvalue())))
    assert notes.lines() == ["MPO photographs of several images, of which the primary one is used: 1"]


@pytest.mark.parametrize(("count", "frame", "place"), [(1, None, 0), (4, "middle", 2), (5, "middle", 2), (9, "9", 8)])
def test_frame_numbers(count: int, frame: str | None, place: int) -> None:
    assert frame_number(count, frame) == place


@pytest.mark.parametrize("frame", ["0", "last", "-1", "1.5"])
def test_frames_that_are_none(frame: str) -> None:
    with pytest.raises(InputError, match=f"--frame {frame} is not a frame"):
        Decoding(frame=frame)


def test_more_pixels_by_choice(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    for data in (plain.png(GREY), plain.tiff(GREY.astype(np.uint16), bits=16), plain.tiff(GREY, bits=8)):
        with pytest.raises(ImageError, match=r"30 x 20 pixels.*--max-pixels allows more") as caught:
            decode(data)
        assert caught.value.status == Status.TOO_LARGE
        assert decode(data, Decoding(max_pixels=600)).size == (30, 20)
        with pytest.raises(ImageError, match="at most 599"):
            decode(data, Decoding(max_pixels=599))


def test_choices_enter_the_fingerprint(data: Path, index: ContentIndex) -> None:
    name = f"folder:{plain.sound_folder(data / 'sound')}"
    plainly = load_dataset(name).fingerprint(index)
    choices = ({"intensity": "minmax"}, {"frame": "first"}, {"max_pixels": 99}, {"voi": "2"}, {"intensity": "full"})
    found = {load_dataset(name, **words).fingerprint(index) for words in choices}
    assert len(found | {plainly}) == 6
    assert load_dataset(name, intensity="auto").fingerprint(index) == plainly


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF"])
def test_one_frame_is_the_only_frame(kind: str) -> None:
    buffer = io.BytesIO()
    Image.fromarray(RGB).save(buffer, kind)
    for frame in ("first", "middle", "1", "all"):
        assert decode(buffer.getvalue(), Decoding(frame=frame)).size == (30, 20)
    with pytest.raises(ImageError, match="holds 1 frame, no frame 2"):
        decode(buffer.getvalue(), Decoding(frame="2"))


def test_a_tiff_without_pages() -> None:
    with pytest.raises(ImageError):
        decode(b"II*\0" + bytes(60))


def test_only_deep_images_have_a_share_of_their_range() -> None:
    dark = np.full((4, 4, 3), 9, np.uint8)
    dark[0, 0] = 0
    assert examine(plain.png(dark), Decoding(), Notes()).range_share is None
    deep = plain.png(dark.astype(np.uint16) * 257, bits=16)
    assert examine(deep, Decoding(), Notes()).range_share == pytest.approx(9 / 255)
    assert np.array_equal(np.asarray(decode(deep)), dark)
