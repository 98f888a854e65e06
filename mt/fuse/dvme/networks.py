"""DVME networks of one shape side by side: one matrix of parameters, one row per network, and products over all."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from mt.fuse.dvme.coordinates import Lens
from mt.fuse.dvme.module import DVME
from mt.fuse.dvme.problem import NetworkShape
from mt.fuse.dvme.recipes import Recipe
from mt.fuse.dvme.side_by_side import attend
from mt.fuse.dvme.start import start_from_linear

INSIDE = re.compile(r"attention\.(query|key|value)\.")


def build(shape: NetworkShape, recipe: Recipe, start: tuple[Tensor, Tensor] | None, seed: int) -> DVME:
    """Return a recipe's network before its first step, in float64 on the CPU.

    It computes `start`, coefficients (outputs, sum of dims) and intercepts (outputs,), if the recipe starts from it; a
    linear classifier drawn at random if it starts at random.
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
    elif recipe.start == "logistic" and start is not None:
        start_from_linear(model, *start)
    return model.eval()


class Networks:
    """Networks of one shape and form; `parameters` (networks, numbers) float32."""

    def __init__(self, models: Sequence[DVME], device: torch.device) -> None:
        self.template = models[0]
        shapes = {name: value.shape for name, value in self.template.named_parameters()}
        inside = [f"attention.{part}.{kind}" for kind in ("weight", "bias") for part in ("query", "key", "value")]
        self.shapes = {name: shapes[name] for name in [*(name for name in shapes if name not in inside), *inside]}
        rows = [torch.cat([model.get_parameter(name).detach().flatten() for name in self.shapes]) for model in models]
        self.parameters = torch.stack(rows).to(device, torch.float32).requires_grad_()

    def keep(self, which: Tensor) -> None:
        """Go on with some of the networks."""
        self.parameters = self.parameters.detach()[which].requires_grad_()

    def model(self, network: int, shape: NetworkShape, recipe: Recipe, lens: Lens) -> DVME:
        """Return one network as a module on the features, in float64 on the CPU."""
        values = _split(self.parameters.detach()[network : network + 1].cpu().double(), self.shapes)
        made = build(shape, recipe, None, seed=0)
        state = {name: value[0] for name, value in values.items()}
        for number in range(len(shape.dims)):
            axes, name = lens.axes(number), f"projections.{number}.weight"
            if axes is not None:
                state[name] = state[name] @ axes.cpu().T
        made.load_state_dict(state)
        return made

    def logits(
        self, X: Sequence[Tensor], which: Tensor | None = None, *, noise: torch.Generator | None = None
    ) -> Tensor:
        """Return logits (networks, rows, outputs) of inputs (networks, rows, c_m), one tensor per model.

        which: the networks, if not all.  noise: draws what is dropped of the tokens; without it nothing is.
        Inside, rows are the last dimension.
        """
        form, width = self.template, self.template.width
        p = _split(self.parameters if which is None else self.parameters[which], self._layers)
        tokens = torch.stack([
            _linear(x.transpose(1, 2), p[f"projections.{number}.weight"], p[f"projections.{number}.bias"])
            for number, x in enumerate(X)
        ], dim=2)  # fmt: skip
        networks, _, models, rows = tokens.shape
        flat = tokens.view(networks, width, models * rows)
        inside = _linear(flat, p["attention.inside.weight"], p["attention.inside.bias"])
        heads = inside.view(networks, 3, form.attention.heads, -1, models, rows)
        if form.attention.uniform:
            attended = heads[:, 2].mean(dim=3, keepdim=True).expand_as(heads[:, 2]).reshape(flat.shape)
        else:
            attended = attend(heads).view(flat.shape)
        attended = _linear(attended, p["attention.out.weight"], p["attention.out.bias"])
        if form.residual:
            attended = flat + attended
        hidden = attended.view(tokens.shape).transpose(1, 2).reshape(networks, models * width, rows)
        if noise is not None and form.dropout.p:
            drawn = torch.rand(hidden.shape[1:], generator=noise).to(hidden.device)
            hidden = hidden * (drawn >= form.dropout.p) / (1 - form.dropout.p)
        fused = _linear(hidden, p["fusion.weight"], p["fusion.bias"])
        return _linear(fused, p["head.weight"], p["head.bias"]).transpose(1, 2)

    @property
    def _layers(self) -> dict[str, tuple[int, ...]]:
        """The parameters' shapes, with query, key and value as one layer: their products are one."""
        width = self.template.width
        apart = {name: shape for name, shape in self.shapes.items() if not INSIDE.match(name)}
        return {**apart, "attention.inside.weight": (3 * width, width), "attention.inside.bias": (3 * width,)}


def _split(parameters: Tensor, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Tensor]:
    """Return the parameters (networks, numbers) by name, each (networks, ...)."""
    parts = torch.split(parameters, [math.prod(shape) for shape in shapes.values()], dim=1)
    return {name: part.view(len(part), *shape) for (name, shape), part in zip(shapes.items(), parts, strict=True)}


def _linear(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Return W x + b for each network: x (networks, in, rows), weight (networks, out, in), bias (networks, out)."""
    return torch.baddbmm(bias[..., None], weight, x)
