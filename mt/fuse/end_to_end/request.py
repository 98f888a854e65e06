"""What end-to-end training does, and where it runs; imports nothing heavy."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from mt.errors import InputError
from mt.fuse.end_to_end.augment import AUGMENTATIONS

PRECISIONS = ("auto", "float32", "bfloat16", "float16")


@dataclass(frozen=True)
class Settings:
    """One way to train; every field changes numbers.

    last: train only the last so many blocks of each backbone; None trains all.
    learning_rates: candidates for the rate of the head and the last block; a block below has `layer_decay` times the
    rate of the one above (Clark et al., ELECTRA, ICLR 2020; Bao et al., BEiT, ICLR 2022).
    epochs: passes over the budget, at most.  fixed: choose nothing; the first rate, all epochs.
    batch: images a step, over all accumulated parts and ranks.  dropout: of the standardised embeddings.
    augment: a name of `AUGMENTATIONS`, or `auto` for what fits the dataset's kind.
    train_batch_norm: batch norms learn statistics too; by default those of pretraining stay.
    """

    last: int | None = None
    learning_rates: tuple[float, ...] = (1e-4, 1e-5)
    epochs: int = 10
    fixed: bool = False
    batch: int = 32
    dropout: float = 0.1
    layer_decay: float = 0.8
    weight_decay: float = 0.01
    augment: str = "auto"
    train_batch_norm: bool = False
    precision: str = "float32"

    def recipe(self) -> dict[str, Any]:
        """Return every field as JSON: part of a fit's identity, and kept with its scores."""
        return {**asdict(self), "learning_rates": list(self.learning_rates)}


@dataclass(frozen=True)
class Machine:
    """Where and how a run computes: changes memory and time, and numbers by rounding only.

    batch_size: images at a time on one device.  accumulate: such parts a step.  workers: threads that decode.
    memory: bytes that decoded images may take.  checkpoint_every: steps between checkpoints inside an epoch.
    """

    device: str = "auto"
    batch_size: int = 32
    accumulate: int = 1
    checkpoint_grad: bool = False
    checkpoint_every: int = 200
    workers: int | None = None
    memory: int = 4 << 30


def check_settings(settings: Settings, machine: Machine) -> None:
    """Raise InputError for a setting that cannot be trained with."""
    if settings.augment != "auto" and settings.augment not in AUGMENTATIONS:
        raise InputError(f"--augment takes one of auto, {', '.join(AUGMENTATIONS)}; got '{settings.augment}'.")
    if settings.precision not in PRECISIONS:
        raise InputError(f"--precision takes one of {', '.join(PRECISIONS)}; got '{settings.precision}'.")
    if not settings.learning_rates or min(settings.learning_rates) <= 0:
        raise InputError(f"--lr takes numbers above 0, got {', '.join(map(str, settings.learning_rates)) or 'none'}.")
    if not 0 <= settings.dropout < 1:
        raise InputError(f"--dropout must be at least 0 and below 1, got {settings.dropout:g}.")
    for option, number in (
        ("--epochs", settings.epochs), ("--unfreeze-last", settings.last), ("--batch-size", machine.batch_size),
        ("--accumulate", machine.accumulate), ("--checkpoint-every", machine.checkpoint_every),
        ("--workers", machine.workers),
    ):  # fmt: skip
        if number is not None and number < 1:
            raise InputError(f"{option} takes a number of at least 1, got {number}.")
