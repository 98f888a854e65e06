"""Low-rank adapters (LoRA, Hu et al., ICLR 2022): a frozen weight W is used as W + B A, and only A and B train.

B begins at zero, so the network begins as it was.  `merge` adds B A to the weights; the network then has the
parameters that it had before, and is saved and read as any other.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils import parametrize
from torch.utils._pytree import tree_map

from mt.fuse.end_to_end.trainable.blocks import BackboneBlock, blocks


class LowRank(nn.Module):
    """A weight (out, in) plus B A of rank r; A is (r, in), B is (out, r)."""

    def __init__(self, weight: Tensor, rank: int) -> None:
        super().__init__()
        bound = 1 / math.sqrt(weight.shape[1])
        self.a = nn.Parameter(torch.empty(rank, weight.shape[1]).uniform_(-bound, bound))
        self.b = nn.Parameter(torch.zeros(weight.shape[0], rank))

    def forward(self, weight: Tensor) -> Tensor:
        shape = torch.empty(weight.shape, dtype=weight.dtype, device="meta")  # no numbers: `_Adapted` answers for it
        adapted: _Adapted = shape.as_subclass(_Adapted)
        adapted.frozen, adapted.a, adapted.b = weight, self.a, self.b
        return adapted


class _Adapted(Tensor):
    """W + B A, which linear layers never form: x W' + (x A') B' needs no copy of W, and no gradient of its size."""

    frozen: Tensor
    a: Tensor
    b: Tensor

    @classmethod
    def __torch_function__(
        cls,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        with torch._C.DisableTorchFunctionSubclass():
            if func is functional.linear:
                return _linear(*args, **(kwargs or {}))
            return func(*tree_map(_sum, args), **tree_map(_sum, kwargs or {}))


def _linear(input: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    if not isinstance(weight, _Adapted):  # it is the input or the bias
        return functional.linear(_sum(input), weight, _sum(bias))
    low = functional.linear(functional.linear(input, weight.a), weight.b)
    return functional.linear(input, weight.frozen, bias) + low


def _sum(value: Any) -> Any:
    """Return W + B A of an adapted weight, for all but linear layers: torch's own attention, `x @ weight.T`."""
    if not isinstance(value, _Adapted):
        return value
    return value.frozen + (value.b @ value.a).to(value.frozen.dtype)


def adapt(parts: Sequence[BackboneBlock], rank: int, *, seed: int) -> None:
    """Add adapters to the attention and MLP layers of frozen blocks."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for module, name in list(_weights(parts)):
            weight = getattr(module, name)
            parametrize.register_parametrization(module, name, LowRank(weight, min(rank, *weight.shape)))


def largest_rank(backbone: nn.Module) -> int:
    """Return the largest rank that a weight of the adapted layers can have; 0 without any."""
    return max((min(getattr(module, name).shape) for module, name in _weights(blocks(backbone)[1:])), default=0)


@torch.no_grad()
def merge(network: nn.Module) -> None:
    """Add every adapter to its weight and remove it."""
    for module in list(network.modules()):
        if parametrize.is_parametrized(module):
            for name in list(module.parametrizations):  # type: ignore[arg-type]
                merged = _sum(getattr(module, name))
                parametrize.remove_parametrizations(module, name, leave_parametrized=False)
                getattr(module, name).copy_(merged)


def _weights(parts: Sequence[BackboneBlock]) -> Iterator[tuple[nn.Module, str]]:
    """Yield the layers whose weights are adapted, with the names of these weights."""
    for part in parts:
        for top in part.modules:
            for module in top.modules():
                if isinstance(module, nn.Linear):
                    yield module, "weight"
                elif isinstance(module, nn.MultiheadAttention) and module.in_proj_weight is not None:
                    yield module, "in_proj_weight"
