"""A network as `mt` uses it: frozen, with its preprocessing and the hash of its weights."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from mt.backbones.preprocess import Preprocess
from mt.backbones.states import State


@dataclass(frozen=True)
class FrozenNetwork:
    """A frozen network; `file` is where its weights came from, None for random ones.

    `architecture` is what the fingerprint calls the network, by default as the registry does; `origin` the repository,
    revision and hashes of files that the fingerprint holds beside it; `watched` further files whose change means that
    the backbone must be loaded again.
    """

    network: nn.Module
    preprocess: Preprocess
    dim: int
    weights_sha256: str
    file: Path | None
    architecture: str | None = None
    origin: Mapping[str, Any] | None = None
    watched: tuple[Path, ...] = ()


def freeze(network: nn.Module) -> nn.Module:
    """Put a network into evaluation and stop its parameters from collecting gradients."""
    return network.eval().requires_grad_(False)


def sha256_of(state: State) -> str:
    """Return the hash of the tensors' names, shapes, types and bytes: the same for .pth and .safetensors.

    Counters of batch norms are omitted: evaluation does not read them, and old files lack them.
    """
    hashed = hashlib.sha256()
    for name in sorted(state):
        if not name.endswith("num_batches_tracked"):
            tensor = state[name].detach().cpu().contiguous()
            hashed.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
            hashed.update(tensor.flatten().view(torch.uint8).numpy().data)
    return hashed.hexdigest()
