"""DICOM files: inverted, rescaled, windowed, coloured."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from mt.datasets.base import ImageError
from mt.datasets.image_file import decode
from mt.errors import MissingExtraError

STORED = np.arange(0, 4096, 64, dtype=np.uint16).reshape(8, 8)


def write_dicom(path: Path, stored: np.ndarray, **tags: Any) -> Path:
    from pydicom.dataset import FileDataset, FileMetaDataset
    from pydicom.uid import ExplicitVRLittleEndian, SecondaryCaptureImageStorage, generate_uid

    meta = FileMetaDataset()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.MediaStorageSOPClassUID = SecondaryCaptureImageStorage
    meta.MediaStorageSOPInstanceUID = generate_uid()
    header = FileDataset(str(path), {}, file_meta=meta, preamble=b"\0" * 128)
    header.SOPClassUID, header.SOPInstanceUID = SecondaryCaptureImageStorage, meta.MediaStorageSOPInstanceUID
    header.PatientName = "Doe^Jane"
    header.Rows, header.Columns = stored.shape[:2]
    header.SamplesPerPixel = 1 if stored.ndim == 2 else 3
    if stored.ndim == 3:
        header.PlanarConfiguration = 0
    header.PhotometricInterpretation = "MONOCHROME2" if stored.ndim == 2 else "RGB"
    header.BitsAllocated = stored.dtype.itemsize * 8
    header.BitsStored = 12 if stored.dtype == np.uint16 else header.BitsAllocated
    header.HighBit = header.BitsStored - 1
    header.PixelRepresentation = int(stored.dtype.kind == "i")
    for name, value in tags.items():
        setattr(header, name, value)
    header.PixelData = stored.tobytes()
    header.save_as(path, enforce_file_format=True)
    return path


def grey(path: Path) -> np.ndarray:
    found = np.asarray(decode(path))
    assert found.dtype == np.uint8
    assert np.array_equal(found[..., 0], found[..., 2])
    return found[..., 0].astype(int)


def test_without_a_window_the_range_of_the_image(tmp_path: Path) -> None:
    expected = np.rint((STORED - STORED.min()) / np.ptp(STORED) * 255)
    assert np.array_equal(grey(write_dicom(tmp_path / "a.dcm", STORED)), expected)


def test_monochrome1_is_inverted(tmp_path: Path) -> None:
    plain = grey(write_dicom(tmp_path / "a.dcm", STORED))
    inverted = grey(write_dicom(tmp_path / "b.dcm", STORED, PhotometricInterpretation="MONOCHROME1"))
    assert np.array_equal(inverted, 255 - plain)


def test_rescale_then_window(tmp_path: Path) -> None:
    """A CT in Hounsfield units: slope 2, intercept -1024, a window of 400 around 40 (PS3.3 C.11.2.1.2)."""
    tags = {"RescaleSlope": 2, "RescaleIntercept": -1024, "WindowCenter": 40, "WindowWidth": 400}
    units = STORED * 2.0 - 1024
    expected = np.clip((units - 39.5) / 399 + 0.5, 0, 1) * 255
    assert np.array_equal(grey(write_dicom(tmp_path / "a.dcm", STORED, **tags)), np.rint(expected))


def test_the_first_of_several_windows(tmp_path: Path) -> None:
    one = grey(write_dicom(tmp_path / "a.dcm", STORED, WindowCenter=1000, WindowWidth=500))
    two = grey(write_dicom(tmp_path / "b.dcm", STORED, WindowCenter=[1000, 9], WindowWidth=[500, 9]))
    assert np.array_equal(one, two)


@pytest.mark.parametrize("shape", ["LINEAR", "LINEAR_EXACT", "SIGMOID"])
def test_windows_agree_with_pydicom(tmp_path: Path, shape: str) -> None:
    from pydicom import dcmread
    from pydicom.pixels.processing import apply_windowing

    path = write_dicom(tmp_path / "a.dcm", STORED, WindowCenter=2000, WindowWidth=1500, VOILUTFunction=shape)
    reference = apply_windowing(STORED, dcmread(path)) / 4095 * 255
    assert np.abs(grey(path) - reference).max() <= 0.51


def test_signed_values(tmp_path: Path) -> None:
    stored = (STORED.astype(np.int16) - 2000).astype(np.int16)
    path = write_dicom(tmp_path / "a.dcm", stored, WindowCenter=0, WindowWidth=1001)
    assert np.array_equal(grey(path), np.rint(np.clip((stored + 0.5) / 1000 + 0.5, 0, 1) * 255))


def test_padding_does_not_stretch_the_range(tmp_path: Path) -> None:
    stored = STORED // 2
    stored[0, 0] = 4095
    path = write_dicom(tmp_path / "a.dcm", stored, PixelPaddingValue=4095)
    assert grey(path)[7, 7] == 255


def test_colour(tmp_path: Path) -> None:
    colour = np.random.default_rng(0).integers(0, 256, (6, 7, 3), dtype=np.uint8)
    assert np.array_equal(np.asarray(decode(write_dicom(tmp_path / "a.dcm", colour))), colour)


def test_found_by_content_not_by_name(tmp_path: Path) -> None:
    assert grey(write_dicom(tmp_path / "IMG0001", STORED)).shape == (8, 8)


def test_several_frames_are_refused(tmp_path: Path) -> None:
    path = write_dicom(tmp_path / "a.dcm", np.tile(STORED, (2, 1)), Rows=8, NumberOfFrames=2)
    with pytest.raises(ImageError, match="holds 2 frames, expected one"):
        decode(path)


def test_truncated_and_too_large(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_dicom(tmp_path / "a.dcm", STORED)
    whole = path.read_bytes()
    path.write_bytes(whole[:-60])
    with pytest.raises(ImageError, match=r"a\.dcm"):
        decode(path)
    path.write_bytes(whole)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 63)
    with pytest.raises(ImageError, match="8 x 8 pixels"):
        decode(path)


def test_without_pydicom_the_error_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_dicom(tmp_path / "a.dcm", STORED)
    monkeypatch.setitem(sys.modules, "pydicom", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'medical-transfer\[dicom\]'"):
        decode(path)
