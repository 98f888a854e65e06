"""Grey DICOM values: modality transform, windows and VOI tables, padding (PS3.3 C.11.1, C.11.2, C.7.5.1.1.2)."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from mt.datasets.decoding.rules import Decoding
from mt.datasets.decoding.samples import Samples


@dataclass(frozen=True)
class GreyView:
    """One way to show a grey image: a window, or a table."""

    name: str
    center: float = 0.0
    width: float = 0.0
    shape: str = "LINEAR"
    table: Any = None


def grey_samples(stored: np.ndarray, header: Any, frame: int, decoding: Decoding) -> Samples:
    """Return grey values after the modality transform, with the black and white of the chosen view.

    Without a view these are the smallest and the largest value that is not padding.

    Raises:
        ValueError: `--voi` names a view that the file does not have.
    """
    values, full = _modality(stored, _Tags(header, frame, "PixelValueTransformationSequence"), header)
    inside = _inside(stored, header)
    inverted = header.get("PhotometricInterpretation") == "MONOCHROME1"
    plain = Samples(values, None, None, full, inverted, inside)
    if decoding.intensity != "auto":
        return plain
    view = _chosen(list(_views(_Tags(header, frame, "FrameVOILUTSequence"))), decoding.voi)
    if view is None:
        return plain.with_own_range()
    shown, low, high = _shown(values, view, header)
    return Samples(shown, low, high, full, inverted, inside)


class _Tags:
    """The tags of one frame: its own functional group's, the shared one's, or the file's."""

    def __init__(self, header: Any, frame: int, group: str) -> None:
        each, shared = header.get("PerFrameFunctionalGroupsSequence"), header.get("SharedFunctionalGroupsSequence")
        items = [each[frame]] if each and frame < len(each) else []
        items += [shared[0]] if shared else []
        self._places = [item[group].value[0] for item in items if group in item and item[group].value] + [header]

    def get(self, name: str) -> Any:
        """Return a value, or None where the tag is absent or empty."""
        found = (place.get(name) for place in self._places)
        return next((value for value in found if value is not None and value != "" and value != []), None)


def _modality(stored: np.ndarray, tags: _Tags, header: Any) -> tuple[np.ndarray, tuple[float, float] | None]:
    """Return values in the modality's units, such as Hounsfield, and the range that its bits have there."""
    sequence = tags.get("ModalityLUTSequence")
    if sequence:
        table = Table.read(sequence[0], header)
        return table.look_up(stored), (0.0, table.top)
    slope, intercept = number(tags.get("RescaleSlope")) or 1.0, number(tags.get("RescaleIntercept")) or 0.0
    full = None
    if stored.dtype.kind in "iu":
        bits = int(number(header.get("BitsStored")) or stored.dtype.itemsize * 8)
        lowest = -(2.0 ** (bits - 1)) if stored.dtype.kind == "i" else 0.0
        ends = sorted(slope * end + intercept for end in (lowest, lowest + 2.0**bits - 1))
        full = ends[0], ends[1]
    if slope == 1.0 and intercept == 0.0:
        return stored, full
    return stored.astype(np.float64) * slope + intercept, full


def _inside(stored: np.ndarray, header: Any) -> np.ndarray | None:
    """Return which pixels are not padding: outside PixelPaddingValue to PixelPaddingRangeLimit, both included."""
    value = number(header.get("PixelPaddingValue"))
    if value is None:
        return None
    limit = number(header.get("PixelPaddingRangeLimit"))
    bits = stored.dtype.itemsize * 8
    ends = [value, value if limit is None else limit]
    if stored.dtype.kind == "i":  # written unsigned beside signed pixels
        ends = [end - 2.0**bits if end >= 2.0 ** (bits - 1) else end for end in ends]
    return np.asarray((stored < min(ends)) | (stored > max(ends)))


