"""The preprocessing that a model of transformers publishes, as our `Preprocess`; anything else is refused."""

from __future__ import annotations

import math
from typing import Any, cast

from mt.backbones.preprocess import Interpolation, Preprocess
from mt.errors import InputError

_RESAMPLE: dict[int, Interpolation] = {2: "bilinear", 3: "bicubic"}  # PIL's numbers, as configurations hold them
# Steps of processors that change nothing for us: images come as RGB.
_KNOWN_STEPS = ("do_resize", "do_center_crop", "do_rescale", "do_normalize", "do_convert_rgb")
_WARP_FROM = 384  # ConvNeXt's processor resizes both sides from here, and crops below


def preprocess_of_processor(processor: Any, name: str) -> Preprocess:
    """Return the recipe of one of transformers' image processors, equal to its PIL backend.

    Raises:
        InputError: a step, resize mode or filter that `Preprocess` does not have; the message names it.
    """
    steps = [step for step in vars(processor) if step.startswith("do_") and getattr(processor, step)]
    for step in steps:
        if step not in _KNOWN_STEPS:
            raise _refused(name, f"{step}=True")
    if not getattr(processor, "do_resize", False):
        raise _refused(name, "do_resize=False")
    mean, std = _normalisation(processor, name)
    resample = int(getattr(processor, "resample", 2))
    if resample not in _RESAMPLE:
        raise _refused(name, f"resample={resample}")
    resize, crop, squash = _geometry(processor, name)
    return Preprocess(resize, crop, _RESAMPLE[resample], mean, std, squash=squash, crop_down=True)


def _geometry(processor: Any, name: str) -> tuple[int, int, bool]:
    """Return the resized side, the side of the crop (pixels), and whether the resize ignores the aspect ratio."""
    size = processor.size
    shortest, height, width = (_entry(size, key) for key in ("shortest_edge", "height", "width"))
    crop_pct = getattr(processor, "crop_pct", None)
    if crop_pct is not None and shortest:
        return (shortest, shortest, True) if shortest >= _WARP_FROM else (int(shortest / crop_pct), shortest, False)
    crop = _crop(processor, name)
    if shortest and not _entry(size, "longest_edge"):
        if crop is None or crop > shortest:
            raise _refused(name, f"a shortest edge of {shortest} with a crop of {crop or 'nothing'}")
        return shortest, crop, False
    if height is None or height != width or (crop or height) > height:
        raise _refused(name, f"size {size}, crop {crop or 'none'}")
    return height, crop or height, True


def _crop(processor: Any, name: str) -> int | None:
    if not getattr(processor, "do_center_crop", False):
        return None
    height, width = (_entry(processor.crop_size, key) for key in ("height", "width"))
    if height is None or height != width:
        raise _refused(name, f"a crop of {processor.crop_size}")
    return height


def _normalisation(processor: Any, name: str) -> tuple[tuple[float, float, float], tuple[float, float, float]]:
    """Return mean and standard deviation of each channel, on the scale from 0 to 1."""
    factor = float(getattr(processor, "rescale_factor", None) or 1 / 255)
    if not getattr(processor, "do_rescale", False) or not math.isclose(factor, 1 / 255, rel_tol=1e-6):
        raise _refused(name, f"do_rescale={processor.do_rescale}, rescale_factor={factor:g}")
    if not getattr(processor, "do_normalize", False):
        return (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)
    values = [tuple(float(value) for value in one) for one in (processor.image_mean, processor.image_std)]
    if any(len(one) != 3 for one in values):
        raise _refused(name, f"{len(values[0])} channels")
    return cast("tuple[tuple[float, float, float], tuple[float, float, float]]", tuple(values))


def _entry(size: Any, key: str) -> int | None:
    value = size.get(key) if isinstance(size, dict) else getattr(size, key, None)
    return None if value is None else int(value)


def _refused(name: str, what: str) -> InputError:
    return InputError(
        f"'{name}' is preprocessed with {what}, which mt does not have: expected a resize (bilinear or bicubic) to a "
        "square or to the shortest edge with a square centre crop, a rescale by 1/255, and three channels. Wrap the "
        "model yourself: --model module:FILE.py:FUNCTION"
    )
