"""DICOM as the standard and as hospitals write it: pydicom's own files, windows, tables, padding, empty tags."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset
from pydicom.pixels.processing import apply_color_lut, apply_modality_lut, apply_windowing

from mt.datasets.base import ImageError
from mt.datasets.decoding.notes import Notes
from mt.datasets.decoding.rules import Decoding
from mt.datasets.image_file import decode, examine
from mt.errors import InputError
from tests.datasets.test_dicom import STORED, grey, write_dicom

FILES = Path(pydicom.__file__).parent / "data" / "test_files"


def one_frame_files() -> list[Path]:
    """Every file of pydicom's that holds one frame that pydicom decodes, of a known photometric interpretation."""
    found = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for path in sorted(path for path in FILES.rglob("*") if path.is_file()):
            try:
                header = pydicom.dcmread(path, stop_before_pixels=True)
                if "PhotometricInterpretation" in header and int(header.get("NumberOfFrames") or 1) == 1:
                    _ = pydicom.dcmread(path).pixel_array
                    found.append(path)
            except Exception:
                continue
    return found


def expected(path: Path) -> np.ndarray:
    """pydicom's pixels, modality and VOI transforms, then black and white as docs/datasets.md says."""
    header = pydicom.dcmread(path)
    pixels = np.asarray(header.pixel_array)
    if header.PhotometricInterpretation == "PALETTE COLOR":
        pixels = apply_color_lut(pixels, header)[..., :3]
        return pixels / np.iinfo(pixels.dtype).max * 255
    if pixels.ndim == 3:
        return pixels / (2.0 ** int(header.BitsStored) - 1) * 255
    values = apply_modality_lut(pixels, header).astype(np.float64)
    if header.get("WindowWidth") not in (None, ""):
        bits = 2.0**header.BitsStored
        low = -bits / 2 if header.PixelRepresentation else 0.0
        ends = np.array([low, low + bits - 1]) * float(header.get("RescaleSlope") or 1)
        ends = ends + float(header.get("RescaleIntercept") or 0)
        shown = (apply_windowing(pixels if "RescaleSlope" not in header else values, header) - ends[0]) / np.ptp(ends)
    else:
        inside = np.ones(pixels.shape, bool)
        if header.get("PixelPaddingValue") is not None:
            inside = pixels != header.PixelPaddingValue
        shown = (values - values[inside].min()) / max(np.ptp(values[inside]), 1e-12)
    result = np.clip(shown, 0, 1) * 255
    result = 255 - result if header.PhotometricInterpretation == "MONOCHROME1" else result
    return np.repeat(result[..., None], 3, axis=2)


ONE_FRAME = one_frame_files()


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("path", ONE_FRAME, ids=lambda path: str(path.relative_to(FILES)))
def test_pydicoms_files(path: Path) -> None:
    assert np.abs(np.asarray(decode(path)).astype(float) - expected(path)).max() <= 1


@pytest.mark.filterwarnings("ignore")
def test_there_are_files_of_every_kind() -> None:
    kinds = {pydicom.dcmread(path, stop_before_pixels=True).PhotometricInterpretation for path in ONE_FRAME}
    assert kinds >= {"MONOCHROME1", "MONOCHROME2", "RGB", "YBR_FULL", "YBR_FULL_422", "YBR_RCT", "PALETTE COLOR"}
    assert len(ONE_FRAME) > 60


@pytest.mark.parametrize("width", [0, -100, 0.5, ""])
def test_a_linear_window_below_1_is_none(tmp_path: Path, width: Any) -> None:
    path = write_dicom(tmp_path / "a.dcm", STORED, WindowCenter=2048, WindowWidth=width)
    assert np.array_equal(grey(path), grey(write_dicom(tmp_path / "b.dcm", STORED)))


@pytest.mark.parametrize(("shape", "width"), [("LINEAR_EXACT", 0.5), ("SIGMOID", 0.5), ("LINEAR", 1)])
def test_the_narrowest_windows(tmp_path: Path, shape: str, width: float) -> None:
    path = write_dicom(tmp_path / "a.dcm", STORED, WindowCenter=2048, WindowWidth=width, VOILUTFunction=shape)
    found = grey(path)
    assert (found[STORED < 2040] == 0).all()
    assert (found[STORED > 2056] == 255).all()


def test_a_sound_window_behind_an_empty_one(tmp_path: Path) -> None:
    two = grey(write_dicom(tmp_path / "a.dcm", STORED, WindowCenter=[9, 1000], WindowWidth=[0, 500]))
    assert np.array_equal(two, grey(write_dicom(tmp_path / "b.dcm", STORED, WindowCenter=1000, WindowWidth=500)))


@pytest.mark.parametrize("voi", ["2", "BONE", "bone"])
def test_a_chosen_window(tmp_path: Path, voi: str) -> None:
    path = write_dicom(
        tmp_path / "a.dcm",
        STORED,
        WindowCenter=[1000, 2000],
        WindowWidth=[500, 900],
        WindowCenterWidthExplanation=["SOFT", "BONE"],
    )
    one = grey(write_dicom(tmp_path / "b.dcm", STORED, WindowCenter=2000, WindowWidth=900))
    assert np.array_equal(np.asarray(decode(path, Decoding(voi=voi)))[..., 0], one)
    with pytest.raises(ImageError, match="no window '3' in the DICOM file; it has 1 SOFT, 2 BONE"):
        decode(path, Decoding(voi="3"))
    with pytest.raises(InputError, match="--voi 2 chooses a window, which --intensity minmax ignores"):
        Decoding(intensity="minmax", voi="2")


