"""The network that trains end to end: images -> backbones -> fixed standardisation -> DVME, or a linear layer for one.

At first it computes what the cached stage computed: the backbones are those that made the features, the standardisation
was learned from the cached embeddings, the head was fitted on them.  `begin` prepares it for training.

Nothing in it draws at random: dropout comes in as numbers that depend on the sample (`dropout` in `work.py`).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from typing import Self

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from mt.fuse.dvme.inputs import Inputs
from mt.fuse.dvme.module import DVME
from mt.fuse.end_to_end.trainable.blocks import blocks
from mt.fuse.end_to_end.trainable.depthwise import SmallMaps
from mt.fuse.end_to_end.trainable.lora import adapt
from mt.probe.methods.linear import blocks as blocks_of_rows
from mt.types import Array

_LENGTH = 6.0  # of embeddings in training


class Standardize(nn.Module):
    """Scale embeddings (N, d), at first as the cached stage does, and clip them; nothing here is trained."""

    mean: Tensor
    scale: Tensor

    def __init__(self, mean: Tensor, scale: Tensor, clip: float) -> None:
        super().__init__()
        self.clip = clip
        self.register_buffer("mean", mean.float())
        self.register_buffer("scale", scale.float())

    def forward(self, embeddings: Tensor) -> Tensor:
        return ((embeddings.float() - self.mean) / self.scale).clamp(-self.clip, self.clip)


class LinearHead(nn.Module):
    """One model's standardised embedding (N, d) to logits (N, outputs): the usual head of fine-tuning."""

    def __init__(self, dim: int, n_outputs: int) -> None:
        super().__init__()
        self.n_outputs = n_outputs
        self.linear = nn.Linear(dim, n_outputs)

    @property
    def output(self) -> nn.Linear:
        """The last layer."""
        return self.linear

    def with_attention(self, embeddings: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """Return the logits, and the attention (N, 1, 1, 1) that the only model receives."""
        (x,) = embeddings
        return self(x), torch.ones(len(x), 1, 1, 1, device=x.device)

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits."""
        logits: Tensor = self.linear(x)
        return logits


class EndToEnd(nn.Module):
    """M images (N, 3, S_m, S_m) of the same cases, one per backbone, to logits (N, outputs).

    last: train only the last N blocks of each backbone.  lora: train adapters of this rank instead of weights.
    Batch norms keep their statistics unless `train_batch_norm`.  Everything else computes in training as it predicts:
    a backbone's own dropout and drop path stay off.
    """

    def __init__(
        self,
        backbones: Sequence[nn.Module],
        scalings: Sequence[Standardize],
        head: DVME | LinearHead,
        *,
        last: int | None = None,
        lora: int | None = None,
        train_batch_norm: bool = False,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.backbones, self.scalings, self.head = nn.ModuleList(backbones), nn.ModuleList(scalings), head
        self.own = nn.ModuleList()
        self._clip = scalings[0].clip
        self._dims = [len(scaling.mean) for scaling in scalings]
        self.requires_grad_(True)
        for backbone in backbones:
            _freeze(backbone, last=last, lora=lora, seed=seed)
        self._learned_norms = [
            module
            for backbone in backbones
            if train_batch_norm
            for module in backbone.modules()
            if isinstance(module, nn.modules.batchnorm._BatchNorm) and not _is_frozen(module)
        ]

    @property
    def clip(self) -> float:
        """The absolute value at which standardised embeddings are clipped."""
        return self._clip

    @property
    def n_outputs(self) -> int:
        return int(self.head.n_outputs)

    @property
    def n_models(self) -> int:
        return len(self.backbones)

    @property
    def widths(self) -> list[int]:
        """The widths of the embeddings that heads read: of all models together, then of each one's own."""
        return self._dims + self._dims[: len(self.own)]

    @torch.no_grad()
    def begin(self, scales: Sequence[float]) -> None:
        """Prepare for training, and cease to compute what the cached stage computed.

        The last layer's weights become zero, each of several models gets a head of its own, and each model's embeddings
        are divided by one number, `scales` (M,), instead of one per column.  Scales of columns differ by a factor of
        100: divided by its own, a quiet column sends gradients 100 times as long into its backbone.

        A last layer fitted on few labels fits all of them, so little loss would remain to train the backbones.  With
        only a common head, the backbone that learns fastest explains the labels and the others stop learning (Wang,
        Tran and Feiszli, CVPR 2020); its own head keeps each backbone learning.
        """
        for scaling, number in zip(self.scalings, scales, strict=True):
            assert isinstance(scaling, Standardize)
            scaling.scale.fill_(number)
        output = self.head.output
        output.weight.zero_()
        if isinstance(self.head, DVME):
            self.add_own_heads()
            for head in self.own:
                assert isinstance(head, LinearHead)
                head.output.weight.zero_()
                head.output.bias.copy_(output.bias)

    def add_own_heads(self) -> None:
        """Give each model a head of its own, whose weights the caller replaces."""
        heads = [LinearHead(dim, self.n_outputs) for dim in self._dims]
        self.own = nn.ModuleList(heads).to(self.head.output.weight.device)

    def train(self, mode: bool = True) -> Self:
        """Let batch norms that learn statistics do so; nothing else computes in training otherwise than it predicts."""
        super().train(mode)
        for module in self.children():
            module.eval()
        for norm in self._learned_norms:
            norm.train(mode)
        return self

    def forward(self, images: Sequence[Tensor]) -> Tensor:
        """Return the logits (N, outputs)."""
        return self.with_attention(images)[0]

    def every_logits(self, images: Sequence[Tensor], dropout: Sequence[Tensor] = ()) -> list[Tensor]:
        """Return the logits (N, outputs) of DVME, then of each model's own head, as training needs them.

        dropout: for each of `widths` what its embeddings (N, width) are multiplied by; empty for no dropout.
        """
        embeddings = self._scaled(self.embeddings(images))
        read = [*embeddings, *embeddings[: len(self.own)]]
        if dropout:
            read = [x * kept for x, kept in zip(read, dropout, strict=True)]
        together, alone = read[: self.n_models], read[self.n_models :]
        own = [head(x) for head, x in zip(self.own, alone, strict=True)]
        return [self.head.with_attention(together)[0], *own]

    def with_attention(self, images: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """Return the logits and the attention (N, heads, M, M)."""
        return self.of_embeddings(self.embeddings(images))

    def embeddings(self, images: Sequence[Tensor]) -> list[Tensor]:
        """Return each backbone's embeddings (N, d_m), as a feature file holds them."""
        return [net(x) for net, x in zip(self.backbones, images, strict=True)]

    def of_embeddings(self, embeddings: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """Return the logits and the attention of the backbones' embeddings.

        Heads of the models' own, which training adds, have half of the logits, as they have half of the loss.
        """
        scaled = self._scaled(embeddings)
        logits, attention = self.head.with_attention(scaled)
        if len(self.own):
            own = [head(x) for head, x in zip(self.own, scaled, strict=True)]
            logits = (logits + torch.stack(own).mean(dim=0)) / 2
        return logits, attention

    def _scaled(self, embeddings: Sequence[Tensor]) -> list[Tensor]:
        return [scale(x) for scale, x in zip(self.scalings, embeddings, strict=True)]


def _freeze(backbone: nn.Module, *, last: int | None, lora: int | None, seed: int) -> None:
    """Freeze all but the last blocks; with `lora`, freeze all and add adapters to the last ones, not to the stem."""
    parts = blocks(backbone)
    kept = parts[-last:] if last and last < len(parts) else parts
    for part in parts[: len(parts) - len(kept)] if lora is None else parts:
        for parameter in part.parameters:
            parameter.requires_grad_(False)
    if lora is not None:
        adapt([part for part in kept if part is not parts[0]], lora, seed=seed)


def _is_frozen(module: nn.Module) -> bool:
    parameters = list(module.parameters())
    return bool(parameters) and not any(parameter.requires_grad for parameter in parameters)


def checkpoint_blocks(network: EndToEnd) -> None:
    """Recompute every block in the backward pass instead of storing its activations: less memory, more time."""
    for backbone in network.backbones:
        for part in blocks(backbone):
            for module in part.modules:
                if any(parameter.requires_grad for parameter in module.parameters()):
                    module.forward = partial(
                        checkpoint, module.forward, use_reentrant=False, context_fn=partial(_first_and_again, module)
                    )


def _first_and_again(module: nn.Module) -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
    return SmallMaps(), _again(module)


@contextmanager
def _again(module: nn.Module) -> Iterator[None]:
    """Compute as the first pass did, but stop batch norms that learn statistics from counting a batch twice.

    `SmallMaps` is entered in both passes, since a surrounding one does not reach into torch's backward pass.
    """
    counted = [
        (norm, norm.momentum, norm.num_batches_tracked.clone())
        for norm in module.modules()
        if isinstance(norm, nn.modules.batchnorm._BatchNorm) and norm.training and norm.num_batches_tracked is not None
    ]
    for norm, _, _ in counted:
        norm.momentum = 0.0  # the share of the new batch; not to track at all would save other tensors than before
    try:
        with SmallMaps():
            yield
    finally:
        for norm, momentum, n in counted:
            norm.momentum = momentum
            norm.num_batches_tracked = n


def even_scale(embeddings: Array, mean: Array) -> float:
    """Return the number that embeddings (n, d) are divided by in training: their root mean square length becomes 6.

    At that length one rate of the head fits networks of any width, and with any share of constant columns.
    """
    squares = sum(float(np.square(rows - mean).sum()) for rows in blocks_of_rows(embeddings))
    return math.sqrt(squares / len(embeddings)) / _LENGTH or 1.0


def scalings_of(inputs: Inputs) -> list[Standardize]:
    """Return the cached stage's scaling of each model's embeddings as modules."""
    parts = ((torch.from_numpy(one.mean), torch.from_numpy(one.scale), one.clip) for one in inputs.scalings)
    return [Standardize(*part) for part in parts]
