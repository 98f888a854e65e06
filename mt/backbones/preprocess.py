"""From a decoded image to a network's input: each backbone's own evaluation recipe, as its authors published it."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import asdict, dataclass, replace
from functools import cache
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from PIL import Image

from mt.errors import InputError

if TYPE_CHECKING:
    import torch

Interpolation = Literal["bilinear", "bicubic"]
_RESAMPLE = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}
_MOST_PIXELS = 1 << 26  # of a resized image: 192 MiB as RGB

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class Placement:
    """Where a recipe's crop lies in a resized picture of `width` x `height` pixels.

    `left` and `top` are where the crop begins, negative where it is padded; `columns` and `rows` are the pixels of the
    resized picture that it keeps.  `box` is set only for a sliver (a very elongated image): the part of the original
    that is resized (left, top, right, bottom in its pixels); `width` and `height` are then the crop's.
    """

    width: int
    height: int
    left: int
    top: int
    crop: int
    box: tuple[float, float, float, float] | None = None

    @property
    def columns(self) -> slice:
        return slice(max(self.left, 0), min(self.left + self.crop, self.width))

    @property
    def rows(self) -> slice:
        return slice(max(self.top, 0), min(self.top + self.crop, self.height))


@dataclass(frozen=True)
class Preprocess:
    """Resize the short side (antialiased, as PIL does), crop the centre, scale to [0, 1], normalise each channel.

    `resize` None leaves the size alone; `squash` resizes both sides to `resize`, ignoring the aspect ratio (some of
    timm's recipes).  A crop larger than the image is padded with black.  These are torchvision's `Resize` and
    `CenterCrop` on PIL images, with the same rounding; `crop_down` rounds the crop's corner down, as transformers does.
    """

    resize: int | None
    crop: int
    interpolation: Interpolation = "bilinear"
    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[float, float, float] = IMAGENET_STD
    squash: bool = False
    crop_down: bool = False

    @property
    def geometry_key(self) -> Hashable:
        """Recipes with equal keys have the same `geometry`: an image is resized and cropped once for all of them."""
        return self.resize, self.crop, self.interpolation, self.squash, self.crop_down

    def at_size(self, size: int | None) -> Preprocess:
        """Return the recipe with another crop, resizing in the official proportion; None keeps the official size.

        Raises:
            InputError: a size below one pixel.
        """
        if size is None or size == self.crop:
            return self
        if size < 1:
            raise InputError(f"--image-size takes a number of pixels, at least 1; got {size}.")
        resize = None if self.resize is None else round(size * self.resize / self.crop)
        return replace(self, crop=size, resize=resize)

    def for_five_crops(self) -> Preprocess:
        """Return the recipe that keeps the whole centred square of the resized image, of which five crops are cut.

        A recipe that crops nothing away resizes to 8/7 of its crop, as 256 is to 224.
        """
        resize = self.resize if self.resize is not None and self.resize > self.crop else round(self.crop * 8 / 7)
        return replace(self, resize=resize, crop=resize)

    def describe(self) -> dict[str, Any]:
        """Return the recipe as JSON, for the fingerprint."""
        said = asdict(self) | {"mean": list(self.mean), "std": list(self.std), "antialias": True}
        if not self.crop_down:  # omitted: recipes from before it was there keep their fingerprints
            del said["crop_down"]
        return said

    def geometry(self, image: Image.Image | np.ndarray) -> np.ndarray:
        """Return the resized and centrally cropped pixels, uint8 (crop, crop, 3).

        `image` is a PIL image of any 8-bit mode, or uint8 (H, W, 3).
        """
        if isinstance(image, np.ndarray):
            if image.shape[:2] == (self.crop, self.crop) and self.resize in (None, self.crop):
                return image
            image = Image.fromarray(image)
        if image.mode != "RGB":
            image = image.convert("RGB")
        place = self.placement(*image.size)
        resized = image.resize((place.width, place.height), _RESAMPLE[self.interpolation], box=place.box)
        return np.asarray(resized.crop((place.left, place.top, place.left + self.crop, place.top + self.crop)))

    def placement(self, width: int, height: int) -> Placement:
        """Return where the crop lies in a picture of this size, once it is resized."""
        wide, high = self._resized(width, height)
        left, top = (_offset(side, self.crop, down=self.crop_down) for side in (wide, high))
        if wide * high <= _MOST_PIXELS:
            return Placement(wide, high, left, top, self.crop)
        # A sliver: resize only what the crop keeps.  For other images this would change pixels by up to 2 levels.
        across, down = width / wide, height / high
        box = (left * across, top * down, (left + self.crop) * across, (top + self.crop) * down)
        return Placement(self.crop, self.crop, 0, 0, self.crop, box)

    def normalize(self, pixels: torch.Tensor) -> torch.Tensor:
        """Return the network's input, float32 (N, 3, H, W), for uint8 pixels (N, H, W, 3) on any device.

        The result keeps the pixels' order in memory, which is torch's channels-last.
        """
        import torch

        mean, std = _constants(self.mean, self.std, pixels.device)
        images = pixels.permute(0, 3, 1, 2).to(torch.float32)
        return images.div_(255).sub_(mean).div_(std)

    def __call__(self, image: Image.Image | np.ndarray) -> torch.Tensor:
        """Return one image as the network's input, float32 (3, crop, crop)."""
        import torch

        return self.normalize(torch.from_numpy(np.array(self.geometry(image)))[None])[0]

    def _resized(self, width: int, height: int) -> tuple[int, int]:
        """Return the size after resizing: torchvision truncates the long side."""
        if self.resize is None:
            return width, height
        if self.squash:
            return self.resize, self.resize
        if width <= height:
            return self.resize, int(self.resize * height / width)
        return int(self.resize * width / height), self.resize


@cache
def _constants(mean: tuple[float, ...], std: tuple[float, ...], device: torch.device) -> tuple[torch.Tensor, ...]:
    """Return each channel's mean and standard deviation (3, 1, 1), kept on the device: graph capture allows no copy."""
    import torch

    return tuple(torch.tensor(values, device=device).view(3, 1, 1) for values in (mean, std))


def _offset(size: int, crop: int, *, down: bool) -> int:
    """Return where a centred crop begins; negative where the image is padded (torchvision's two roundings)."""
    if down and size >= crop:
        return (size - crop) // 2
    return round((size - crop) / 2) if size >= crop else -((crop - size) // 2)
