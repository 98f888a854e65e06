"""What of a backbone can be trained: settings that would change nothing on it are refused."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from mt.backbones import Backbone
from mt.errors import InputError
from mt.fuse.end_to_end.request import Settings
from mt.fuse.end_to_end.trainable.blocks import blocks
from mt.fuse.end_to_end.trainable.lora import largest_rank
from mt.terminal.progress import counted


def check_trainable(backbones: Sequence[Backbone], settings: Settings) -> None:
    """Raise InputError for blocks or adapters that a backbone does not have, or batch norms that none trains."""
    for backbone in backbones:
        _check_parts(backbone, settings)
    if settings.train_batch_norm and not any(_has_batch_norm(backbone.model, settings.last) for backbone in backbones):
        names = " and ".join(f"'{backbone.name}'" for backbone in backbones)
        where = f"the last {counted(settings.last, 'block')} of {names}" if settings.last else names
        raise InputError(f"--train-batch-norm: there are no batch norms in {where}. Remove it.")


def _has_batch_norm(network: nn.Module, last: int | None) -> bool:
    """Return whether the last blocks, all without `last`, hold a batch norm."""
    trained = [module for block in blocks(network)[-(last or 0) :] for module in block.modules]
    return any(isinstance(one, nn.modules.batchnorm._BatchNorm) for module in trained for one in module.modules())


def _check_parts(backbone: Backbone, settings: Settings) -> None:
    name, n_blocks = backbone.name, len(blocks(backbone.model))
    if settings.last and n_blocks == 1:
        raise InputError(f"--unfreeze-last: the blocks of '{name}' are not known here. Train all of it: --unfreeze")
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
