"""What a training step of DVME on cached embeddings reaches of the bare forward and backward pass.

    python benchmarks/fuse_step.py

Must reach: 0.95 of the speed of the same forward and backward pass on a batch already at hand.  The plain PyTorch
module, which predicts, is timed too, and reported.  All take turns, so that other work on the machine falls on each;
the ratios are of the medians of CPU seconds, which other work changes least.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import numpy as np
import torch
from torch import nn

from mt.fuse.dvme.coordinates import Directions
from mt.fuse.dvme.logistic_starts import FoldStart
from mt.fuse.dvme.module import DVME
from mt.fuse.dvme.problem import DVMEProblem, Linear, NetworkShape, loss
from mt.fuse.dvme.recipes import RECIPES
from mt.fuse.dvme.training import Trainee, Training, shuffled

ROWS, DIMS, CLASSES, STEPS, TARGET = 20_000, (2048, 2048, 1536), 5, 60, 0.95


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

    module = DVME(DIMS, CLASSES, input_dropout=0.0)

    def plain() -> None:
        module.zero_grad()
        torch.autograd.backward(nn.functional.cross_entropy(module([x[0] for x in at_hand[0]]), at_hand[1][0]))

    works = {
        "from cached embeddings": lambda: passes(*gathered(next(batches))),
        "on tensors at hand": lambda: passes(*at_hand),
        "plain module, on tensors at hand": plain,
    }
    taken: dict[str, list[float]] = {name: [] for name in works}
    for _ in range(STEPS):
        for name, work in works.items():
            taken[name].append(seconds(work))
    medians = {name: statistics.median(found[STEPS // 10 :]) for name, found in taken.items()}
    ours = medians["from cached embeddings"]
    for name, found in medians.items():
        print(f"forward and backward {name:34} {1e3 * found:7.2f} ms  ratio {found / ours:.3f}")
    print(f"the ratio on tensors at hand must be at least {TARGET}")


def seconds(work: Callable[[], None]) -> float:
    """Return the CPU seconds of some work, of all threads."""
    start = time.process_time()
    work()
    return time.process_time() - start


if __name__ == "__main__":
    main()
