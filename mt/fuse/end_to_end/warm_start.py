"""The warm start: the cached stage, fitted on a budget's embeddings, and the end-to-end network that begins as it."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
from torch import nn

from mt.errors import InputError
from mt.fuse.dvme.fit import DVMEOptions, FittedDVME, fit_dvme
from mt.fuse.dvme.module import DVME
from mt.fuse.dvme.recipes import CHOICES, recipes_of
from mt.fuse.end_to_end.network import EndToEnd, LinearHead, scalings_of
from mt.fuse.end_to_end.request import Settings
from mt.types import Array, LabelledRows

Budget = LabelledRows[tuple[Array, ...]]  # one embedding matrix (n, d_m) per model
RECIPES = {"one": ("start",), "several": CHOICES["dvme"]}  # one model: logistic regression; else as the row `dvme`


def recipe_names(n_models: int) -> tuple[str, ...]:
    """Return the recipes that the cached stage chooses among."""
    return RECIPES["one" if n_models == 1 else "several"]


def cached_stage(budget: Budget, task: str, n_classes: int, *, seed: int, device: str) -> FittedDVME:
    """Fit the cached stage on a budget: DVME on several models; on one, logistic regression on the same inputs."""
    return fit_dvme(
        budget.X,
        budget.y,
        task=task,
        n_classes=n_classes,
        groups=budget.groups,
        options=DVMEOptions(recipes_of(recipe_names(len(budget.X)))),
        seed=seed,
        device=device,
    )


def network_from(fitted: FittedDVME, backbones: Sequence[nn.Module], settings: Settings, *, seed: int = 0) -> EndToEnd:
    """Return the network that computes what that of `fitted` does, from images; the backbones are copied.

    If `fitted` chose `blend`, the network is the logistic regression, or what is mixed with blend.
    The seed draws the adapters, if there are any.
    """
    if fitted.model is None:
        raise InputError("A budget of one class trains no network.")
    head = copy.deepcopy(fitted.model).float()
    return EndToEnd(
        [copy.deepcopy(backbone) for backbone in backbones],
        scalings_of(fitted.inputs),
        head if len(backbones) > 1 else linear_of(fitted.model),
        last=settings.last,
        lora=settings.lora,
        seed=seed,
        train_batch_norm=settings.train_batch_norm,
    ).to(memory_format=torch.channels_last)


@torch.no_grad()
def linear_of(model: DVME) -> LinearHead:
    """Return the linear layer that a DVME on one model computes: one token attends only to itself."""
    (dim,) = model.dims
    model = copy.deepcopy(model).double().eval()
    intercept = model([torch.zeros(1, dim, dtype=torch.float64)])
    head = LinearHead(dim, model.n_outputs).double()
    head.linear.weight.copy_((model([torch.eye(dim, dtype=torch.float64)]) - intercept).T)
    head.linear.bias.copy_(intercept[0])
    return head.float()
