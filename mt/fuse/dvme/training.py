"""Training a DVME on embeddings that lie in memory as tensors: no loader, a step gathers its rows and goes on."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from mt.fuse.dvme.module import DVME
from mt.fuse.dvme.recipes import Recipe
from mt.fuse.dvme.start import start_from_linear

EPOCH_STEPS = 10, 100  # an epoch is one pass over the rows, but at least and at most so many steps
WARMUP = 0.1  # of all steps, in which the learning rate rises
Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Linear:
    """A linear classifier on the concatenated inputs: coef (outputs, sum of dims), intercept (outputs,)."""

    coef: Array
    intercept: Array


@dataclass(frozen=True)
class NetworkShape:
    """What a network is built for: the models' widths, its outputs, the task, tokens' width and heads."""

    dims: tuple[int, ...]
    n_outputs: int
    task: str
    width: int = 512
    heads: int = 8


@dataclass(frozen=True)
class StandardRows:
    """Standardised embeddings, one tensor (n, d_m) a model; labels y (n,) int64, or (n, L) for multilabel."""

    X: list[Tensor]
    y: Tensor

    def take(self, rows: Array | Tensor) -> StandardRows:
        index = torch.as_tensor(rows, device=self.y.device)
        return StandardRows([x[index] for x in self.X], self.y[index])

    def __len__(self) -> int:
        return len(self.y)


def build(shape: NetworkShape, recipe: Recipe, linear: Linear | None, seed: int) -> DVME:
    """Return a recipe's network before its first step, in float64.

    It computes `linear` where the recipe starts from it, a linear classifier drawn at random where it starts at random.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = DVME(
            shape.dims, shape.n_outputs, width=shape.width, heads=shape.heads, dropout=recipe.dropout,
            input_dropout=recipe.input_dropout, residual=recipe.residual, uniform=recipe.uniform,
        ).double()  # fmt: skip
        drawn = nn.Linear(sum(shape.dims), shape.n_outputs).double()
    if recipe.start == "random":
        start_from_linear(model, drawn.weight, drawn.bias)
    elif recipe.start == "logistic" and linear is not None:
        start_from_linear(model, torch.from_numpy(linear.coef), torch.from_numpy(linear.intercept))
    return model.eval()


def train(
    model: DVME, rows: StandardRows, recipe: Recipe, task: str, *, seed: int, epochs: int | None = None,
    class_weight: Tensor | None = None, go_on: Callable[[], bool] | None = None,
) -> None:  # fmt: skip
    """Train in place, in float32 on the device of `rows`, for `epochs` of the recipe's schedule (all of it by default).

    `go_on` is asked after every epoch, the model in eval mode.
    """
    epochs = recipe.epochs if epochs is None else epochs
    if not epochs:
        return
    model.to(rows.y.device, torch.float32)
    steps = min(max(batches_of(len(rows), recipe.batch), EPOCH_STEPS[0]), EPOCH_STEPS[1])
    step = Stepper(model, recipe, task, steps * recipe.epochs, class_weight)
    batches = shuffled(len(rows), recipe.batch, seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for _ in range(epochs):
            model.train()
            for _ in range(steps):
                step(rows.take(next(batches)))
            model.eval()
            if go_on and not go_on():
                return


class Stepper:
    """Forward, backward, AdamW with warm-up and cosine, and the decay towards where the training began."""

    def __init__(self, model: DVME, recipe: Recipe, task: str, n_steps: int, class_weight: Tensor | None) -> None:
        self.model, self.recipe, self.task, self.class_weight = model, recipe, task, class_weight
        self.parameters: list[Tensor] = list(model.parameters())
        self.began = [parameter.detach().clone() for parameter in self.parameters]
        if recipe.start != "logistic":
            self.began = [torch.zeros_like(parameter) for parameter in self.parameters]
        self.optimizer = torch.optim.AdamW(self.parameters, lr=recipe.learning_rate, weight_decay=0.0, fused=True)
        self.n_steps, self.done = n_steps, 0

    def __call__(self, batch: StandardRows) -> None:
        rate = self.recipe.learning_rate * schedule(self.done, self.n_steps)
        self.optimizer.param_groups[0]["lr"] = rate
        self.optimizer.zero_grad()
        torch.autograd.backward(loss(self.model(batch.X), batch.y, self.task, self.class_weight).mean())
        nn.utils.clip_grad_norm_(self.parameters, 1.0)
        self.optimizer.step()
        with torch.no_grad():
            torch._foreach_lerp_(self.parameters, self.began, rate * self.recipe.decay)
        self.done += 1


def schedule(step: int, n_steps: int) -> float:
    """Return the share of the learning rate: a linear warm-up, then a half cosine to zero."""
    rise = min(1.0, (step + 1) / max(1.0, WARMUP * n_steps))
    return rise * 0.5 * (1 + math.cos(math.pi * step / n_steps))


def batches_of(n: int, batch: int) -> int:
    """Return how many batches of about `batch` rows one pass over n rows takes."""
    return max(1, round(n / batch))


def shuffled(n: int, batch: int, seed: int) -> Iterator[Array]:
    """Yield the rows of batches for ever, pass after pass in a new order; the batches of a pass are equally large."""
    rng = np.random.default_rng(seed)
    while True:
        yield from np.array_split(rng.permutation(n), batches_of(n, batch))


def loss(logits: Tensor, y: Tensor, task: str, class_weight: Tensor | None = None) -> Tensor:
    """Return the log loss of each row (n,); multilabel: the mean over labels.

    One logit is the log-odds of class 1, several are a softmax, or one sigmoid a label.  `class_weight` holds a weight
    a class; for multilabel one a positive.
    """
    if task == "multilabel":
        weighted = nn.functional.binary_cross_entropy_with_logits(
            logits, y.to(logits.dtype), pos_weight=class_weight, reduction="none"
        )
        return weighted.mean(dim=1)
    if logits.shape[1] == 1:
        logits = torch.cat([torch.zeros_like(logits), logits], dim=1)
    return nn.functional.cross_entropy(logits, y, reduction="none") * (
        1 if class_weight is None else class_weight.to(logits.dtype)[y]
    )


@torch.no_grad()
def predict(model: DVME, X: Sequence[Tensor], block: int = 4096) -> tuple[Tensor, Tensor]:
    """Return logits (n, outputs) and the attention each model receives (n, M): the mean over heads and tokens."""
    logits, received = [], []
    dtype = next(model.parameters()).dtype
    for start in range(0, len(X[0]), block):
        out, attention = model.with_attention([x[start : start + block].to(dtype) for x in X])
        logits.append(out)
        received.append(attention.mean(dim=(1, 2)))
    return torch.cat(logits), torch.cat(received)
