"""One small image in each compression of DICOM, to see which of them this installation decodes."""

from __future__ import annotations

import base64
import warnings
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from mt.datasets.dicom.object_pixels import import_pydicom

SIDE = 8


@dataclass(frozen=True)
class EncodedRamp:
    """A ramp of 8 x 8 pixels, from 0 in even steps: its compression, bits per pixel, largest error, base64 text."""

    name: str
    uid: str
    bits: int
    error: int
    text: str

    def decodes(self) -> bool:
        """Return whether the ramp comes back as it was put in, within the compression's own error."""
        try:
            found = self._decoded()
        except Exception:  # a missing plugin, or one that cannot read it
            return False
        step = 4 if self.bits == 8 else 64
        ramp = np.arange(SIDE * SIDE).reshape(SIDE, SIDE) * step
        return found.shape == ramp.shape and bool(np.abs(found.astype(np.int64) - ramp).max() <= self.error)

    def _decoded(self) -> np.ndarray:
        from pydicom.dataset import Dataset, FileMetaDataset
        from pydicom.encaps import encapsulate
        from pydicom.pixels.utils import pixel_array
        from pydicom.uid import UID

        header = Dataset()
        header.file_meta = FileMetaDataset()
        header.file_meta.TransferSyntaxUID = UID(self.uid)
        header.Rows = header.Columns = SIDE
        header.SamplesPerPixel, header.PhotometricInterpretation, header.PixelRepresentation = 1, "MONOCHROME2", 0
        header.BitsAllocated = 8 if self.bits == 8 else 16
        header.BitsStored, header.HighBit = self.bits, self.bits - 1
        header.PixelData = encapsulate([base64.b64decode(self.text)])
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return np.asarray(pixel_array(header))


def decoded_compressions() -> Iterator[tuple[str, bool]]:
    """Yield the name of each compression and whether it works.

    Raises:
        MissingExtraError: pydicom is not installed.
    """
    import_pydicom()
    for sample in SAMPLES:
        yield sample.name, sample.decodes()


