"""How image files become 8-bit RGB: which grey is black, which frame is shown, how many pixels are too many."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Literal

from mt.errors import InputError

INTENSITIES = "auto, full, minmax, percentile:LOW,HIGH (percentile:0.5,99.5) or window:CENTER,WIDTH (window:40,400)"
DECODERS = ("pillow", "device")
FRAMES = "first, middle, a number from 1, or all"
_NUMBER = r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?"
_PAIR = re.compile(rf"(percentile|window):({_NUMBER}),({_NUMBER})")


@dataclass(frozen=True)
class Intensity:
    """Which values become black and white.

    `auto`: what the file says (its depth; the window of a DICOM file).  `full`: the whole range of its depth.
    `minmax`: its smallest and largest value.  `percentile`: its `low` and `high` percentiles.  `window`: `low` and
    `high` in the file's own units, after the modality transform of a DICOM file.
    """

    rule: Literal["auto", "full", "minmax", "percentile", "window"] = "auto"
    low: float = 0.0
    high: float = 0.0

    @classmethod
    def parse(cls, text: str) -> Intensity:
        """Return the rule that `--intensity` names.

        Raises:
            InputError: no such rule, or numbers out of its range.
        """
        match = _PAIR.fullmatch(text.strip())
        if match is None:
            if text in ("auto", "full", "minmax"):
                return cls(text)  # type: ignore[arg-type]
            raise InputError(f"--intensity {text} is not a rule: expected {INTENSITIES}.")
        first, second = float(match[2]), float(match[3])
        if match[1] == "window":
            if second <= 0:
                raise InputError(f"--intensity {text}: the width of a window must be above 0.")
            return cls("window", first - second / 2, first + second / 2)
        if not 0 <= first < second <= 100:
            raise InputError(f"--intensity {text}: expected two rising percentiles from 0 to 100.")
        return cls("percentile", first, second)


@dataclass(frozen=True)
class Decoding:
    """The settings that change pixels, as typed; the defaults follow what the files declare.

    `frame`: first, middle, a number from 1, or all (none: a file of several frames is refused).  `voi`: which window
    or VOI table of a DICOM file, by number from 1 or by its explanation.  `max_pixels`: width times height above
    which an image is refused (none: Pillow's limit).  `decoder`: what decodes JPEG files, Pillow or a CUDA card.
    """

    intensity: str = "auto"
    frame: str | None = None
    voi: str | None = None
    max_pixels: int | None = None
    decoder: str = "pillow"

    def __post_init__(self) -> None:
        if self.rule.rule != "auto" and self.voi is not None:
            raise InputError(f"--voi {self.voi} chooses a window, which --intensity {self.intensity} ignores.")
        numbered = self.frame is not None and self.frame.isdecimal() and int(self.frame) >= 1
        if self.frame not in (None, "first", "middle", "all") and not numbered:
            raise InputError(f"--frame {self.frame} is not a frame: expected {FRAMES}.")
        if self.max_pixels is not None and self.max_pixels < 1:
            raise InputError(f"--max-pixels takes a number of pixels of at least 1, got {self.max_pixels}.")
        if self.decoder not in DECODERS:
            raise InputError(f"--decoder {self.decoder} is not a choice: expected {', '.join(DECODERS)}.")

    @property
    def most_pixels(self) -> int | None:
        """The width times height above which an image is refused; None: no limit."""
        from PIL import Image

        return self.max_pixels or Image.MAX_IMAGE_PIXELS

    @property
    def rule(self) -> Intensity:
        return Intensity.parse(self.intensity)

    def describe(self) -> dict[str, Any]:
        """Return what enters a fingerprint: nothing if every setting is its default.

        Every rule ignores colour profiles; this is recorded only beside another setting.
        """
        asked = {
            "intensity": self.intensity,
            "frame": self.frame,
            "voi": self.voi,
            "max_pixels": self.max_pixels,
            "decoder": self.decoder,
        }
        changed = {name: value for name, value in asked.items() if value not in (None, "auto", "pillow")}
        return {**changed, "colour_profiles": "ignored"} if changed else {}


def frame_number(count: int, frame: str | None) -> int:
    """Return which of `count` frames is meant, from 0.

    Raises:
        ValueError: several frames and no choice, or no such frame.
    """
    if frame is None or frame == "all":
        if count > 1:
            raise ValueError(f"the file holds {count:,} frames, expected one; choose: --frame first, middle, N or all")
        return 0
    place = {"first": 0, "middle": count // 2}.get(frame)
    place = int(frame) - 1 if place is None else place
    if place >= count:
        raise ValueError(f"the file holds {count:,} {'frame' if count == 1 else 'frames'}, no frame {frame}")
    return place
