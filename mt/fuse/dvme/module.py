"""Dynamic Visual Meta-Embedding: the embeddings of several models, fused by self-attention over the models.

    x_m (N, d_m)  --P_m-->  t_m (N, width)              one token per model
    A = softmax(q k' / sqrt(width / heads))             (N, heads, M, M): what each model takes from which
    z = t + O A v                                       the residual is ours; the paper's form has none
    h = F [z_1 ... z_M] (N, width),  logits = H h       concatenated, projected, classified

Source: Truong, Mohammadi and Lenga, ML4H 2021, section 3 ("Dynamic Visual Meta-Embedding").
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from mt.errors import InputError


class ModelAttention(nn.Module):
    """Multi-head self-attention over M tokens, which returns its weights because they are a result."""

    def __init__(self, width: int, heads: int, *, uniform: bool = False) -> None:
        super().__init__()
        if heads < 1 or width % heads:
            raise InputError(f"DVME's width must be a multiple of its heads: found width {width}, {heads} heads.")
        self.heads, self.uniform = heads, uniform
        self.query = nn.Linear(width, width)
        self.key = nn.Linear(width, width)
        self.value = nn.Linear(width, width)
        self.out = nn.Linear(width, width)

    def forward(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """Return the attended tokens (N, M, width) and the weights (N, heads, M, M), each row summing to 1."""
        query, key, value = (self._split(part(tokens)) for part in (self.query, self.key, self.value))
        scores = query @ key.transpose(-2, -1) / math.sqrt(query.shape[-1])
        attention = torch.softmax(torch.zeros_like(scores) if self.uniform else scores, dim=-1)
        return self.out((attention @ value).transpose(1, 2).flatten(2)), attention

    def _split(self, tokens: Tensor) -> Tensor:
        return tokens.reshape(*tokens.shape[:2], self.heads, -1).transpose(1, 2)


class DVME(nn.Module):
    """A list of M embeddings (N, d_m) to logits (N, n_outputs), through one self-attention layer over models.

    Inputs are expected standardised.  `input_dropout` drops entries of the embeddings, `dropout` those of the
    concatenated tokens, `uniform` fixes the attention at 1/M (an ablation).  `DVME.plain` is the paper's own form.
    """

    def __init__(
        self,
        dims: Sequence[int],
        n_outputs: int,
        *,
        width: int = 512,
        heads: int = 8,
        dropout: float = 0.0,
        input_dropout: float = 0.5,
        residual: bool = True,
        uniform: bool = False,
    ) -> None:
        super().__init__()
        if not dims or min(dims) < 1 or n_outputs < 1:
            raise InputError(f"DVME needs embeddings and outputs: found widths {list(dims)}, {n_outputs} outputs.")
        self.dims, self.n_outputs, self.width = tuple(dims), n_outputs, width
        self.residual = residual
        self.input_dropout = nn.Dropout(input_dropout)
        self.dropout = nn.Dropout(dropout)
        self.projections = nn.ModuleList([nn.Linear(dim, width) for dim in dims])
        self.attention = ModelAttention(width, heads, uniform=uniform)
        self.fusion = nn.Linear(len(dims) * width, width)
        self.head = nn.Linear(width, n_outputs)

    @classmethod
    def plain(cls, dims: Sequence[int], n_outputs: int, *, width: int = 512, heads: int = 8) -> DVME:
        """Return the paper's own form: no residual, no dropout, random start."""
        return cls(dims, n_outputs, width=width, heads=heads, input_dropout=0.0, residual=False)

    @property
    def output(self) -> nn.Linear:
        """The last layer."""
        return self.head

    def forward(self, embeddings: Sequence[Tensor]) -> Tensor:
        """Return the logits (N, n_outputs) of M embeddings (N, d_m)."""
        return self.with_attention(embeddings)[0]

    def with_attention(self, embeddings: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """Return the logits and the attention (N, heads, M, M): row i says what model i takes from each model."""
        if len(embeddings) != len(self.dims):
            raise InputError(f"This DVME fuses {len(self.dims)} models; found {len(embeddings)} embeddings.")
        parts = zip(self.projections, embeddings, strict=True)
        tokens = torch.stack([project(self.input_dropout(x)) for project, x in parts], dim=1)
        attended, attention = self.attention(tokens)
        if self.residual:
            attended = tokens + attended
        logits: Tensor = self.head(self.fusion(self.dropout(attended.flatten(1))))
        return logits, attention
