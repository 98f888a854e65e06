"""End-to-end training against the bare forward and backward pass of the same network on tensors in memory.

    python -m benchmarks unfreeze

Must reach: at least 0.9 times the images per second of the bare loop, for ResNet-50 at 224 pixels in batches of 8.
Ours takes decoded images from memory, augments and normalises them, runs forward and backward passes, clips the
gradients and steps AdamW.  The bare loop computes forward, loss and backward.  The two take turns, so that other work
on the machine slows both; the ratio is that of the medians.  `efficientnet-lite0` on small images shows what depthwise
convolutions tap by tap bring (`mt.fuse.end_to_end.trainable.depthwise`): the bare loop has torch's.
"""

from __future__ import annotations

import statistics
from pathlib import Path

import numpy as np
import torch

from benchmarks._pairs import machine, row, seconds
from mt.backbones import load_backbone
from mt.datasets import load_dataset
from mt.fuse.dvme.problem import loss
from mt.fuse.end_to_end.augment import AUGMENTATIONS
from mt.fuse.end_to_end.checkpoint import Checkpoints
from mt.fuse.end_to_end.images import Images
from mt.fuse.end_to_end.loop import Kept, Run
from mt.fuse.end_to_end.network import EndToEnd, LinearHead, Standardize
from mt.fuse.end_to_end.request import Machine, Settings
from mt.fuse.end_to_end.trainable.families import CandidateRates
from mt.fuse.end_to_end.work import Part, Work
from mt.probe.methods.linear import CLIP
from mt.system.ranks import Ranks

BACKBONE, BATCH, STEPS, ROUNDS, TARGET = "supervised", 8, 6, 5, 0.9
DEPTHWISE = "efficientnet-lite0"


def main() -> None:
    """Print the ratio for both augmentations, flips with right angles and mild rotations, and for small images."""
    print(f"{BACKBONE} (random weights), batch {BATCH}, {torch.get_num_threads()} threads, {machine()}")
    for augment in ("right-angles", "mild"):
        bare, ours = times(augment)
        note = f"{BATCH * STEPS / bare:.2f} and {BATCH * STEPS / ours:.2f} images/s"
        row(f"end to end / bare loop, augmentation {augment}", bare / ours, reach=f">= {TARGET}", note=note)
    name, batch = DEPTHWISE, 32
    for pixels in (32, 64, 96):
        bare, ours = times("right-angles", backbone=name, batch=batch, pixels=pixels)
        note = f"{batch * STEPS / bare:.0f} and {batch * STEPS / ours:.0f} images/s, batch {batch}"
        row(f"{name}, {pixels} pixels: end to end / bare loop", bare / ours, reach="> 1", note=note)


def times(
    augment: str,
    *,
    backbone: str = BACKBONE,
    device: str = "cpu",
    precision: str = "float32",
    batch: int = BATCH,
    lora: int | None = None,
    pixels: int | None = None,
) -> tuple[float, float]:
    """Return the median seconds of an epoch of STEPS steps, of the bare loop and of ours."""
    where = torch.device(device)
    loaded = load_backbone(backbone, "random", device=where, image_size=pixels)
    dataset = load_dataset(f"synthetic@{batch * STEPS}")
    split = dataset.splits["train"]
    settings = Settings(batch=batch, precision=precision)
    work = Work(
        Images(dataset, split.ids, [loaded.preprocess], memory=1 << 30),
        AUGMENTATIONS[augment],
        settings,
        Machine(batch_size=batch),
        where,
        Ranks(),
        2,
        "binary",
        2,
        seed=0,
    )
    dim = loaded.dim
    scaling = Standardize(torch.zeros(dim), torch.ones(dim), CLIP)
    network = EndToEnd([loaded.model], [scaling], LinearHead(dim, 1), lora=lora).to(where)
    part, candidate = Part(np.arange(len(split)), split.labels), CandidateRates(1e-5, (1e-5,), (1.0,))
    run = Run(network, work, part, candidate, epochs=ROUNDS + 1)
    kept = Kept(Checkpoints(Path("unused")), work)  # an epoch ends before the first checkpoint is due
    images = work.inputs(work.images.pixels(np.arange(batch)), None)
    y = torch.from_numpy(split.labels[:batch]).to(where)

    def passes() -> None:
        network.train()
        for _ in range(STEPS):
            network.zero_grad()
            with work.autocast():
                value = loss(network(images), y, "binary").mean()
            torch.autograd.backward(value)
        if where.type == "cuda":
            torch.cuda.synchronize(where)

    passes()
    run.train_epoch(kept)
    both = [(seconds(passes), seconds(lambda: run.train_epoch(kept))) for _ in range(ROUNDS)]
    bare, ours = (statistics.median(values) for values in zip(*both, strict=True))
    return bare, ours


if __name__ == "__main__":
    main()
