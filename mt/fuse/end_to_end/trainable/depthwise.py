"""Depthwise convolutions on maps smaller than their kernel, on a CPU.

The last maps of a network on images of 32 to 96 pixels are 1 to 4 wide, and the kernels of EfficientNets 3 or 5.  There
torch's backward pass on a CPU takes 5 to 60 times as long as the few products that are needed: those of the taps that
meet the map.  `python -m benchmarks.unfreeze` measures.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

Pair = tuple[int, int]
Tap = tuple[int, int]


class SmallMaps(TorchFunctionMode):
    """Within it, `conv2d` computes depthwise convolutions whose kernel is larger than the map tap by tap."""

    def __torch_function__(
        self, func: Callable[..., Any], types: object, args: Sequence[Any] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func is torch.conv2d:
            found = _by_taps(*args, **(kwargs or {}))
            if found is not None:
                return found
        return func(*args, **(kwargs or {}))


def _by_taps(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: int | Sequence[int] = 1,
    padding: str | int | Sequence[int] = 0,
    dilation: int | Sequence[int] = 1,
    groups: int = 1,
) -> Tensor | None:
    """Return the convolution if it is one of those; None if torch's own is as fast or faster."""
    depthwise = weight.shape[1] == 1 and len(weight) == groups == input.shape[-3] and input.ndim == 4
    if not depthwise or isinstance(padding, str) or _pair(dilation) != (1, 1) or not _on_cpu(input, weight):
        return None
    kernel, size = weight.shape[-2:], input.shape[-2:]
    if min(kernel) <= max(size) or any(n + 2 * pad < k for n, pad, k in zip(size, _pair(padding), kernel, strict=True)):
        return None
    found: Tensor = _ByTaps.apply(input, weight, _pair(stride), _pair(padding))
    return found if bias is None else found + bias[:, None, None]


def _on_cpu(*tensors: Tensor) -> bool:
    plain = all(one.device.type == "cpu" and one.dtype in (torch.float32, torch.float64) for one in tensors)
    return plain and not torch.is_autocast_enabled("cpu")


def _pair(value: int | Sequence[int]) -> Pair:
    if isinstance(value, int):
        return value, value
    first, *other = value
    return first, other[0] if other else first


class _ByTaps(torch.autograd.Function):
    """(N, C, H, W) and (C, 1, kernel) -> (N, C, H', W'): the sum of shifted maps times the weights of their taps."""

    @staticmethod
    def forward(ctx: Any, images: Tensor, weight: Tensor, stride: Pair, padding: Pair) -> Tensor:
        (height, width), (down, right) = images.shape[-2:], padding
        padded = nn.functional.pad(images.permute(0, 2, 3, 1), (0, 0, right, right, down, down)).contiguous()
        by_tap = weight[:, 0].permute(1, 2, 0).contiguous()
        size = [
            (length + 2 * pad - taps) // step + 1
            for length, pad, taps, step in zip((height, width), padding, by_tap.shape[:2], stride, strict=True)
        ]
        ctx.images, ctx.stride, ctx.padding = images.shape, stride, padding
        ctx.save_for_backward(padded, by_tap)
        out = padded.new_zeros(len(images), *size, by_tap.shape[-1])
        for tap, shifted in _shifted(padded, by_tap, out, ctx):
            out.addcmul_(shifted, by_tap[tap])
        return out.permute(0, 3, 1, 2)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, Tensor | None, None, None]:
        padded, by_tap = ctx.saved_tensors
        gradient = gradients[0].permute(0, 2, 3, 1).contiguous()
        of_images = torch.zeros_like(padded) if ctx.needs_input_grad[0] else None
        of_weight = torch.zeros_like(by_tap) if ctx.needs_input_grad[1] else None
        if of_images is not None:
            for tap, shifted in _shifted(of_images, by_tap, gradient, ctx):
                shifted.addcmul_(gradient, by_tap[tap])
        if of_weight is not None:
            for tap, shifted in _shifted(padded, by_tap, gradient, ctx):
                of_weight[tap] = (gradient * shifted).sum(dim=(0, 1, 2))
        (height, width), (down, right) = ctx.images[-2:], ctx.padding
        if of_images is not None:
            of_images = of_images[:, down : down + height, right : right + width].permute(0, 3, 1, 2)
        return of_images, None if of_weight is None else of_weight.permute(2, 0, 1)[:, None], None, None


def _shifted(padded: Tensor, by_tap: Tensor, out: Tensor, ctx: Any) -> Iterator[tuple[Tap, Tensor]]:
    """Yield each tap that meets the map, and what the outputs read through it, (N, H', W', C)."""
    rows, columns = (
        [
            (tap, slice(tap, tap + step * (n - 1) + 1, step))
            for tap in range(taps)
            if any(pad <= tap + step * place < pad + length for place in range(n))
        ]
        for taps, step, n, pad, length in zip(
            by_tap.shape[:2], ctx.stride, out.shape[1:3], ctx.padding, ctx.images[-2:], strict=True
        )
    )
    for row, down in rows:
        for column, right in columns:
            yield (row, column), padded[:, down, right]
