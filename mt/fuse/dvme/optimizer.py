"""AdamW for networks side by side, with weight decay towards the weights at the start of training."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from mt.fuse.dvme.networks import Networks
from mt.fuse.dvme.recipes import Recipe

WARMUP = 0.1  # of all steps, in which the learning rate rises
BETAS, EPSILON, MOST_NORM = (0.9, 0.999), 1e-8, 1.0  # Adam's; gradients are clipped at this length per network


class AdamWToStart:
    """AdamW with warm-up and cosine, one rate per network, and weights that decay towards their initial values.

    A logistic start decays towards itself (L2-SP, Li et al., ICML 2018), every other start towards zero as usual.
    """

    def __init__(
        self, networks: Networks, recipes: Sequence[Recipe], epoch_steps: int, faster: Sequence[float]
    ) -> None:
        self.networks = networks
        values = networks.parameters.detach()
        self.mean, self.square = torch.zeros_like(values), torch.zeros_like(values)
        logistic = torch.tensor([[recipe.start == "logistic"] for recipe in recipes], device=values.device)
        self.began = torch.where(logistic, values, 0.0)
        steps = epoch_steps * max(recipe.epochs for recipe in recipes)
        rates = [
            [recipe.learning_rate * schedule(step, epoch_steps * recipe.epochs) for recipe in recipes]
            for step in range(steps)
        ]
        self.rates = torch.tensor(rates, dtype=values.dtype, device=values.device)[..., None]
        self.decay = torch.tensor([[recipe.decay] for recipe in recipes], dtype=values.dtype, device=values.device)
        self.faster = self._factors(faster)
        self.done = 0

    def _factors(self, faster: Sequence[float]) -> Tensor | None:
        """Return the factor of each number's rate (numbers,): the projections' weights have their own."""
        if all(factor == 1 for factor in faster):
            return None
        values = self.networks.parameters
        by_name = {f"projections.{number}.weight": factor for number, factor in enumerate(faster)}
        parts = [torch.full((shape.numel(),), by_name.get(name, 1.0)) for name, shape in self.networks.shapes.items()]
        return torch.cat(parts).to(values.device, values.dtype)

    def keep(self, which: Tensor) -> None:
        """Keep only some of the networks."""
        self.mean, self.square, self.began = self.mean[which], self.square[which], self.began[which]
        self.rates, self.decay = self.rates[:, which], self.decay[which]

    @torch.no_grad()
    def step(self) -> None:
        """Take a step along the gradients of `networks.parameters`, and forget them."""
        values, gradient = self.networks.parameters, self.networks.parameters.grad
        assert gradient is not None
        rate = self.rates[self.done]
        self.done += 1
        gradient *= (MOST_NORM / (gradient.norm(dim=1, keepdim=True) + 1e-6)).clamp(max=1.0)
        self.mean.lerp_(gradient, 1 - BETAS[0])
        self.square.mul_(BETAS[1]).addcmul_(gradient, gradient, value=1 - BETAS[1])
        size = (self.square / (1 - BETAS[1] ** self.done)).sqrt_().add_(EPSILON)
        move = (self.mean / size).mul_(rate / (1 - BETAS[0] ** self.done))
        if self.faster is not None:
            move *= self.faster
        values -= move
        values.lerp_(self.began, rate * self.decay)
        self.networks.parameters.grad = None


def schedule(step: int, n_steps: int) -> float:
    """Return the share of the learning rate: a linear warm-up, then a half cosine to zero."""
    rise = min(1.0, (step + 1) / max(1.0, WARMUP * n_steps))
    return rise * 0.5 * (1 + math.cos(math.pi * step / n_steps))
