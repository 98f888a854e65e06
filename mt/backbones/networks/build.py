"""Networks by name, built without initialising weights that a checkpoint will replace."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable
from typing import cast

import torch
from torch import nn

from mt.backbones.networks.vit import Rule, VisionTransformer, VitConfig
from mt.backbones.states import State

VITS = {
    "vit_small_patch16": VitConfig(patch=16, width=384, heads=6, side=14),
    "vit_small_patch8": VitConfig(patch=8, width=384, heads=6, side=28),
    "vit_base_patch16": VitConfig(patch=16, width=768, heads=12, side=14),
    "vit_large_patch16": VitConfig(patch=16, width=1024, heads=16, side=14, depth=24, offset=0.0),  # MAE's
    "vit_small_patch14_dinov2": VitConfig(
        patch=14, width=384, heads=6, side=37, layer_scale=True, positions_in_float32=True
    ),
}


def build(network: str, embedding: str) -> nn.Module:
    """Return a network with no weights yet (torch's meta device), whose forward gives the embedding."""
    # Modules are imported first: torchvision and torch 2.6 compute values at import, which the meta device cannot.
    make = _maker(network, embedding)
    with torch.device("meta"):
        return make()


def _maker(network: str, embedding: str) -> Callable[[], nn.Module]:
    """Return the function that makes the network, from an imported module."""
    if network == "resnet50":
        from torchvision.models import resnet50

        return lambda: _without_classifier(resnet50())
    if network in VITS:
        return lambda: VisionTransformer(VITS[network], cast(Rule, embedding))
    import timm

    return lambda: timm.create_model(network, num_classes=0)


def _without_classifier(resnet: nn.Module) -> nn.Module:
    """Return torchvision's ResNet-50 without its classifier: images (N, 3, H, W) -> pooled features (N, 2048).

    All published checkpoints share torchvision's parameter names after their prefix.
    """
    resnet.fc = nn.Identity()
    return resnet


def random_state(network: nn.Module, seed: str) -> State:
    """Return seeded random weights: norms at identity, weights normal with variance 1 / fan-in, the rest small."""
    return {name: _random(name, like, f"{seed}/{name}") for name, like in network.state_dict().items()}


def _random(name: str, like: torch.Tensor, seed: str) -> torch.Tensor:
    last = name.rsplit(".", 1)[-1]
    if last == "num_batches_tracked":
        return torch.zeros(like.shape, dtype=like.dtype)
    if last in ("running_var", "gamma") or (last == "weight" and like.dim() == 1):
        return torch.ones(like.shape)
    if last in ("bias", "running_mean"):
        return torch.zeros(like.shape)
    generator = torch.Generator().manual_seed(int.from_bytes(hashlib.sha256(seed.encode()).digest()[:7], "big"))
    spread = 1 / math.sqrt(math.prod(like.shape[1:])) if last == "weight" else 0.02
    return torch.randn(like.shape, generator=generator) * spread
