"""What of a backbone can be trained: settings that would change nothing on it are refused."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from mt.backbones import Backbone
from mt.errors import InputError
from mt.fuse.end_to_end.request import Settings
from mt.fuse.end_to_end.trainable.blocks import blocks
from mt.fuse.end_to_end.trainable.lora import largest_rank


def check_trainable(backbones: Sequence[Backbone], settings: Settings) -> None:
    """Raise InputError for blocks or adapters that a backbone does not have, or batch norms that none has."""
    for backbone in backbones:
        _check_parts(backbone, settings)
    if settings.train_batch_norm and not any(_has_batch_norm(backbone.model) for backbone in backbones):
        names = " and ".join(f"'{backbone.name}'" for backbone in backbones)
        raise InputError(f"--train-batch-norm: there are no batch norms in {names}. Remove it.")


def _has_batch_norm(network: nn.Module) -> bool:
    return any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in network.modules())


def _check_parts(backbone: Backbone, settings: Settings) -> None:
    name, n_blocks = backbone.name, len(blocks(backbone.model))
    if settings.last and settings.last >= n_blocks:
        raise InputError(
            f"--unfreeze-last {settings.last}: '{name}' has {n_blocks - 1} blocks after its stem. "
            "Take fewer, or train all of it: --unfreeze"
        )
    if settings.lora:
        most = largest_rank(backbone.model)
        if not most:
            raise InputError(
                f"'{name}' has no attention or MLP layers to adapt: --lora is for transformers. "
                "Remove --lora; to train less of it, add --unfreeze-last 2"
            )
        if settings.lora > most:
            raise InputError(f"--lora {settings.lora}: the weights of '{name}' have at most rank {most}. Take less.")