def lut(entries: np.ndarray, first: int, bits: int) -> Dataset:
    table = Dataset()
    table.LUTDescriptor = [len(entries) % 65536, first, bits]
    table.add_new("LUTData", "OW", entries.astype("<u2").tobytes())
    return table


@pytest.mark.parametrize("bits", [8, 12, 16])
def test_a_voi_table_maps_by_its_own_range(tmp_path: Path, bits: int) -> None:
    entries = np.linspace(0, 2**bits - 1, 4096).astype(np.uint16)
    dark = (STORED // 4).astype(np.uint16)
    found = grey(write_dicom(tmp_path / "a.dcm", dark, VOILUTSequence=[lut(entries, 0, bits)]))
    assert np.abs(found - entries[dark] / (2**bits - 1) * 255).max() <= 0.51


def test_values_beyond_a_voi_table(tmp_path: Path) -> None:
    entries = np.linspace(0, 65535, 1000).astype(np.uint16)
    found = grey(write_dicom(tmp_path / "a.dcm", STORED, VOILUTSequence=[lut(entries, 1000, 16)]))
    places = np.clip(STORED.astype(int) - 1000, 0, 999)
    assert np.array_equal(found, np.rint(entries[places] / 65535 * 255))


def test_a_modality_table(tmp_path: Path) -> None:
    entries = (np.arange(4096)[::-1] * 2).astype(np.uint16)
    path = write_dicom(tmp_path / "a.dcm", STORED, ModalityLUTSequence=[lut(entries, 0, 16)])
    values = entries[STORED].astype(float)
    assert np.array_equal(grey(path), np.rint((values - values.min()) / np.ptp(values) * 255))


@pytest.mark.parametrize("limit", [None, 10, ""])
def test_padding_up_to_a_limit(tmp_path: Path, limit: Any) -> None:
    stored = (STORED // 2 + 1000).astype(np.uint16)
    stored[0, 0], stored[0, 1] = 0, 10 if limit == 10 else 0
    tags = {"PixelPaddingValue": 0} | ({} if limit is None else {"PixelPaddingRangeLimit": limit})
    inside = stored[1:].astype(float)
    low, high = min(inside.min(), stored[0, 2]), inside.max()
    assert np.array_equal(
        grey(write_dicom(tmp_path / "a.dcm", stored, **tags))[1:], np.rint((inside - low) / (high - low) * 255)
    )


def test_padding_of_signed_values_written_unsigned(tmp_path: Path) -> None:
    stored = STORED.astype(np.int16)
    stored[0, 0] = -2000
    path = write_dicom(tmp_path / "a.dcm", stored)
    header = pydicom.dcmread(path)
    header.add_new("PixelPaddingValue", "US", 65536 - 2000)
    header.save_as(path)
    assert grey(path)[0, 1] == 0


EMPTY = (
    "WindowCenter",
    "WindowWidth",
    "RescaleSlope",
    "RescaleIntercept",
    "PixelPaddingValue",
    "VOILUTFunction",
    "PixelPaddingRangeLimit",
    "NumberOfFrames",
    "VOILUTSequence",
    "ModalityLUTSequence",
)


@pytest.mark.parametrize("tag", EMPTY)
def test_an_empty_tag_is_an_absent_tag(tmp_path: Path, tag: str) -> None:
    path = write_dicom(tmp_path / "a.dcm", STORED)
    plain = grey(path)
    header = pydicom.dcmread(path)
    if tag.startswith("PixelPadding"):
        header.add_new(tag, "US", None)
    else:
        setattr(header, tag, None)
    header.save_as(path)
    assert np.array_equal(grey(path), plain)


def test_frames_of_an_enhanced_file_have_windows_of_their_own(tmp_path: Path) -> None:
    def group(center: float) -> Dataset:
        item, window = Dataset(), Dataset()
        window.WindowCenter, window.WindowWidth = center, 500
        item.FrameVOILUTSequence = [window]
        return item

    tags = {"Rows": 8, "NumberOfFrames": 2, "PerFrameFunctionalGroupsSequence": [group(1000), group(3000)]}
    path = write_dicom(tmp_path / "a.dcm", np.concatenate([STORED, STORED]), **tags)
    for frame, center in (("1", 1000), ("2", 3000)):
        one = grey(write_dicom(tmp_path / "b.dcm", STORED, WindowCenter=center, WindowWidth=500))
        assert np.array_equal(np.asarray(decode(path, Decoding(frame=frame)))[..., 0], one)


def test_intensity_instead_of_the_window(tmp_path: Path) -> None:
    path = write_dicom(
        tmp_path / "a.dcm", STORED, WindowCenter=5, WindowWidth=9, RescaleSlope=2, RescaleIntercept=-1024
    )
    units = STORED * 2.0 - 1024
    for text, low, high in (
        ("full", -1024, 4095 * 2 - 1024),
        ("minmax", units.min(), units.max()),
        ("window:40,400", -160, 240),
    ):
        found = np.asarray(decode(path, Decoding(intensity=text)))[..., 0]
        assert np.array_equal(found, np.rint(np.clip((units - low) / (high - low), 0, 1) * 255))


def test_warnings_are_counted_and_summed_up(tmp_path: Path) -> None:
    notes = Notes()
    path = write_dicom(tmp_path / "a.dcm", STORED)
    path.write_bytes(path.read_bytes() + b"\0" * 8)
    padded = FILES / "MR_small_padded.dcm"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for _ in range(3):
            examine(padded, Decoding(), notes)
    (line,) = notes.lines()
    assert line.startswith("warnings of pydicom: 3, on 3 of the files, of 1 kind; most often (3): The pixel data is")
