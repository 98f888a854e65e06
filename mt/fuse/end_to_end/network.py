"""The network that trains end to end: images -> backbones -> fixed standardisation -> DVME, or a linear layer for one.

Before its first step it computes what the cached stage computed: the backbones are those that made the features, the
standardisation was learned from the cached embeddings, the head was fitted on them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from mt.fuse.dvme.inputs import Inputs
from mt.fuse.dvme.module import DVME


class Standardize(nn.Module):
    """Embeddings (N, d) scaled as the cached stage scales them, and clipped; nothing here is trained."""

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

    def __init__(self, dim: int, n_outputs: int, *, dropout: float) -> None:
        super().__init__()
        self.n_outputs = n_outputs
        self.dropout = nn.Dropout(dropout)
        self.linear = nn.Linear(dim, n_outputs)

    def with_attention(self, embeddings: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """Return the logits, and the attention (N, 1, 1, 1) that the only model receives."""
        (x,) = embeddings
        return self.linear(self.dropout(x)), torch.ones(len(x), 1, 1, 1, device=x.device)


class EndToEnd(nn.Module):
    """M images (N, 3, S_m, S_m) of the same cases, one a backbone, to logits (N, outputs).

    last: train only the last so many blocks of each backbone.  Batch norms keep their statistics unless told otherwise.
    """

    def __init__(
        self, backbones: Sequence[nn.Module], scalings: Sequence[Standardize], head: DVME | LinearHead, *,
        last: int | None = None, train_batch_norm: bool = False,
    ) -> None:  # fmt: skip
        super().__init__()
        self.backbones, self.scalings, self.head = nn.ModuleList(backbones), nn.ModuleList(scalings), head
        self._clip = scalings[0].clip
        self.requires_grad_(True)
        for backbone in backbones:
            parts = blocks(backbone)
            for part in parts[: -last or None] if last and last < len(parts) else []:
                for parameter in part.parameters:
                    parameter.requires_grad_(False)
        self._still = [
            module
            for backbone in backbones
            for module in backbone.modules()
            if (isinstance(module, nn.modules.batchnorm._BatchNorm) and not train_batch_norm) or _is_frozen(module)
        ]

    @property
    def clip(self) -> float:
        """Where standardised embeddings are cut off."""
        return self._clip

    @property
    def n_outputs(self) -> int:
        return int(self.head.n_outputs)

    def train(self, mode: bool = True) -> Self:
        super().train(mode)
        for module in self._still:
            module.eval()
        return self

    def forward(self, images: Sequence[Tensor]) -> Tensor:
        """Return the logits (N, outputs)."""
        return self.with_attention(images)[0]

    def with_attention(self, images: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """Return the logits and the attention (N, heads, M, M)."""
        parts = zip(self.backbones, self.scalings, images, strict=True)
        found: tuple[Tensor, Tensor] = self.head.with_attention([scale(net(x)) for net, scale, x in parts])
        return found


class BackboneBlock:
    """One step of a backbone, for rates and freezing: its modules and the parameters they hold."""

    def __init__(self, modules: Sequence[nn.Module], own: Sequence[nn.Parameter] = ()) -> None:
        self.modules = list(modules)
        self.own = list(own)

    @property
    def parameters(self) -> list[nn.Parameter]:
        return [*self.own, *(p for module in self.modules for p in module.parameters())]


def blocks(backbone: nn.Module) -> list[BackboneBlock]:
    """Return the steps of a backbone from its images to its embedding: the stem, then each block.

    Blocks are the children of its sequences (a ResNet's `layer1` ... `layer4`, a transformer's `blocks`, stages with
    blocks of their own).  What comes before the first, and a backbone's own parameters (class token, positions), is
    the stem; what follows a block belongs to it (final norms).
    """
    found = [BackboneBlock([], list(backbone.parameters(recurse=False)))]
    for child, in_sequence in _units(backbone):
        if in_sequence:
            found.append(BackboneBlock([child]))
        else:
            found[-1].modules.append(child)
    return [block for block in found if block.parameters]


def _units(module: nn.Module, *, in_sequence: bool = False) -> Iterator[tuple[nn.Module, bool]]:
    for child in module.children():
        if _is_sequence(child):
            yield from _units(child, in_sequence=True)
        elif _is_sequence(getattr(child, "blocks", None)):
            yield from _units(child, in_sequence=in_sequence)
        elif any(True for _ in child.parameters()):
            yield child, in_sequence


def _is_sequence(module: object) -> bool:
    """Return whether a module is a sequence of blocks, which have layers of their own: a stem's layers do not."""
    if not isinstance(module, (nn.Sequential, nn.ModuleList)):
        return False
    holding = [child for child in module if any(True for _ in child.parameters())]
    return bool(holding) and all(any(True for _ in child.children()) for child in holding)


def _is_frozen(module: nn.Module) -> bool:
    parameters = list(module.parameters())
    return bool(parameters) and not any(parameter.requires_grad for parameter in parameters)


def rates(network: EndToEnd, *, layer_decay: float, weight_decay: float) -> list[dict[str, Any]]:
    """Return the optimizer's groups, each with its `share` of the learning rate.

    The head and each backbone's last block train at the full rate, a block at `layer_decay` times that of the one
    above.  Biases, norms and other vectors do not decay (Loshchilov and Hutter's weight decay is for matrices).
    """
    shares = [(1.0, list(network.head.parameters()))]
    for backbone in network.backbones:
        parts = blocks(backbone)
        shares += [(layer_decay ** (len(parts) - 1 - depth), part.parameters) for depth, part in enumerate(parts)]
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for share, parameters in shares:
        for parameter in parameters:
            if parameter.requires_grad:
                decay = weight_decay if parameter.ndim > 1 else 0.0
                groups.setdefault((share, decay), []).append(parameter)
    return [
        {"params": parameters, "share": share, "weight_decay": decay} for (share, decay), parameters in groups.items()
    ]


def checkpoint_blocks(network: EndToEnd) -> None:
    """Compute every block again in the backward pass instead of keeping what is inside it: less memory, more time."""
    for backbone in network.backbones:
        for part in blocks(backbone):
            for module in part.modules:
                if any(parameter.requires_grad for parameter in module.parameters()):
                    module.forward = partial(
                        checkpoint, module.forward, use_reentrant=False, context_fn=partial(_first_and_again, module)
                    )


def _first_and_again(module: nn.Module) -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
    return nullcontext(), _not_counted_again(module)


@contextmanager
def _not_counted_again(module: nn.Module) -> Iterator[None]:
    """Keep batch norms that learn statistics from counting a batch twice: what is computed again was counted."""
    counted = [
        (norm, norm.momentum, norm.num_batches_tracked.clone()) for norm in module.modules()
        if isinstance(norm, nn.modules.batchnorm._BatchNorm) and norm.training and norm.num_batches_tracked is not None
    ]  # fmt: skip
    for norm, _, _ in counted:
        norm.momentum = 0.0  # the share of the new batch; not to track at all would save other tensors than before
    try:
        yield
    finally:
        for norm, momentum, n in counted:
            norm.momentum = momentum
            norm.num_batches_tracked = n


def scalings_of(inputs: Inputs) -> list[Standardize]:
    """Return the cached stage's scaling of each model's embeddings as modules."""
    parts = ((torch.from_numpy(one.mean), torch.from_numpy(one.scale), one.clip) for one in inputs.scalings)
    return [Standardize(*part) for part in parts]
