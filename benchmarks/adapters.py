"""Memory of a training step, and size of a checkpoint, of large transformers: all weights, the last blocks, adapters.

    python -m benchmarks adapters

Random weights, 224 pixels, batches of 8 in float32 on the CPU; each in a process of its own, whose peak memory is
shown less that of its imports.  Mixed precision on a GPU halves the activations, not weights and optimizer state.
"""

from __future__ import annotations

import resource
import subprocess
import sys
from pathlib import Path

import numpy as np
import torch

from benchmarks._pairs import machine
from mt.backbones import load_backbone
from mt.datasets import load_dataset
from mt.fuse.end_to_end.augment import AUGMENTATIONS
from mt.fuse.end_to_end.checkpoint import Checkpoints
from mt.fuse.end_to_end.images import Images
from mt.fuse.end_to_end.loop import Kept, Run
from mt.fuse.end_to_end.network import EndToEnd, LinearHead, Standardize
from mt.fuse.end_to_end.request import Machine, Settings
from mt.fuse.end_to_end.trainable.families import candidates
from mt.fuse.end_to_end.work import Part, Work
from mt.probe.methods.linear import CLIP
from mt.system.ranks import Ranks

MODELS = ("timm:vit_base_patch16_224", "timm:vit_large_patch16_224")
BATCH, GIB = 8, 2**30
WAYS = {
    "all weights": {},
    "`--unfreeze-last 2`": {"last": 2},
    "`--lora 8`": {"lora": 8},
    "`--lora 8 --checkpoint-grad`": {"lora": 8, "checkpoint_grad": True},
}


def main() -> None:
    """Print one row per model and way to train."""
    print(f"{machine()}, batch {BATCH}\n\n| model | trains | parameters | checkpoint | memory |\n|---|---|---|---|---|")
    for model in MODELS:
        for way in WAYS:
            done = subprocess.run(
                [sys.executable, "-m", "benchmarks.adapters", model, way], capture_output=True, text=True, check=True
            )
            parameters, checkpoint, memory = map(float, done.stdout.split()[-3:])
            numbers = f"{parameters / 1e6:.1f} M | {checkpoint / 1e6:,.0f} MB | {memory / GIB:.1f} GiB"
            print(f"| `{model}` | {way} | {numbers} |", flush=True)


def steps(model: str, way: str) -> tuple[int, int, int]:
    """Train two steps; return the trained parameters, the bytes of a checkpoint, and those of training at its peak."""
    before = _peak()
    changes = dict(WAYS[way])
    machine = Machine(batch_size=BATCH, checkpoint_grad=bool(changes.pop("checkpoint_grad", False)))
    settings = Settings(batch=BATCH, **changes)  # type: ignore[arg-type]
    backbone = load_backbone(model, "random")
    split = load_dataset(f"synthetic@{BATCH}").splits["train"]
    images = Images(load_dataset(f"synthetic@{BATCH}"), split.ids, [backbone.preprocess], memory=GIB)
    work = Work(images, AUGMENTATIONS["none"], settings, machine, torch.device("cpu"), Ranks(), 1, "binary", 2, seed=0)
    scaling = Standardize(torch.zeros(backbone.dim), torch.ones(backbone.dim), CLIP)
    head = LinearHead(backbone.dim, 1)
    network = EndToEnd([backbone.model], [scaling], head, last=settings.last, lora=settings.lora)
    (candidate, *_) = candidates([backbone.model], adapters=settings.lora is not None)
    run = Run(network, work, Part(np.arange(BATCH), split.labels[:BATCH]), candidate, epochs=2)
    for _ in range(2):  # the optimizer's state is there in the second
        run.train_epoch(Kept(Checkpoints(Path("unused")), work))
    size = sum(tensor.nbytes for tensor in run.state().values())
    return sum(parameter.numel() for parameter in run.parameters), size, _peak() - before


def _peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


if __name__ == "__main__":
    print(*steps(*sys.argv[1:])) if len(sys.argv) > 1 else main()
