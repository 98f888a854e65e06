"""The options of `mt fuse --unfreeze`; imports nothing heavy."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import click

from mt.errors import InputError
from mt.fuse.end_to_end.augment import AUGMENTATIONS
from mt.fuse.end_to_end.request import PRECISIONS, FinetuneRequest, Machine, Settings
from mt.fuse.request import FuseRequest
from mt.terminal import options

F = TypeVar("F", bound=Callable[..., Any])
_SETTINGS = {
    "lr": "learning_rates",
    "epochs": "epochs",
    "fixed": "fixed",
    "dropout": "dropout",
    "augment": "augment",
    "lora": "lora",
    "label_smoothing": "label_smoothing",
    "train_batch_norm": "train_batch_norm",
    "precision": "precision",
}
_MACHINE = ("batch_size", "accumulate", "checkpoint_grad", "checkpoint_every", "workers", "memory")


def unfrozen(command: F) -> F:
    """Add the options of end-to-end training; those that are not given are None, False or empty."""
    for option in reversed(
        (
            click.option(
                "--unfreeze",
                is_flag=True,
                help="Train the backbones too, from images: DVME end to end, or "
                "with one --model the fine-tuning baseline.",
            ),
            click.option(
                "--unfreeze-last", type=int, metavar="K", help="Train only the last K blocks of each backbone."
            ),
            click.option(
                "--lora",
                type=int,
                metavar="RANK",
                help="Train low-rank adapters in the attention and MLP layers "
                "of transformers instead of their weights.",
            ),
            click.option(
                "--lr",
                multiple=True,
                type=float,
                metavar="RATE",
                help="Learning rate of each backbone's last block.  Repeatable: of two, networks of both predict; of "
                "more, the budget chooses two.  [default: two, by the kind of network]",
            ),
            click.option(
                "--epochs", type=int, metavar="N", help="Passes over the budget.  [default: 400 / sqrt(labels)]"
            ),
            click.option(
                "--fixed", is_flag=True, help="Choose nothing: one network, trained at the first --lr, predicts alone."
            ),
            click.option(
                "--batch-size",
                type=int,
                metavar="N",
                help=f"Images at a time on a device.  [default: {Machine.batch_size}]",
            ),
            click.option("--accumulate", type=int, metavar="N", help="Batches per optimizer step.  [default: 1]"),
            click.option(
                "--augment",
                metavar="NAME",
                help=f"auto (by kind of image), {', '.join(AUGMENTATIONS)}.  [default: auto]",
            ),
            click.option(
                "--dropout",
                type=float,
                metavar="P",
                help=f"Dropout of the standardised embeddings.  [default: {Settings.dropout:g}]",
            ),
            click.option(
                "--label-smoothing",
                type=float,
                metavar="P",
                help=f"Share of each label that goes to all classes alike.  [default: {Settings.label_smoothing:g}]",
            ),
            click.option("--train-batch-norm", is_flag=True, help="Let batch norms learn new statistics."),
            click.option(
                "--precision",
                type=click.Choice(PRECISIONS),
                help="Arithmetic of the networks.  [default: auto: "
                "bfloat16 on a GPU that has it, else float16; float32 elsewhere]",
            ),
            click.option("--checkpoint-grad", is_flag=True, help="Less memory, more time: compute blocks twice."),
            click.option(
                "--checkpoint-every",
                type=int,
                metavar="STEPS",
                help=f"Also a checkpoint after every this many steps.  [default: {Machine.checkpoint_every}]",
            ),
            click.option(
                "--checkpoints",
                type=click.Path(file_okay=False),
                metavar="DIR",
                help="Folder of checkpoints.  [default: beside the score database]",
            ),
            click.option(
                "--workers", type=int, help="Threads that decode images.  [default: one per core, 16 at most]"
            ),
            click.option(
                "--memory",
                type=options.MemoryAmount(),
                metavar="AMOUNT",
                help="Refuse fits that need more: 4, 4GB, 512MB.  [default: what is available]  With --unfreeze: "
                f"memory for decoded images.  [default: {Machine.memory >> 30}GB]",
            ),
            click.option(
                "--weights",
                multiple=True,
                metavar="[MODEL=]FILE|random",
                help="Weights of the backbones, if not the published ones.",
            ),
            options.data_dir,
        )
    ):
        command = option(command)
    return command


@dataclass(frozen=True)
class TrainingOptions:
    """The options given on the command line; None, False or empty if not given."""

    unfreeze: bool
    unfreeze_last: int | None
    lora: int | None
    lr: tuple[float, ...]
    epochs: int | None
    fixed: bool
    batch_size: int | None
    accumulate: int | None
    augment: str | None
    dropout: float | None
    label_smoothing: float | None
    train_batch_norm: bool
    precision: str | None
    checkpoint_grad: bool
    checkpoint_every: int | None
    checkpoints: str | None
    workers: int | None
    memory: int | None
    weights: tuple[str, ...]
    data_dir: str | None

    def request(self, cached: FuseRequest) -> FinetuneRequest | None:
        """Return what to train beside the methods on cached features, or None without --unfreeze.

        Raises InputError for one of these options without --unfreeze.
        """
        given = {name: value for name, value in vars(self).items() if value not in (None, ()) and value is not False}
        if not self.unfreeze and self.unfreeze_last is None:
            # The folder of data may come from the environment; memory also limits fits on cached features.
            extra = [name for name in given if name not in ("data_dir", "memory")]
            if extra:
                raise InputError(f"--{extra[0].replace('_', '-')} is for end-to-end training: add --unfreeze.")
            return None
        settings = {field: given[name] for name, field in _SETTINGS.items() if name in given}
        machine = {name: given[name] for name in _MACHINE if name in given}
        return FinetuneRequest(
            cached,
            Settings(last=self.unfreeze_last, **settings),
            Machine(**machine),
            data_dir=self.data_dir,
            weights=self.weights,
            checkpoints=self.checkpoints,
        )
