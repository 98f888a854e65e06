"""The pixels of one DICOM file; nothing else of it is read further or kept."""

from __future__ import annotations

import threading
import warnings
from io import BytesIO
from typing import Any

import numpy as np

from mt.datasets.decoding.notes import Notes
from mt.datasets.decoding.pillow import refuse_bomb
from mt.datasets.decoding.rules import Decoding, frame_number
from mt.datasets.decoding.samples import Samples
from mt.datasets.dicom.grey_values import grey_samples, number
from mt.errors import MissingExtraError

INSTALL = "pip install 'medical-transfer[dicom]'"
PIXELS = ("PixelData", "FloatPixelData", "DoubleFloatPixelData")
# pydicom warns through Python's warnings, which all threads share; reading holds the interpreter lock anyway.
_ONE_AT_A_TIME = threading.Lock()


def read_dicom(data: bytes, decoding: Decoding, notes: Notes) -> Samples:
    """Return one frame of a DICOM file.

    Grey: modality LUT or rescale slope and intercept, then a window or VOI table (`mt.datasets.dicom.grey_values`).
    Colour: palettes looked up, YBR converted, then the range of its bits.

    Raises:
        MissingExtraError: pydicom is not installed.
        ValueError: no image, several frames and no choice, or a compression that no installed plugin decodes.
    """
    import_pydicom()
    with _ONE_AT_A_TIME, warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            return _read(data, decoding)
        finally:
            notes.add_warnings([" ".join(str(warning.message).split()) for warning in caught])


def import_pydicom() -> Any:
    """Return pydicom.

    Raises:
        MissingExtraError: it is not installed.
    """
    try:
        import pydicom
    except ImportError as error:
        raise MissingExtraError(f"DICOM images need pydicom. Install it: {INSTALL}") from error
    return pydicom


def _read(data: bytes, decoding: Decoding) -> Samples:
    header = import_pydicom().dcmread(BytesIO(data), force=True)
    if not any(name in header for name in PIXELS):
        raise ValueError(without_image(header))
    refuse_bomb(int(header.Columns), int(header.Rows), decoding.max_pixels)
    frames = int(number(header.get("NumberOfFrames")) or 1)
    place = frame_number(frames, decoding.frame)
    stored = _stored(header, place if frames > 1 else None)
    if header.get("PhotometricInterpretation") == "PALETTE COLOR":
        from pydicom.pixels.processing import apply_color_lut

        looked_up = apply_color_lut(stored, header)[..., :3]
        return Samples(looked_up, 0, np.iinfo(looked_up.dtype).max)
    if stored.ndim == 3:
        return Samples(stored[..., :3], 0, 2.0 ** int(header.BitsStored) - 1)
    return grey_samples(stored, header, place, decoding)


def without_image(header: Any) -> str:
    """Return the message for an object without pixels: another kind of object, or an image that lost them."""
    name = class_name(header)
    if name is None:
        return "not a DICOM object: no class, no pixel data"
    if "Image Storage" in name:
        return f"the DICOM image ({name}) has no pixel data"
    return f"a DICOM object that is not an image ({name})"


def class_name(header: Any) -> str | None:
    """Return the name of what an object is, such as `CT Image Storage`, or None where it does not say."""
    uid = header.get("SOPClassUID") or getattr(header, "file_meta", {}).get("MediaStorageSOPClassUID")
    return None if not uid else str(uid.name)


def _stored(header: Any, index: int | None) -> np.ndarray:
    """Return the values of a frame as stored, converted to RGB where they are YBR."""
    from pydicom.pixels.utils import pixel_array
    from pydicom.uid import ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian

    if "TransferSyntaxUID" not in header.file_meta:  # a file without a preamble has no header of its own
        implicit, little = header.original_encoding
        plain = ExplicitVRLittleEndian if little else ExplicitVRBigEndian
        header.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian if implicit else plain
    try:
        return np.asarray(pixel_array(header, index=index))
    except RuntimeError as error:
        if "missing dependencies" not in str(error):
            raise
        syntax = header.file_meta.TransferSyntaxUID.name
        raise ValueError(f"{syntax} needs a decoder: {INSTALL}; mt doctor says which work") from error
