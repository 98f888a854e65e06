"""One embedding of several views of an image: the mean of theirs."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import nn

from mt.backbones.preprocess import Preprocess


def averaged(network: nn.Module, preprocess: Preprocess, views: str) -> tuple[nn.Module, Preprocess]:
    """Return the network that averages over views of its input, and the preprocessing that makes its input.

    Flips and rotations of the normalised crop are exact.  Five crops are cut from the centred square of the resized
    image, so the image is resized once.
    """
    whole = preprocess.for_five_crops() if views == "fivecrop" else preprocess
    return AveragedViews(network, views, preprocess.crop), whole


class AveragedViews(nn.Module):
    """A network whose embedding is the mean over the views of an image, in float32, one view after another."""

    def __init__(self, network: nn.Module, views: str, side: int) -> None:
        super().__init__()
        self.network = network
        self.views = views
        self.side = side

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return the embeddings (N, dim) of images (N, 3, S, S)."""
        embeddings: list[torch.Tensor] = [
            self.network(view.contiguous(memory_format=torch.channels_last)).float() for view in self._views(images)
        ]
        return torch.stack(embeddings).mean(dim=0)

    def _views(self, images: torch.Tensor) -> Iterator[torch.Tensor]:
        """Yield each view as the network takes it, the image itself first."""
        if self.views == "fivecrop":
            yield from _five_crops(images, self.side)
            return
        yield images
        if self.views == "flips":
            yield from (images.flip(axes) for axes in ((3,), (2,), (2, 3)))
            return
        for turns in range(4):
            turned = images.rot90(turns, (2, 3))
            if turns:
                yield turned
            yield turned.flip(3)


def _five_crops(images: torch.Tensor, side: int) -> Iterator[torch.Tensor]:
    """Yield the centre and the corners, with torchvision's rounding (`five_crop`)."""
    last = images.shape[-1] - side
    centre = round(last / 2)
    for top, left in ((centre, centre), (0, 0), (0, last), (last, 0), (last, last)):
        yield images[..., top : top + side, left : left + side]
