"""`--decoder device`: plain JPEG files go to the device in batches, all others Pillow's way; datasets say so."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
import torch

from mt.cache.content import ContentIndex
from mt.datasets import DatasetSettings, load_dataset
from mt.datasets.decoding import nvjpeg
from mt.datasets.decoding.rules import Decoding
from mt.datasets.image_file import decode
from mt.datasets.images import ImageFiles
from mt.errors import InputError, MtError
from tests.datasets.nvjpeg_stand_in import DAMAGED, NvJpeg, card, pixels_of
from tests.datasets.test_jpeg import encoded, exif, picture

__all__ = ["card"]  # a fixture

PLAIN = [
    encoded(picture()),
    encoded(picture(), progressive=True),
    encoded(picture().convert("L")),
    encoded(picture(40, 60), subsampling="4:2:2", restart_marker_rows=1),
]


def png() -> bytes:
    file = BytesIO()
    picture().save(file, "PNG")
    return file.getvalue()


OTHERS = {
    "turned": encoded(picture(), exif=exif(6)),
    "cmyk": encoded(picture().convert("CMYK")),
    "cut": encoded(picture())[:-900],
    "garbage": encoded(picture()) + b"garbage",
    "png": png(),
    "nothing": b"",
}


@pytest.mark.parametrize("device", [None, torch.device("cpu"), torch.device("xpu")])
def test_where_no_card_decodes_one_line_says_so(
    device: torch.device | None, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    nvjpeg._reads.cache_clear()
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    found = "none on 'xpu'" if device is not None and device.type == "xpu" else "no CUDA device"
    with pytest.raises(InputError) as raised:
        nvjpeg.require(device)
    assert str(raised.value) == (
        f"--decoder device requires a CUDA device and a torchvision with nvJPEG, found {found}. "
        "Use --decoder pillow, the default."
    )
    assert capfd.readouterr() == ("", "")


def test_plain_files_are_one_batch_and_all_others_are_left_to_pillow(card: NvJpeg, pretend: torch.device) -> None:
    nvjpeg.require(pretend)
    card.batches.clear()
    files = [PLAIN[0], *OTHERS.values(), *PLAIN[1:]]
    found = nvjpeg.decode_batch(files, device=pretend)
    assert card.batches[-1] == len(PLAIN)
    assert [pixels is None for pixels in found] == [False, *[True] * len(OTHERS), False, False, False]
    for data, pixels in zip(files, found, strict=True):
        if pixels is not None:
            assert pixels.device.type == "pretend"
            np.testing.assert_array_equal(pixels.cpu().numpy(), pixels_of(data))


def test_a_damaged_file_is_left_to_pillow_and_spoils_no_other(card: NvJpeg, pretend: torch.device) -> None:
    damaged = PLAIN[0][:-2] + DAMAGED + PLAIN[0][-2:]
    found = nvjpeg.decode_batch([PLAIN[0], damaged, *PLAIN[1:]], device=pretend)
    assert [pixels is None for pixels in found] == [False, True, False, False, False]


def test_a_device_without_memory_for_one_picture_is_named(
    card: NvJpeg, pretend: torch.device, monkeypatch: pytest.MonkeyPatch
) -> None:
    nvjpeg.decode_batch(PLAIN, device=pretend)

    def full(files: list[bytes], device: torch.device) -> list[torch.Tensor]:
        raise torch.OutOfMemoryError

    monkeypatch.setattr(nvjpeg, "by_nvjpeg", full)
    with pytest.raises(MtError, match=r"pretend has no memory to decode a picture. Use --decoder pillow"):
        nvjpeg.decode_batch(PLAIN, device=pretend)


def test_a_kind_that_the_device_misreads_goes_pillows_way(
    card: NvJpeg, pretend: torch.device, monkeypatch: pytest.MonkeyPatch
) -> None:
    def without_grey(files: list[bytes], device: torch.device) -> list[torch.Tensor]:
        found = card(files, device)
        return [255 - one if torch.equal(one[0].cpu(), one[1].cpu()) else one for one in found]

    monkeypatch.setattr(nvjpeg, "by_nvjpeg", without_grey)
    found = nvjpeg.decode_batch(PLAIN, device=pretend)
    assert [pixels is None for pixels in found] == [False, False, True, False]


def test_a_large_picture_is_left_to_pillow(card: NvJpeg, pretend: torch.device) -> None:
    file = encoded(picture(40, 30))
    assert [nvjpeg.decode_batch([file], most, pretend)[0] is None for most in (1199, 1200)] == [True, False]


def on(device: torch.device, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let images that no run's device decodes be decoded there."""
    real = nvjpeg.require
    monkeypatch.setattr(nvjpeg, "require", lambda asked=None: real(asked or device))


@pytest.mark.parametrize("data", [PLAIN[0], PLAIN[2]])
def test_single_images_are_decoded_there_too(
    data: bytes, card: NvJpeg, pretend: torch.device, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    on(pretend, monkeypatch)
    path = tmp_path / "a.jpg"
    path.write_bytes(data)
    decoding = Decoding(decoder="device")
    np.testing.assert_array_equal(np.asarray(decode(path, decoding)), pixels_of(data))
    (loaded,) = ImageFiles([str(path)], decoding=decoding).load(0, 1)
    np.testing.assert_array_equal(np.asarray(loaded), pixels_of(data))
    assert not np.array_equal(np.asarray(decode(path)), pixels_of(data))


def test_the_decoder_is_part_of_name_and_fingerprint_and_its_default_of_none(tmp_path: Path) -> None:
    for place in ("train/a", "train/b", "test/a", "test/b"):
        (tmp_path / "photos" / place).mkdir(parents=True)
        for number in range(2):
            (tmp_path / "photos" / place / f"{number}.jpg").write_bytes(encoded(picture(seed=number)))
    index = ContentIndex()
    plain, same, other = (
        load_dataset(f"folder:{tmp_path / 'photos'}", settings=settings, index=index)
        for settings in (DatasetSettings(), DatasetSettings(decoder="pillow"), DatasetSettings(decoder="device"))
    )
    assert plain.describe(index) == same.describe(index)
    assert "decoder" not in str(plain.describe(index))
    assert plain.fingerprint(index) != other.fingerprint(index)
    assert plain.split_fingerprint("train", index) == same.split_fingerprint("train", index)
    assert (plain.shown, "[decoder=device]" in other.shown) == (same.shown, True)
    assert other.settings.words() == ("--decoder", "device")


def test_an_unknown_decoder_is_refused() -> None:
    with pytest.raises(InputError, match="--decoder fast is not a choice: expected pillow, device"):
        Decoding(decoder="fast")
