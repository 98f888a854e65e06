"""What a large transformer's training holds in memory: all weights, the last blocks, adapters.

    python -m benchmarks adapters

Random weights, 224 pixels, float32.  *State*: weights, gradients, AdamW's moments and the mean of the last weights.
*Activations*: what one image's forward pass keeps for the backward pass.  A checkpoint holds what trains, its moments
and its mean.  Mixed precision halves most activations, and no state.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from benchmarks._pairs import machine
from mt.backbones import load_backbone
from mt.fuse.end_to_end.network import EndToEnd, LinearHead, Standardize, checkpoint_blocks
from mt.probe.methods.linear import CLIP

MODELS = ("timm:vit_base_patch16_224", "timm:vit_large_patch16_224")
WAYS: dict[str, dict[str, Any]] = {
    "all weights": {},
    "`--unfreeze-last 2`": {"last": 2},
    "`--lora 8`": {"lora": 8},
    "`--lora 8 --unfreeze-last 2`": {"lora": 8, "last": 2},
}
FLOAT, MEGABYTE = 4, 1e6


def main() -> None:
    """Print a row per model and way to train, each also with `--checkpoint-grad`."""
    print(f"{machine()}\n")
    print("| model | trains | parameters | checkpoint | state | activations per image | with `--checkpoint-grad` |")
    print("|---|---|---|---|---|---|---|")
    for model in MODELS:
        for way, changes in WAYS.items():
            network = made(model, changes)
            held = [kept(network)]
            checkpoint_blocks(network)
            held.append(kept(network))
            trained = sum(one.numel() for one in network.parameters() if one.requires_grad)
            weights = sum(one.numel() for one in network.parameters())
            sizes = [4 * FLOAT * trained, FLOAT * (weights + 4 * trained), *held]
            cells = " | ".join(f"{size / MEGABYTE:,.0f} MB" for size in sizes)
            print(f"| `{model}` | {way} | {trained / 1e6:.1f} M | {cells} |", flush=True)


def made(model: str, changes: dict[str, Any]) -> EndToEnd:
    """Return the network as it trains."""
    backbone = load_backbone(model, "random")
    scaling = Standardize(torch.zeros(backbone.dim), torch.ones(backbone.dim), CLIP)
    return EndToEnd([backbone.model], [scaling], LinearHead(backbone.dim, 1), **changes).train()


def kept(network: EndToEnd) -> int:
    """Return the bytes that the forward pass of an image keeps for the backward pass, weights apart."""
    weights = {one.untyped_storage().data_ptr() for one in network.parameters()}
    found: dict[int, Tensor] = {}  # held, so that no storage is freed and its address used again

    def keep(tensor: Tensor) -> Tensor:
        place = tensor.untyped_storage().data_ptr()
        if place not in weights:
            found[place] = tensor
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        network([torch.randn(1, 3, 224, 224)])
    return sum(tensor.untyped_storage().nbytes() for tensor in found.values())


if __name__ == "__main__":
    main()
