"""What of a backbone can be trained: settings that would change nothing on it are refused."""

from __future__ import annotations

from torch import nn

from mt.backbones import Backbone
from mt.errors import InputError
from mt.fuse.end_to_end.request import Settings
from mt.fuse.end_to_end.trainable.blocks import blocks
from mt.fuse.end_to_end.trainable.lora import largest_rank


def check_trainable(backbone: Backbone, settings: Settings) -> None:
    """Raise InputError for blocks, adapters or batch norms that a backbone does not have."""
    name, n_blocks = backbone.name, len(blocks(backbone.model))
    if settings.last and settings.last >= n_blocks:
        raise InputError(
            f"--unfreeze-last {settings.last}: '{name}' has {n_blocks - 1} blocks after its stem. "
            f"Take fewer, or train all of it: --unfreeze"
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
    norms = (module for module in backbone.model.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm))
    if settings.train_batch_norm and not any(True for _ in norms):
        raise InputError(f"'{name}' has no batch norms. Remove --train-batch-norm.")