def _views(tags: _Tags) -> Iterator[GreyView]:
    """Yield the windows and then the tables of a frame, in the order of the file.

    A LINEAR window is at least 1 wide (PS3.3 C.11.2.1.2.1), others wider than 0 (C.11.2.1.3); narrower is not a window.
    """
    centers, widths = _listed(tags.get("WindowCenter")), _listed(tags.get("WindowWidth"))
    names = _listed(tags.get("WindowCenterWidthExplanation"))
    shape = str(tags.get("VOILUTFunction") or "LINEAR").upper()
    for place, (center, width) in enumerate(zip(map(number, centers), map(number, widths), strict=False)):
        wide = width is not None and (width > 0 if shape in ("LINEAR_EXACT", "SIGMOID") else width >= 1)
        if center is not None and width is not None and wide:
            yield GreyView(str(names[place]) if place < len(names) else "", center, width, shape)
    for item in tags.get("VOILUTSequence") or ():
        if item.get("LUTDescriptor") and item.get("LUTData") is not None:
            yield GreyView(str(item.get("LUTExplanation") or ""), table=item)


def _chosen(views: list[GreyView], voi: str | None) -> GreyView | None:
    """Return the first view, or the one that `--voi` names by number or explanation; None where there is none."""
    if voi is None:
        return views[0] if views else None
    named = [view for view in views if view.name.casefold() == voi.casefold()]
    if not named and voi.isdecimal() and 1 <= int(voi) <= len(views):
        named = [views[int(voi) - 1]]
    if not named:
        known = ", ".join(f"{place} {view.name}".strip() for place, view in enumerate(views, start=1)) or "none"
        raise ValueError(f"no window '{voi}' in the DICOM file; it has {known} (--voi N or NAME)")
    return named[0]


def _shown(values: np.ndarray, view: GreyView, header: Any) -> tuple[np.ndarray, float, float]:
    """Return values with the black and white of a view."""
    if view.table is not None:
        table = Table.read(view.table, header)
        return table.look_up(np.rint(values)), 0.0, table.top
    if view.shape == "SIGMOID":
        exponent = np.clip(-4 * (values.astype(np.float64) - view.center) / view.width, -700, 700)
        return 1 / (1 + np.exp(exponent)), 0.0, 1.0
    if view.shape == "LINEAR_EXACT":
        return values, view.center - view.width / 2, view.center + view.width / 2
    low = view.center - 0.5 - (view.width - 1) / 2
    return values, low, low + view.width - 1


@dataclass(frozen=True)
class Table:
    """A lookup table: entry 0 stands for `first` and all below it; `top` is the largest value of its bits."""

    entries: np.ndarray
    first: int
    top: float

    @classmethod
    def read(cls, item: Any, header: Any) -> Table:
        """Return the table of one item of a LUT sequence; 8-bit entries may lie in bytes or in words."""
        count, first, bits = (int(value) for value in item.LUTDescriptor)
        data = item.LUTData
        if isinstance(data, bytes):
            little = header.original_encoding[1] is not False
            words = len(data) >= 2 * (count or 2**16)
            entries = np.frombuffer(data, dtype=("<u2" if little else ">u2") if words else np.uint8)
        else:
            entries = np.atleast_1d(np.asarray(data, dtype=np.int64)) & 0xFFFF
        return cls(entries[: count or 2**16].astype(np.uint16), first, 2.0**bits - 1)

    def look_up(self, values: np.ndarray) -> np.ndarray:
        places = np.clip(values.astype(np.int64) - self.first, 0, len(self.entries) - 1)
        return np.asarray(self.entries[places])


def number(value: Any) -> float | None:
    """Return a tag's value as a number, the first of several, or None where it is absent, empty or none."""
    try:
        found = float(_listed(value)[0])
    except (IndexError, TypeError, ValueError):
        return None
    return found if math.isfinite(found) else None


def _listed(value: Any) -> list[Any]:
    """Return the values of a tag that holds none, one or several."""
    if value is None or value == "":
        return []
    return list(value) if hasattr(value, "__iter__") and not isinstance(value, str | bytes) else [value]
