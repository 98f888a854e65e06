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

from mt.fuse.dvme.coordinates import Directions
from mt.fuse.dvme.logistic_starts import FoldStart
from mt.fuse.dvme.problem import DVMEProblem, Linear, NetworkShape, loss
from mt.fuse.dvme.recipes import RECIPES
from mt.fuse.dvme.training import Trainee, Training, shuffled

ROWS, DIMS, CLASSES, STEPS, TARGET = 20_000, (2048, 2048, 1536), 5, 60, 1.15


def main() -> None:
    """Print the two times and their ratio."""
    recipe = RECIPES["gentle"]
    rng = np.random.default_rng(0)
    X = [torch.from_numpy(rng.standard_normal((ROWS, dim), dtype=np.float32)) for dim in DIMS]
    y = rng.integers(0, CLASSES, ROWS)
    problem = DVMEProblem(X, y, None, NetworkShape(DIMS, CLASSES, "multiclass"), CLASSES, seed=0)
    none, start = np.zeros(0, dtype=np.int64), Linear(np.zeros((CLASSES, sum(DIMS))), np.zeros(CLASSES))
    fold = FoldStart(np.arange(ROWS), none, none, start)
    training = Training(problem, [Trainee(recipe, fold, recipe.epochs)], Directions.of(X, seed=0))
    labels, which = torch.from_numpy(y), torch.zeros(1, dtype=torch.int64)
    batches = (torch.from_numpy(batch)[None] for batch in shuffled(ROWS, recipe.batch, seed=0))
    first = next(batches)
    at_hand = training.inputs.take(which, first), labels[first]

    def passes(inputs: list[torch.Tensor], classes: torch.Tensor) -> None:
        training.networks.parameters.grad = None
        torch.autograd.backward(loss(training.networks.logits(inputs), classes, "multiclass").mean())

    def gathered(rows: torch.Tensor) -> tuple[list[torch.Tensor], torch.Tensor]:
        return training.inputs.take(which, rows), labels[rows]

    ours: list[float] = []
    bare: list[float] = []
    for _ in range(STEPS):
        bare.append(seconds(lambda: passes(*at_hand)))
        ours.append(seconds(lambda: passes(*gathered(next(batches)))))
    skip = STEPS // 10
    first_time, second_time = statistics.median(bare[skip:]), statistics.median(ours[skip:])
    print(f"forward and backward on tensors at hand  {1e3 * first_time:7.2f} ms")
    print(f"the same from cached embeddings          {1e3 * second_time:7.2f} ms")
    print(f"ratio {second_time / first_time:.3f}, must be at most {TARGET}")


def seconds(work: Callable[[], None]) -> float:
    """Return how long some work takes."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
