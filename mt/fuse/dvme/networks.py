"""DVME networks of one shape side by side: one matrix of parameters, one row per network, and products over all.

Inside, rows are the last dimension and attention is written for few models.  Products of 3 x 3 matrices, one per row
and head, take longer than all layers around them; sums over models, each over the rows of all networks, do not.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from mt.fuse.dvme.coordinates import Lens
from mt.fuse.dvme.module import DVME
from mt.fuse.dvme.problem import NetworkShape
from mt.fuse.dvme.recipes import Recipe
from mt.fuse.dvme.start import start_from_linear

# The parameters of query, key and value lie together, so that one product makes all three.
WEIGHTS, BIASES = ([f"attention.{part}.{kind}" for part in ("query", "key", "value")] for kind in ("weight", "bias"))
_FROM, _TO = 2, 3  # dimensions of attention (networks, heads, j, i, rows): model i takes from model j


def build(shape: NetworkShape, recipe: Recipe, start: tuple[Tensor, Tensor] | None, seed: int) -> DVME:
    """Return a recipe's network before its first step, in float64 on the CPU.

    It computes `start`, coefficients (outputs, sum of dims) and intercepts (outputs,), if the recipe starts from it; a
    linear classifier drawn at random if it starts at random.
    """
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)  # the other devices' generators draw nothing here
        model = DVME(
            shape.dims,
            shape.n_outputs,
            width=shape.width,
            heads=shape.heads,
            dropout=recipe.dropout,
            input_dropout=recipe.input_dropout,
            residual=recipe.residual,
            uniform=recipe.uniform,
        ).double()
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
        others = [name for name in shapes if name not in WEIGHTS + BIASES]
        self.shapes = {name: shapes[name] for name in others + WEIGHTS + BIASES}
        width = self.template.width
        self._layers: dict[str, tuple[int, ...]] = {name: shapes[name] for name in others}
        self._layers |= {"attention.inside.weight": (3 * width, width), "attention.inside.bias": (3 * width,)}
        rows = [torch.cat([model.get_parameter(name).detach().flatten() for name in self.shapes]) for model in models]
        self.parameters = torch.stack(rows).to(device, torch.float32).requires_grad_()

    def keep(self, which: Tensor) -> None:
        """Keep only some of the networks."""
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

        which: the networks, if not all.  noise: draws the entries of the tokens to drop; None drops none.
        """
        form, width = self.template, self.template.width
        p = _split(self.parameters if which is None else self.parameters[which], self._layers)
        tokens = torch.stack(
            [
                _linear(x.transpose(1, 2), p[f"projections.{number}.weight"], p[f"projections.{number}.bias"])
                for number, x in enumerate(X)
            ],
            dim=2,
        )
        networks, _, models, rows = tokens.shape
        flat = tokens.view(networks, width, models * rows)
        inside = _linear(flat, p["attention.inside.weight"], p["attention.inside.bias"])
        heads = inside.view(networks, 3, form.attention.heads, -1, models, rows)
        attended = (_uniform(heads) if form.attention.uniform else attend(heads)).reshape(flat.shape)
        attended = _linear(attended, p["attention.out.weight"], p["attention.out.bias"])
        if form.residual:
            attended = flat + attended
        hidden = attended.view(tokens.shape).transpose(1, 2).reshape(networks, models * width, rows)
        if noise is not None and form.dropout.p:
            drawn = torch.rand(hidden.shape[1:], generator=noise).to(hidden.device)
            hidden = hidden * (drawn >= form.dropout.p) / (1 - form.dropout.p)
        fused = _linear(hidden, p["fusion.weight"], p["fusion.bias"])
        return _linear(fused, p["head.weight"], p["head.bias"]).transpose(1, 2)


def _split(parameters: Tensor, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Tensor]:
    """Return the parameters (networks, numbers) by name, each (networks, ...)."""
    parts = torch.split(parameters, [math.prod(shape) for shape in shapes.values()], dim=1)
    return {name: part.view(len(part), *shape) for (name, shape), part in zip(shapes.items(), parts, strict=True)}


def _linear(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Return W x + b for each network: x (networks, in, rows), weight (networks, out, in), bias (networks, out)."""
    return torch.baddbmm(bias[..., None], weight, x)


def attend(parts: Tensor) -> Tensor:
    """Return what each model takes from all (networks, heads, d, models, rows).

    parts: query, key and value as (networks, 3, heads, d, models, rows).
    """
    found: Tensor = _Attention.apply(parts)
    return found


def _uniform(parts: Tensor) -> Tensor:
    """Return the result of `attend` if every model attends uniformly: the mean value."""
    value = parts[:, 2]
    return value.mean(dim=3, keepdim=True).expand_as(value)


class _Attention(torch.autograd.Function):
    """Attention over models, its gradient written out; g is the gradient of what it returns, o.

    A_ij = softmax_j(q_i . k_j / sqrt(d)),    o_i = sum_j A_ij v_j,    dv_j = sum_i A_ij g_i
    dS_ij = A_ij (g_i . v_j - sum_l A_il g_i . v_l) / sqrt(d),    dq_i = sum_j dS_ij k_j,    dk_j = sum_i dS_ij q_i
    """

    @staticmethod
    def forward(ctx: Any, parts: Tensor) -> Tensor:
        query, key, value = parts.unbind(1)
        attention = torch.softmax(_products(query, key) / math.sqrt(query.shape[2]), dim=_FROM)
        ctx.save_for_backward(parts, attention)
        return _mixed(attention, value, _FROM)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        parts, attention = ctx.saved_tensors
        query, key, value = parts.unbind(1)
        slope = attention * _products(gradient, value)
        slope = (slope - attention * slope.sum(dim=_FROM, keepdim=True)) / math.sqrt(query.shape[2])
        found = _mixed(slope, key, _FROM), _mixed(slope, query, _TO), _mixed(attention, gradient, _TO)
        return torch.stack(found, dim=1)


def _products(x: Tensor, y: Tensor) -> Tensor:
    """Return the inner products (networks, heads, j, i, rows) of x_i and y_j (networks, heads, d, models, rows)."""
    models = y.shape[3]
    return torch.stack([(x * y[..., number : number + 1, :]).sum(dim=2) for number in range(models)], dim=_FROM)


def _mixed(weights: Tensor, x: Tensor, along: int) -> Tensor:
    """Return the sums (networks, heads, d, models, rows) of x weighted, over one of the weights' models."""
    first, *others = [
        (weights.select(along, number)[:, :, None], x[..., number : number + 1, :]) for number in range(x.shape[3])
    ]
    total = first[0] * first[1]
    for weight, one in others:
        total.addcmul_(weight, one)
    return total
