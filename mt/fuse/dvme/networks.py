"""DVME networks of one shape side by side: one matrix of parameters, one row per network, and products over all."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from mt.fuse.dvme.coordinates import Lens
from mt.fuse.dvme.module import DVME
from mt.fuse.dvme.problem import NetworkShape
from mt.fuse.dvme.recipes import Recipe
from mt.fuse.dvme.start import start_from_linear


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
        self.shapes = {name: value.shape for name, value in self.template.named_parameters()}
        rows = [torch.cat([value.detach().flatten() for value in model.parameters()]) for model in models]
        self.parameters = torch.stack(rows).to(device, torch.float32).requires_grad_()

    def keep(self, which: Tensor) -> None:
        """Go on with some of the networks."""
        self.parameters = self.parameters.detach()[which].requires_grad_()

    def model(self, network: int, shape: NetworkShape, recipe: Recipe, lens: Lens) -> DVME:
        """Return one network as a module on the features, in float64 on the CPU."""
        values = self._named(self.parameters.detach()[network : network + 1].cpu().double())
        made = build(shape, recipe, None, seed=0)
        state = {name: value[0] for name, value in values.items()}
        for number in range(len(shape.dims)):
            axes, name = lens.axes(number), f"projections.{number}.weight"
            if axes is not None:
                state[name] = state[name] @ axes.cpu().T
        made.load_state_dict(state)
        return made

    def logits(self, X: Sequence[Tensor], which: Tensor | None = None) -> Tensor:
        """Return logits (networks, rows, outputs) of inputs (networks, rows, c_m), one tensor per model.

        which: the networks, if not all.
        """
        p = self._named(self.parameters if which is None else self.parameters[which])
        form = self.template
        tokens = torch.stack([
            _linear(x, p[f"projections.{number}.weight"], p[f"projections.{number}.bias"])
            for number, x in enumerate(X)
        ], dim=2)  # fmt: skip
        networks, rows, models, width = tokens.shape
        flat = tokens.reshape(networks, rows * models, width)

        def heads(part: str) -> Tensor:
            found = _linear(flat, p[f"attention.{part}.weight"], p[f"attention.{part}.bias"])
            return found.view(networks, rows, models, form.attention.heads, -1).transpose(2, 3)

        query, key, value = heads("query"), heads("key"), heads("value")
        scores = query @ key.transpose(-2, -1) / math.sqrt(query.shape[-1])
        attention = torch.softmax(torch.zeros_like(scores) if form.attention.uniform else scores, dim=-1)
        attended = (attention @ value).transpose(2, 3).reshape(networks, rows * models, width)
        attended = _linear(attended, p["attention.out.weight"], p["attention.out.bias"])
        if form.residual:
            attended = flat + attended
        hidden = attended.reshape(networks, rows, models * width)
        hidden = nn.functional.dropout(hidden, form.dropout.p, training=torch.is_grad_enabled())
        fused = _linear(hidden, p["fusion.weight"], p["fusion.bias"])
        return _linear(fused, p["head.weight"], p["head.bias"])

    def _named(self, parameters: Tensor) -> dict[str, Tensor]:
        """Return the parameters by name, each (networks, ...)."""
        parts = torch.split(parameters, [shape.numel() for shape in self.shapes.values()], dim=1)
        return {
            name: part.view(len(part), *shape)
            for (name, shape), part in zip(self.shapes.items(), parts, strict=True)
        }


def _linear(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Return x W' + b for each network: x (networks, rows, in), weight (networks, out, in), bias (networks, out)."""
    return torch.baddbmm(bias[:, None], x, weight.transpose(1, 2))
