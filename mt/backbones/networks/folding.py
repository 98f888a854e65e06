"""Batch norm folded into the convolution before it, for frozen networks: the same numbers in fewer passes."""

from __future__ import annotations

import copy
from itertools import pairwise

import torch
from torch import nn

Stamp = tuple[tuple[int, int], ...]


class FoldedConv(nn.Module):
    """A convolution and its batch norm, applied as one convolution while both are frozen.

    With γ, β, μ, σ² of the norm: W' = W γ/√(σ² + ε), b' = β + (b - μ) γ/√(σ² + ε), computed in float64 and
    rounded once, and again whenever a source tensor is replaced or written (`.double()`, `load_state_dict`).
    While training, or where the weight requires a gradient, the two layers run as published.
    """

    def __init__(self, conv: nn.Conv2d, norm: nn.BatchNorm2d) -> None:
        super().__init__()
        self.conv = conv
        self.norm = norm
        self._stamp: Stamp = ()
        self._folded: list[nn.Conv2d] = []  # a list, so that the copy is not a submodule with parameters of its own

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.training or self.conv.weight.requires_grad:
            trained: torch.Tensor = self.norm(self.conv(x))
            return trained
        stamp = tuple((t.data_ptr(), t._version) for t in self._sources())
        if stamp != self._stamp:
            self._folded, self._stamp = [self._fold()], stamp
        folded: torch.Tensor = self._folded[0](x)
        activation = getattr(self.norm, "act", None)  # timm's norm layers hold the activation after them
        return folded if activation is None else activation(folded)

    def _sources(self) -> list[torch.Tensor]:
        tensors = self.conv.weight, self.conv.bias, *self.norm.parameters(), *self.norm.buffers()
        return [tensor for tensor in tensors if tensor is not None]

    @torch.no_grad()
    def _fold(self) -> nn.Conv2d:
        weight, norm = self.conv.weight, self.norm
        assert norm.running_mean is not None
        assert norm.running_var is not None
        scale = norm.weight.double() / (norm.running_var.double() + norm.eps).sqrt()
        shift = -norm.running_mean.double()
        if self.conv.bias is not None:
            shift += self.conv.bias.double()
        folded = copy.copy(self.conv)
        folded._parameters = {
            "weight": nn.Parameter((weight.double() * scale.view(-1, 1, 1, 1)).to(weight.dtype), False),
            "bias": nn.Parameter((norm.bias.double() + shift * scale).to(weight.dtype), False),
        }
        return folded


def fold_batch_norms(network: nn.Module) -> None:
    """Fold every batch norm that directly follows a convolution among its parent's children.

    Only for networks whose forward runs such neighbours in that order, which a test checks for each that we use.
    """
    children = list(network.named_children())
    for (conv_name, conv), (norm_name, norm) in pairwise(children):
        if isinstance(conv, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
            setattr(network, conv_name, FoldedConv(conv, norm))
            setattr(network, norm_name, nn.Identity())
    for _, child in children:
        if not isinstance(child, FoldedConv):
            fold_batch_norms(child)
