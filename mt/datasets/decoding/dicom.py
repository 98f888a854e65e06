"""The pixels of one DICOM file as 8-bit RGB; nothing else of it is read further or kept."""

from __future__ import annotations

from typing import Any, BinaryIO

import numpy as np

from mt.errors import MissingExtraError


def read_dicom(file: BinaryIO) -> np.ndarray:
    """Return the single frame of a DICOM file as uint8 (H, W, 3), dark to bright as a viewer shows it.

    Rescale slope and intercept, then the first window (PS3.3 C.11.2.1.2 and C.11.2.1.3), else a VOI table, else the
    image's own range without padding; MONOCHROME1 is inverted last.

    Raises:
        MissingExtraError: pydicom is not installed.
        ValueError: more than one frame.
    """
    try:
        import pydicom
    except ImportError as error:
        raise MissingExtraError(
            "DICOM images need pydicom. Install it: pip install 'medical-transfer[dicom]'"
        ) from error
    from pydicom.pixels.utils import pixel_array

    header = pydicom.dcmread(file)
    if int(header.get("NumberOfFrames") or 1) != 1:
        raise ValueError(f"the DICOM file holds {header.NumberOfFrames} frames, expected one; export single images")
    _refuse_bomb(header)
    stored = pixel_array(header)
    if header.PhotometricInterpretation == "PALETTE COLOR":
        from pydicom.pixels.processing import apply_color_lut

        stored = apply_color_lut(stored, header)
    if stored.ndim == 3:
        return _eight_bits(stored, header)
    grey = np.rint(_windowed(stored, header) * 255).astype(np.uint8)
    if header.PhotometricInterpretation == "MONOCHROME1":
        grey = 255 - grey
    return np.repeat(grey[..., None], 3, axis=2)


def _refuse_bomb(header: Any) -> None:
    """Hold DICOM to the limit that Pillow sets for other formats."""
    from PIL import Image

    if Image.MAX_IMAGE_PIXELS and int(header.Rows) * int(header.Columns) > Image.MAX_IMAGE_PIXELS:
        raise Image.DecompressionBombError(f"{header.Columns} x {header.Rows} pixels")


def _eight_bits(colour: np.ndarray, header: Any) -> np.ndarray:
    """Return a colour image (H, W, 3) as uint8: palettes hold 16 bits, samples as many as the header says."""
    if colour.dtype == np.uint8:
        return np.ascontiguousarray(colour[..., :3])
    top = 65535 if header.PhotometricInterpretation == "PALETTE COLOR" else 2 ** int(header.BitsStored) - 1
    return np.rint(colour[..., :3].astype(np.float64) * (255 / top)).astype(np.uint8)


def _windowed(stored: np.ndarray, header: Any) -> np.ndarray:
    """Return grey values mapped to 0 ... 1."""
    from pydicom.pixels.processing import apply_modality_lut, apply_voi

    padding = header.get("PixelPaddingValue")
    image = stored != padding if padding is not None else np.ones(stored.shape, dtype=bool)
    values = np.asarray(apply_modality_lut(stored, header), dtype=np.float64)
    if header.get("WindowCenter") is not None and header.get("WindowWidth") is not None:
        shape = str(header.get("VOILUTFunction") or "LINEAR").upper()
        return _window(values, _first(header.WindowCenter), _first(header.WindowWidth), shape)
    if header.get("VOILUTSequence"):
        values = np.asarray(apply_voi(values.astype(np.int64), header), dtype=np.float64)
    inside = values[image] if image.any() else values
    low, high = inside.min(), inside.max()
    return np.asarray(np.clip((values - low) / max(high - low, 1e-12), 0.0, 1.0))


def _window(values: np.ndarray, center: float, width: float, shape: str) -> np.ndarray:
    if shape == "SIGMOID":
        return np.asarray(1 / (1 + np.exp(-4 * (values - center) / width)))
    if shape == "LINEAR_EXACT":
        return np.asarray(np.clip((values - center) / width + 0.5, 0.0, 1.0))
    return np.asarray(np.clip((values - (center - 0.5)) / max(width - 1, 1e-12) + 0.5, 0.0, 1.0))


def _first(value: Any) -> float:
    """Return the first of one or several windows."""
    return float(value[0] if hasattr(value, "__len__") and not isinstance(value, str) else value)
