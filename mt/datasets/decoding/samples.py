"""Values of any depth, and how they become 8 bits."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from mt.datasets.decoding.rules import Intensity

_EPSILON = 1e-12  # the range of an image of one value, so that it becomes black


@dataclass(frozen=True)
class Samples:
    """The values of one image, (H, W) or (H, W, 3), and what their file says of them.

    `low` and `high` are the black and white that the file declares or, `None`, does not; `full` are the smallest and
    the largest value of its depth.  `inverted`: small values are bright.  `inside` marks the pixels that are not
    padding.
    """

    values: np.ndarray
    low: float | None
    high: float | None
    full: tuple[float, float] | None = None
    inverted: bool = False
    inside: np.ndarray | None = None

    def range_share(self) -> float | None:
        """Return the share of its depth's range that the image uses; None for 8 bits, or if black and white are not
        those of the depth.
        """
        if (
            self.values.dtype.itemsize == 1
            or self.low is None
            or self.high is None
            or self.full not in (None, (self.low, self.high))
        ):
            return None
        low, high = self._extremes()
        return (high - low) / max(self.high - self.low, _EPSILON)

    def with_own_range(self) -> Samples:
        """Return the same with its smallest value as black and its largest as white, padding omitted."""
        low, high = self._extremes()
        return replace(self, low=low, high=high)

    def eight_bits(self, intensity: Intensity) -> np.ndarray:
        """Return the image as uint8 (H, W, 3), dark to bright: `rint((v - low) / (high - low) * 255)`, clipped.

        Raises:
            ValueError: black and white are not known, and the rule does not set them.
        """
        low, high = self._limits(intensity)
        grey = _scaled(self.values, low, high)
        grey = 255 - grey if self.inverted else grey
        return grey if grey.ndim == 3 else np.repeat(grey[..., None], 3, axis=2)

    def _limits(self, intensity: Intensity) -> tuple[float, float]:
        if intensity.rule == "window":
            return intensity.low, intensity.high
        if intensity.rule == "minmax":
            return self._extremes()
        if intensity.rule == "percentile":
            low, high = np.percentile(self._known(), [intensity.low, intensity.high])
            return float(low), float(high)
        if intensity.rule == "full" and self.full is not None:
            return self.full
        if self.low is None or self.high is None:
            bits = self.values.dtype.itemsize * 8
            kind = {"f": "floating-point", "i": "signed", "u": "whole-number"}.get(self.values.dtype.kind, "")
            raise ValueError(
                f"{bits}-bit {kind} pixels have no known black and white; choose: --intensity minmax, "
                "percentile:0.5,99.5 or window:CENTER,WIDTH"
            )
        return self.low, self.high

    def _extremes(self) -> tuple[float, float]:
        known = self._known()
        return float(known.min()), float(known.max())

    def _known(self) -> np.ndarray:
        """Return the values that define the range: finite ones, padding omitted unless all is padding."""
        known = self.values
        if self.inside is not None and self.inside.any():
            known = known[self.inside]
        if known.dtype.kind == "f":
            finite = known[np.isfinite(known)]
            known = finite if finite.size else np.zeros(1)
        return known


def _scaled(values: np.ndarray, low: float, high: float) -> np.ndarray:
    """Return values as uint8; integers of up to 16 bits through one lookup table."""
    if values.dtype.kind in "iu" and values.dtype.itemsize <= 2:
        limits = np.iinfo(values.dtype)
        table = _line(np.arange(limits.min, limits.max + 1), low, high)
        return np.asarray(table[values.astype(np.int64) - limits.min])
    return _line(values, low, high)


def _line(values: np.ndarray, low: float, high: float) -> np.ndarray:
    share = (np.nan_to_num(values.astype(np.float64), nan=low) - low) / max(high - low, _EPSILON)
    return np.rint(np.clip(share, 0.0, 1.0) * 255).astype(np.uint8)
