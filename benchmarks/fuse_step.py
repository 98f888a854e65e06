"""What gathering a batch from cached embeddings adds to a training step of DVME.

    python benchmarks/fuse_step.py

Must reach: a step over cached embeddings takes at most 1.15 times the same forward and backward pass on tensors already
at hand.  Both are timed in turns, so that other work on the machine falls on both; the ratio is of the medians.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import numpy as np
import torch

from mt.fuse.dvme.recipes import RECIPES
from mt.fuse.dvme.training import NetworkShape, StandardRows, build, loss, shuffled

ROWS, DIMS, CLASSES, STEPS, TARGET = 20_000, (2048, 2048, 1536), 5, 60, 1.15


def main() -> None:
    """Print the two times and their ratio."""
    recipe = RECIPES["gentle"]
    rng = np.random.default_rng(0)
    rows = StandardRows(
        [torch.from_numpy(rng.standard_normal((ROWS, dim), dtype=np.float32)) for dim in DIMS],
        torch.from_numpy(rng.integers(0, CLASSES, ROWS)),
    )
    model = build(NetworkShape(DIMS, CLASSES, "multiclass"), recipe, None, seed=0).float().train()
    batches = shuffled(ROWS, recipe.batch, seed=0)
    at_hand = rows.take(next(batches))

    def passes(batch: StandardRows) -> None:
        model.zero_grad()
        torch.autograd.backward(loss(model(batch.X), batch.y, "multiclass").mean())

    ours: list[float] = []
    bare: list[float] = []
    for _ in range(STEPS):
        bare.append(seconds(lambda: passes(at_hand)))
        ours.append(seconds(lambda: passes(rows.take(next(batches)))))
    skip = STEPS // 10
    first, second = statistics.median(bare[skip:]), statistics.median(ours[skip:])
    print(f"forward and backward on tensors at hand  {1e3 * first:7.2f} ms")
    print(f"the same from cached embeddings          {1e3 * second:7.2f} ms")
    print(f"ratio {second / first:.3f}, must be at most {TARGET}")


def seconds(work: Callable[[], None]) -> float:
    """Return how long some work takes."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
