"""From a backbone's entry in the registry to a network with its weights in it."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import nn

from mt.backbones.checkpoints import State, read_checkpoint, select
from mt.backbones.networks.build import build, random_state
from mt.backbones.networks.folding import fold_batch_norms
from mt.backbones.preprocess import Preprocess
from mt.backbones.registry import BackboneSpec
from mt.backbones.weights import RANDOM, obtain

if TYPE_CHECKING:
    from mt.cache.content import ContentIndex


@dataclass(frozen=True)
class Loaded:
    """A frozen network; `file` is where its weights came from, None for random ones."""

    network: nn.Module
    preprocess: Preprocess
    dim: int
    weights_sha256: str
    file: Path | None


def load(spec: BackboneSpec, weights: str | Path | None, image_size: int | None, index: ContentIndex | None) -> Loaded:
    """Build a backbone's network and fill it; see `mt.backbones.load.load_backbone`."""
    if spec.weights is None or spec.preprocess is None or spec.dim is None:
        from mt.backbones.hubs.timm import load_timm

        return load_timm(spec, weights, image_size)
    network = build(spec.network, spec.embedding)
    file = None
    if weights == RANDOM:
        state = random_state(network, spec.weights.url)
    else:
        file = obtain(spec.weights, weights, index=index)
        state = select(read_checkpoint(file), spec.weights.layouts, network.state_dict(), file)
    network.load_state_dict(state, assign=True)
    fold_batch_norms(network)
    return Loaded(freeze(network), spec.preprocess.at_size(image_size), spec.dim, sha256_of(state), file)


def freeze(network: nn.Module) -> nn.Module:
    """Put a network into evaluation and stop its parameters from collecting gradients."""
    return network.eval().requires_grad_(False)


def sha256_of(state: State) -> str:
    """Return the hash of the tensors' names, shapes, types and bytes: the same for .pth and .safetensors.

    Counters of batch norms are left out: evaluation does not read them, and old files lack them.
    """
    hashed = hashlib.sha256()
    for name in sorted(state):
        if not name.endswith("num_batches_tracked"):
            tensor = state[name].detach().cpu().contiguous()
            hashed.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
            hashed.update(tensor.flatten().view(torch.uint8).numpy().data)
    return hashed.hexdigest()
