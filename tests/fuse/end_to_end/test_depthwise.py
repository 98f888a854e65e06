"""Depthwise convolutions tap by tap: torch's values and gradients, taken where they pay and nowhere else."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from mt.fuse.end_to_end.network import checkpoint_blocks
from mt.fuse.end_to_end.trainable import depthwise
from mt.fuse.end_to_end.trainable.depthwise import SmallMaps
from mt.fuse.end_to_end.work import Work
from tests.fuse.end_to_end.small import RESNET, Bench

CHANNELS = 5


@pytest.fixture
def taken(monkeypatch: pytest.MonkeyPatch) -> list[torch.Size]:
    """The maps that were computed tap by tap."""
    seen: list[torch.Size] = []
    apply = depthwise._ByTaps.apply

    def noted(images: Tensor, *rest: Any) -> Any:
        seen.append(images.shape)
        return apply(images, *rest)

    monkeypatch.setattr(depthwise._ByTaps, "apply", noted)
    return seen


def operands(size: tuple[int, int], kernel: tuple[int, int]) -> tuple[Tensor, Tensor, Tensor]:
    rng = torch.Generator().manual_seed(0)
    shapes = ((3, CHANNELS, *size), (CHANNELS, 1, *kernel), (CHANNELS,))
    images, weight, bias = (torch.randn(shape, generator=rng, dtype=torch.float64) for shape in shapes)
    return images.requires_grad_(), weight.requires_grad_(), bias.requires_grad_()


@pytest.mark.parametrize("memory", [torch.channels_last, torch.contiguous_format])
@pytest.mark.parametrize(
    ("size", "kernel", "stride", "padding"),
    [
        ((1, 1), (3, 3), 1, 1),
        ((1, 1), (5, 5), 2, 2),
        ((2, 2), (3, 3), 1, 1),
        ((2, 2), (5, 5), 1, 2),
        ((3, 2), (5, 5), 2, 2),
        ((4, 4), (5, 5), 1, 2),
        ((4, 4), (7, 7), 2, 3),
        ((2, 3), (5, 5), (2, 1), (2, 1)),
        ((2, 2), (5, 7), (1, 3), (4, 6)),  # outputs that see padding alone
        ((2, 2), (3, 3), 1, 2),
    ],
)
def test_values_and_gradients_are_those_of_torch(
    size: Any, kernel: Any, stride: Any, padding: Any, memory: torch.memory_format, taken: list[torch.Size]
) -> None:
    images, weight, bias = operands(size, kernel)
    images = images.detach().contiguous(memory_format=memory).requires_grad_()
    expected = functional.conv2d(images, weight, bias, stride, padding, groups=CHANNELS)
    with SmallMaps():
        found = functional.conv2d(images, weight, bias, stride, padding, groups=CHANNELS)
    assert taken == [images.shape]
    torch.testing.assert_close(found, expected)
    towards = torch.randn(expected.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    for ours, theirs in zip(
        torch.autograd.grad(found, (images, weight, bias), towards),
        torch.autograd.grad(expected, (images, weight, bias), towards),
        strict=True,
    ):
        torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("fixed", ["images", "weight"])
def test_what_is_frozen_gets_no_gradient(fixed: str) -> None:
    images, weight, _ = operands((2, 2), (3, 3))
    (images if fixed == "images" else weight).requires_grad_(False)
    with SmallMaps():
        torch.autograd.backward(functional.conv2d(images, weight, padding=1, groups=CHANNELS).sum())
    assert (images.grad is None, weight.grad is None) == (fixed == "images", fixed == "weight")


@pytest.mark.parametrize(
    ("size", "changes"),
    [
        ((3, 3), {}),  # the kernel fits
        ((2, 2), {"dilation": 2, "padding": 2}),
        ((2, 2), {"padding": "same"}),
        ((2, 2), {"groups": 1}),
    ],
)
def test_everything_else_is_left_to_torch(size: Any, changes: dict[str, Any], taken: list[torch.Size]) -> None:
    images, weight, _ = operands(size, (3, 3))
    if changes.get("groups") == 1:
        weight = weight.detach().expand(CHANNELS, CHANNELS, 3, 3)
    settings = {"padding": 1, "groups": CHANNELS, **changes}
    with SmallMaps():
        found = functional.conv2d(images, weight, **settings)
    torch.testing.assert_close(found, functional.conv2d(images, weight, **settings), rtol=0, atol=0)
    assert not taken


def test_a_kernel_that_does_not_fit_the_padded_map_is_refused_by_torch() -> None:
    images, weight, _ = operands((2, 2), (3, 3))
    with SmallMaps(), pytest.raises(RuntimeError, match="ernel size can't be greater"):
        functional.conv2d(images, weight, groups=CHANNELS)


def test_reduced_precision_is_left_to_torch(taken: list[torch.Size]) -> None:
    images, weight, _ = (one.detach().float() for one in operands((2, 2), (3, 3)))
    with SmallMaps(), torch.autocast("cpu", torch.bfloat16):
        assert functional.conv2d(images, weight, padding=1, groups=CHANNELS).dtype == torch.bfloat16
    with SmallMaps():
        functional.conv2d(images.bfloat16(), weight.bfloat16(), padding=1, groups=CHANNELS)
    assert not taken


class Depthwise(nn.Module):
    """Two steps: a convolution to maps of 2, and a depthwise one on them."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(3, CHANNELS, 16, stride=16), nn.GELU())
        self.second = nn.Sequential(nn.Conv2d(CHANNELS, CHANNELS, 3, padding=1, groups=CHANNELS), nn.GELU())

    def forward(self, images: Tensor) -> Tensor:
        return self.second(self.first(images)).mean(dim=(2, 3))  # type: ignore[no-any-return]


def test_steps_of_training_take_it_also_where_blocks_are_recomputed(cache: Any, taken: list[torch.Size]) -> None:
    gradients = []
    for recomputed in (False, True):
        torch.manual_seed(0)
        network, work = Depthwise(), Bench(cache, RESNET).work()
        if recomputed:
            checkpoint_blocks(_Holding(network))  # type: ignore[arg-type]
        _backward(network, work)
        gradients.append([parameter.grad for parameter in network.parameters()])
    assert len(taken) == 3  # once, and twice where the block is computed again
    torch.testing.assert_close(gradients[0], gradients[1])


class _Holding(nn.Module):
    def __init__(self, backbone: nn.Module) -> None:
        super().__init__()
        self.backbones = nn.ModuleList([backbone])


def _backward(network: nn.Module, work: Work) -> None:
    images = work.inputs(work.images.pixels(np.arange(4)), None)[0].requires_grad_()
    with work.computing():
        torch.autograd.backward(network.train()(images).sum())
