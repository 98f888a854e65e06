"""Learning rates by the kind of network: candidates, and how they fall towards the images.

Convolutional networks with few labels need a rate that would destroy a pretrained transformer: with 1,000 photographs
`efficientnet-lite0` gained 4.5 points of accuracy at 1e-3 and none at 1e-4.  Transformers are fine-tuned at 1e-4 and
below, with rates that fall from block to block (Clark et al., ELECTRA, ICLR 2020; Bao et al., BEiT, ICLR 2022).
ConvNeXt, with their layer norms, is fine-tuned as transformers are (Liu et al., CVPR 2022).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

from torch import nn

from mt.fuse.end_to_end.trainable.blocks import blocks


@dataclass(frozen=True)
class Family:
    """A kind of network.

    rates: of the last block, one per candidate.  layer_decay: a block's rate over that of the block above.
    """

    name: str
    rates: tuple[float, ...]
    layer_decay: float


CONVOLUTIONAL = Family("convolutional", (1e-3, 3e-4), 1.0)
TRANSFORMER = Family("transformer", (1e-4, 3e-5), 0.75)
ADAPTERS = Family("adapters", (1e-3, 3e-4), 1.0)  # LoRA: only small matrices move (Hu et al., ICLR 2022, appendix D)
HEAD_RATE = 1e-3  # of every candidate: a head that learns as slowly as the backbone loses 2 points on 1,000 photographs


@dataclass(frozen=True)
class CandidateRates:
    """One set of rates: of the head, and of each backbone's last block with its decay from block to block."""

    head: float
    backbones: tuple[float, ...]
    layer_decays: tuple[float, ...]

    @property
    def label(self) -> str:
        """The backbones' rates as one text, one number where they agree."""
        return " + ".join(f"{rate:g}" for rate in dict.fromkeys(self.backbones))

    @property
    def lower(self) -> str:
        """The option that asks for a tenth of the first backbone's rate."""
        return f"--lr {self.backbones[0] / 10:g}"


def family_of(backbone: nn.Module, *, adapters: bool = False) -> Family:
    """Return a network's family: transformers (and ConvNeXt) have more layer norms than batch and group norms."""
    if adapters:
        return ADAPTERS
    names = [type(module).__name__.lower() for module in backbone.modules()]
    layer = sum("layernorm" in name or "rmsnorm" in name for name in names)
    other = sum(isinstance(module, (nn.modules.batchnorm._BatchNorm, nn.GroupNorm)) for module in backbone.modules())
    return TRANSFORMER if layer > other else CONVOLUTIONAL


def candidates(
    backbones: Sequence[nn.Module], rates: Sequence[float] = (), *, adapters: bool = False
) -> list[CandidateRates]:
    """Return the candidates that a budget chooses among: each family's rates, or the given ones."""
    families = [family_of(backbone, adapters=adapters) for backbone in backbones]
    decays = tuple(family.layer_decay for family in families)
    by_number = [(rate,) * len(families) for rate in rates] or zip(*(one.rates for one in families), strict=True)
    found = [tuple(one) for one in by_number]
    return [CandidateRates(HEAD_RATE, one, decays) for one in found]


def parameter_groups(
    backbones: Iterable[nn.Module], heads: Iterable[nn.Module], candidate: CandidateRates, *, weight_decay: float
) -> list[dict[str, Any]]:
    """Return the optimizer's groups, each with its `rate`.

    Biases, norms' weights and all else of one dimension do not decay.
    """
    rated: list[tuple[float, Iterable[nn.Parameter]]] = [
        (candidate.head, chain(*(head.parameters() for head in heads)))
    ]
    for backbone, rate, decay in zip(backbones, candidate.backbones, candidate.layer_decays, strict=True):
        parts = blocks(backbone)
        rated += [(rate * decay ** (len(parts) - 1 - depth), part.parameters) for depth, part in enumerate(parts)]
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for rate, parameters in rated:
        for parameter in parameters:
            if parameter.requires_grad:
                groups.setdefault((rate, weight_decay if parameter.ndim > 1 else 0.0), []).append(parameter)
    return [{"params": parameters, "rate": rate, "weight_decay": decay} for (rate, decay), parameters in groups.items()]