SAMPLES = (
    EncodedRamp(
        "JPEG Baseline",
        "1.2.840.10008.1.2.4.50",
        8,
        2,
        "/9j/4AAQSkZJRgABAQAAAQABAAD/2wBDAAIBAQEBAQIBAQECAgICAgQDAgICAgUEBAMEBgUGBgYFBgYGBwkIBgcJBwYGCAsICQoK"
        "CgoKBggLDAsKDAkKCgr/wAALCAAIAAgBAREA/8QAHwAAAQUBAQEBAQEAAAAAAAAAAAECAwQFBgcICQoL/8QAtRAAAgEDAwIEAwUF"
        "BAQAAAF9AQIDAAQRBRIhMUEGE1FhByJxFDKBkaEII0KxwRVS0fAkM2JyggkKFhcYGRolJicoKSo0NTY3ODk6Q0RFRkdISUpTVFVW"
        "V1hZWmNkZWZnaGlqc3R1dnd4eXqDhIWGh4iJipKTlJWWl5iZmqKjpKWmp6ipqrKztLW2t7i5usLDxMXGx8jJytLT1NXW19jZ2uHi"
        "4+Tl5ufo6erx8vP09fb3+Pn6/9oACAEBAAA/AK/w2/4NuP8AV/8AFBen/Lt/9av/2Q==",
    ),
    EncodedRamp(
        "JPEG Extended (12 bits)",
        "1.2.840.10008.1.2.4.51",
        12,
        4,
        "/9j/4AAQSkZJRgABAQAAAQABAAD/2wBDAAIBAQEBAQIBAQECAgICAgQDAgICAgUEBAMEBgUGBgYFBgYGBwkIBgcJBwYGCAsICQoK"
        "CgoKBggLDAsKDAkKCgr/wQALDAAIAAgBAREA/8QAFAABAAAAAAAAAAAAAAAAAAAACP/EABwQAAAGAwAAAAAAAAAAAAAAAAALDio2"
        "SFRkcv/aAAgBAQAAPwA/luKbjYEwvxq286g//9k=",
    ),
    EncodedRamp(
        "JPEG Lossless",
        "1.2.840.10008.1.2.4.57",
        12,
        0,
        "/9j/xAAXAAEBAQEAAAAAAAAAAAAAAAAJCgcM/8MACwwACAAIAQARAP/aAAgBAAAGAADn/wDQNA0DQNA0DQKAEAQBAEAQBAEAoAQB"
        "AEAQBAEAQCgBAEAQBAEAQBAKAEAQBAEAQBAEAoAQBAEAQBAEAQCgBAEAQBAEAQBAKAEAQBAEAQBAEAD/2Q==",
    ),
    EncodedRamp(
        "JPEG Lossless SV1",
        "1.2.840.10008.1.2.4.70",
        12,
        0,
        "/9j/wwALDAAIAAgBAREA/8QAIAAAAAANAAAAAAAAAAAAAAAAAAECAwQFBgcICQoLDP/aAAgBAQABAADH/wB4DwHgPAeA8B4FQA8B"
        "4DwHgPAeA8CoAeA8B4DwHgPAeBUAPAeA8B4DwHgPAqAHgPAeA8B4DwHgVADwHgPAeA8B4DwKgB4DwHgPAeA8B4FQA8B4DwHgPAeA"
        "8D//2Q==",
    ),
    EncodedRamp(
        "JPEG-LS Lossless",
        "1.2.840.10008.1.2.4.80",
        12,
        0,
        "/9j/6AAgU1BJRkYAAgAAAQAAAAgAAAAIChAGAQAAASwAAAEs/+gACAAAAAH/2P/3AAsQAAgACAEBEQD/+AANAf//ABIAQwEUAED/"
        "2gAIAQEAAAAAo/x/j/H2e4/x9QAkBH6fJ6vF2kAgBdLlcLdbLVH7/y0c3JxcG9Pn/Nza2NbU0p6/1oZ2ZlZGNeP8YmFgX15dXb+1"
        "xbW1pZWV0P/Z",
    ),
    EncodedRamp(
        "JPEG-LS near-lossless",
        "1.2.840.10008.1.2.4.81",
        12,
        2,
        "/9j/6AAgU1BJRkYAAgAAAQAAAAgAAAAIChAGAQAAASwAAAEs/+gACAAAAAH/2P/3AAsQAAgACAEBEQD/+AANAf//ABgATQEiAED/"
        "2gAIAQEAAgAAozGYvMy8ZmeZGpqYsWLEa51axW220muZptplplNczLLLLDCwzMMLsLrrDKu9znOWGZrmta1Y/9k=",
    ),
    EncodedRamp(
        "JPEG 2000 Lossless",
        "1.2.840.10008.1.2.4.90",
        12,
        0,
        "/0//UQApAAAAAAAIAAAACAAAAAAAAAAAAAAACAAAAAgAAAAAAAAAAAABCwEB/1IADAAAAAEAAAQEAAH/XAAEQGD/ZAAlAAFDcmVh"
        "dGVkIGJ5IE9wZW5KUEVHIHZlcnNpb24gMi41LjT/kAAKAAAAAAA9AAH/k9/gsBIrAwsLE+S5L4U/OFCCoRT/VnHDc30kzjC9vXJj"
        "PurEavNMOjl9iy72V6G//9k=",
    ),
    EncodedRamp(
        "JPEG 2000",
        "1.2.840.10008.1.2.4.91",
        12,
        16,
        "/0//UQApAAAAAAAIAAAACAAAAAAAAAAAAAAACAAAAAgAAAAAAAAAAAABCwEB/1IADQECAAEAAAQEAACI/1wABUJgAP9kACUAAUNy"
        "ZWF0ZWQgYnkgT3BlbkpQRUcgdmVyc2lvbiAyLjUuNP+QAAoAAAAAADwAAf+T33lYEisDCwsT5LkvhT84UIKhFP9WccNzfSTOML29"
        "cmM+6sRq80w6OX2LLvZXof/Z",
    ),
    EncodedRamp(
        "High-Throughput JPEG 2000",
        "1.2.840.10008.1.2.4.201",
        16,
        0,
        "/0//UQApQAAAAAAIAAAACAAAAAAAAAAAAAAACAAAAAgAAAAAAAAAAAABDwEB/1AACAACAAAACv9SAAwAAgABAAUEBEAB/1wAEyCI"
        "kJCQkJCQkJCQkJCQiIiI/2QAFwABT3BlbkpQSCBWZXIgMC4yNi4zLv+QAAoAAAAAAFkAAf+TwAAmu/UFB3QAAADAABNAABMARv4C"
        "B3QAPvIDh3QAwAATQAATgB4eAYJ0AP7ojwDDVADAACogABVAvu/7qnCCdQD++/fvwEIB7LYA/9k=",
    ),
    EncodedRamp(
        "RLE",
        "1.2.840.10008.1.2.5",
        12,
        0,
        "AgAAAEAAAABgAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAP0A/QH9Av0D/QT9"
        "Bf0G/Qf9CP0J/Qr9C/0M/Q39Dv0PBwBAgMAAQIDABwBAgMAAQIDABwBAgMAAQIDABwBAgMAAQIDABwBAgMAAQIDABwBAgMAAQIDA"
        "BwBAgMAAQIDABwBAgMAAQIDA",
    ),
)
