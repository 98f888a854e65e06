"""The options of `mt fuse --unfreeze`; imports nothing heavy."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

from mt.errors import InputError
from mt.fuse.end_to_end.augment import AUGMENTATIONS
from mt.fuse.end_to_end.request import PRECISIONS, FinetuneRequest, Machine, Settings
from mt.fuse.request import FuseRequest
from mt.terminal import options

F = TypeVar("F", bound=Callable[..., Any])
_SETTINGS = {"lr": "learning_rates", "epochs": "epochs", "fixed": "fixed", "dropout": "dropout", "augment": "augment",
             "train_batch_norm": "train_batch_norm", "precision": "precision"}  # fmt: skip
_MACHINE = ("batch_size", "accumulate", "checkpoint_grad", "checkpoint_every", "workers", "memory")
_ELSEWHERE = ("weights", "checkpoints", "data_dir")
_GIB = 1 << 30
_RATES = " and ".join(f"{lr:g}" for lr in Settings.learning_rates)


def unfrozen(command: F) -> F:
    """Add the options of end-to-end training; those that are not given are None, False or empty."""
    for option in reversed((
        click.option("--unfreeze", is_flag=True, help="Train the backbones too, from images: DVME end to end, or "
                     "with one --model the fine-tuning baseline."),
        click.option("--unfreeze-last", type=int, metavar="K", help="Train only the last K blocks of each backbone."),
        click.option("--lr", multiple=True, type=float, metavar="RATE", help="Learning rate of head and last block; "
                     f"of several (repeatable), a fifth of the budget chooses.  [default: {_RATES}]"),
        click.option("--epochs", type=int, metavar="N", help="Passes over the budget, at most; a fifth of the budget "
                     f"chooses.  [default: {Settings.epochs}]"),
        click.option("--fixed", is_flag=True, help="Choose nothing: the first --lr, all --epochs."),
        click.option("--batch-size", type=int, metavar="N", help="Images at a time on a device.  "
                     f"[default: {Machine.batch_size}]"),
        click.option("--accumulate", type=int, metavar="N", help="Such batches a step.  [default: 1]"),
        click.option("--augment", metavar="NAME", help=f"auto (by kind of image), {', '.join(AUGMENTATIONS)}.  "
                     "[default: auto]"),
        click.option("--dropout", type=float, metavar="P", help="Of the standardised embeddings, in training.  "
                     f"[default: {Settings.dropout:g}]"),
        click.option("--train-batch-norm", is_flag=True, help="Let batch norms learn new statistics."),
        click.option("--precision", type=click.Choice(PRECISIONS), help="Arithmetic of the networks.  [default: auto: "
                     "bfloat16 on a GPU that has it, else float16; float32 elsewhere]"),
        click.option("--checkpoint-grad", is_flag=True, help="Less memory, more time: compute blocks twice."),
        click.option("--checkpoint-every", type=int, metavar="STEPS", help="Also a checkpoint every so many steps of "
                     f"an epoch.  [default: {Machine.checkpoint_every}]"),
        click.option("--checkpoints", type=click.Path(file_okay=False), metavar="DIR", help="Folder of checkpoints.  "
                     "[default: beside the score database]"),
        click.option("--workers", type=int, help="Threads that decode images.  [default: one a core]"),
        click.option("--memory", type=float, metavar="GB", help="Keep decoded images up to here.  "
                     f"[default: {Machine.memory / _GIB:g}]"),
        click.option("--weights", multiple=True, metavar="[MODEL=]FILE|random", help="Weights of the backbones, where "
                     "they were not the published ones."),
        options.data_dir,
    )):  # fmt: skip
        command = option(command)
    return command


def finetuning(asked: dict[str, Any]) -> FinetuneRequest | None:
    """Take these options out of a command's; return the request, or None without --unfreeze.

    Raises InputError for one of these options without --unfreeze.
    """
    names = ("unfreeze", "unfreeze_last", *_SETTINGS, *_MACHINE, *_ELSEWHERE)
    given = {name: value for name in names if (value := asked.pop(name)) is not None and value is not False}
    given = {name: value for name, value in given.items() if value != ()}
    last, wanted = given.pop("unfreeze_last", None), given.pop("unfreeze", False)
    if not wanted and last is None:
        extra = [name for name in given if name != "data_dir"]  # that one may come from the environment
        if extra:
            raise InputError(f"--{extra[0].replace('_', '-')} is for end-to-end training: add --unfreeze.")
        return None
    precision = given.pop("precision", "auto")
    settings = {_SETTINGS[name]: value for name, value in given.items() if name in _SETTINGS}
    machine = {name: value for name, value in given.items() if name in _MACHINE}
    if "memory" in machine:
        machine["memory"] = int(machine["memory"] * _GIB)
    return FinetuneRequest(
        FuseRequest(**asked), Settings(last=last, precision=precision, **settings), Machine(**machine),
        **{name: given[name] for name in _ELSEWHERE if name in given},
    )  # fmt: skip
