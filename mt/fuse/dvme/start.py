"""The start: a DVME that, before its first step, computes a given linear classifier exactly.

Each model's token carries that model's share of the logits, its *vote* u_m = W_m x_m, in its first entries.
Attention starts uniform (keys are zero), so that every head passes on the mean vote; residual and mean add up to

    sum_i (u_i + 1/M sum_j u_j) = 2 sum_j u_j,

which the head halves and shifts by b.  Then attention can learn which model's vote to trust for which image, from the
tokens' other entries, a random projection of the embedding.  A random start, too, is the votes of a random classifier:
with the usual initialisation, the layers around the attention learn to ignore it.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from mt.errors import InputError
from mt.fuse.dvme.module import DVME


@torch.no_grad()
def start_from_linear(model: DVME, coef: Tensor, intercept: Tensor) -> None:
    """Set `model`'s weights so that it computes `x @ coef.T + intercept` on concatenated embeddings, exactly.

    `coef` is (n_outputs, sum of dims), `intercept` (n_outputs,).  Votes are scaled to the size of the tokens' other
    entries, so that one learning rate fits both; the head undoes the scale.
    """
    votes = model.n_outputs
    if votes > model.width:
        raise InputError(
            f"DVME needs a width of at least the number of outputs to start from a linear classifier: found width "
            f"{model.width}, {votes} outputs. Raise the width."
        )
    scale = _vote_scale(coef, model.dims)
    for project, weight in zip(model.projections, torch.split(coef, list(model.dims), dim=1), strict=True):
        project.get_parameter("weight")[:votes] = scale[:, None] * weight
        project.get_parameter("bias")[:votes] = 0
    _pass_votes_through_attention(model, votes)
    model.fusion.weight[:votes] = _sum_of_votes(model, votes)
    model.fusion.bias[:votes] = 0
    model.head.weight.zero_()
    model.head.weight[:, :votes] = torch.diag(1 / (scale * (2 if model.residual else 1)))
    model.head.bias.copy_(intercept)


def _vote_scale(coef: Tensor, dims: Sequence[int]) -> Tensor:
    """Return the factor per output that scales its weights to the size of a projection's random rows, 1/sqrt(3 d)."""
    size = coef.pow(2).mean(dim=1).sqrt()
    typical = (3 * sum(dims) / len(dims)) ** -0.5
    return torch.where(size > 0, typical / size.clamp_min(1e-30), torch.ones_like(size))


def _pass_votes_through_attention(model: DVME, votes: int) -> None:
    """Make every head attend uniformly and pass the votes on: all of them in each head if they fit, else spread."""
    attention, width = model.attention, model.width
    per_head = width // attention.heads
    copies = attention.heads if votes <= per_head else 1
    attention.key.weight.zero_()
    attention.key.bias.zero_()
    slots = torch.cat([torch.arange(votes) + copy * per_head for copy in range(copies)])
    vote = torch.arange(votes).repeat(copies)
    attention.value.weight[slots] = 0
    attention.value.weight[slots, vote] = 1
    attention.value.bias[slots] = 0
    attention.out.weight[:votes] = 0
    attention.out.weight[vote, slots] = 1 / copies
    attention.out.bias[:votes] = 0


def _sum_of_votes(model: DVME, votes: int) -> Tensor:
    """Return the fusion's rows (votes, M * width) that add up one vote over all tokens."""
    one = torch.zeros(votes, model.width)
    one[:, :votes] = torch.eye(votes)
    return one.repeat(1, len(model.dims))
