"""The request of `mt fuse --unfreeze`: what is trained, how, and in how much memory; imports nothing heavy."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from mt.errors import InputError
from mt.fuse.end_to_end.augment import AUGMENTATIONS
from mt.fuse.request import FuseRequest, check_models
from mt.probe.request import checked_folds

PRECISIONS = ("auto", "float32", "bfloat16", "float16")


@dataclass(frozen=True)
class Settings:
    """One way to train; every field changes numbers.

    last: train only the last N blocks of each backbone; None trains all.
    lora: train adapters of this rank in attention and MLP layers instead of the weights themselves.
    learning_rates: candidates for the rate of the last block, of which two train; empty: those of each backbone's
    family (`trainable/families.py`), which also sets the decay of rates from block to block.
    epochs: passes over the budget; None takes `epochs_for` its size.
    fixed: choose nothing; one network, trained at the first rate, predicts alone.
    batch: images per step, over all accumulated parts and ranks.  dropout: of the standardised embeddings.
    label_smoothing: the share of each label that goes to all classes alike (Szegedy et al., CVPR 2016).
    augment: a name of `AUGMENTATIONS`, or `auto` for what fits the dataset's kind.
    weight_decay: AdamW's, of matrices.  precision: one of `PRECISIONS`.
    train_batch_norm: batch norms learn statistics too; by default those of pretraining stay.
    """

    last: int | None = None
    lora: int | None = None
    learning_rates: tuple[float, ...] = ()
    epochs: int | None = None
    fixed: bool = False
    batch: int = 32
    dropout: float = 0.1
    label_smoothing: float = 0.1
    weight_decay: float = 0.01
    augment: str = "auto"
    train_batch_norm: bool = False
    precision: str = "auto"

    def recipe(self) -> dict[str, Any]:
        """Return every field as JSON: part of a fit's identity, and kept with its scores."""
        return {**asdict(self), "learning_rates": list(self.learning_rates)}


def options_of(recipe: Mapping[str, Any]) -> list[str]:
    """Return the options of `mt fuse` that train by a recipe (a setting it lacks has its default).

    Those at their default are omitted, except the precision, which machines choose.
    """
    usual = Settings().recipe()
    found = {**usual, **recipe}
    parts = [f"--unfreeze-last {found['last']}" if found["last"] else "--unfreeze"]
    parts += [f"--lora {found['lora']}"] if found["lora"] else []
    parts += [f"--lr {rate!r}" for rate in found["learning_rates"]]
    for name in ("epochs", "batch", "augment", "dropout", "label_smoothing"):
        option = "batch-size" if name == "batch" else name.replace("_", "-")
        parts += [f"--{option} {found[name]}"] if found[name] != usual[name] else []
    parts += [f"--{name.replace('_', '-')}" for name in ("fixed", "train_batch_norm") if found[name]]
    return [*parts, f"--precision {found['precision']}"]


@dataclass(frozen=True)
class Machine:
    """How a run computes: changes memory and time, and numbers by rounding only.

    batch_size: images at a time on one device.  accumulate: such parts per step.  workers: threads that decode.
    checkpoint_grad: recompute blocks in the backward pass to save memory.
    memory: bytes that decoded images may take.  checkpoint_every: steps from one checkpoint to the next.
    """

    batch_size: int = 32
    accumulate: int = 1
    checkpoint_grad: bool = False
    checkpoint_every: int = 200
    workers: int | None = None
    memory: int = 4 << 30


@dataclass(frozen=True)
class FinetuneRequest:
    """Which models to train end to end, and the methods on cached features to fit beside them on the same draws.

    cached: models, datasets, draws, device, scores and folders, for both; `methods` are those on cached features, none
    for one model.  save: of `cached`, a folder for the tuned networks.
    data_dir: where the images are, if not where they were read.  weights: of the backbones, if not the published ones.
    checkpoints: a folder; by default beside the scores.
    """

    cached: FuseRequest = field(default_factory=FuseRequest)
    settings: Settings = field(default_factory=Settings)
    machine: Machine = field(default_factory=Machine)
    data_dir: str | os.PathLike[str] | None = None
    weights: Sequence[str] = ()
    checkpoints: str | os.PathLike[str] | None = None

    def check(self) -> None:
        """Raise InputError for models, methods or settings that do not go together."""
        check_settings(self.settings, self.machine)
        check_models(self.cached.models, several=False)
        if self.cached.methods and len(self.cached.models) == 1:
            raise InputError("--method requires at least two --model options. Remove it, or add one: --model NAME")
        if self.cached.ablations:
            raise InputError("--ablations is for DVME on cached features. Remove --ablations, or --unfreeze.")
        if self.cached.test_folds is None and self.cached.repeats != 1:
            raise InputError("--repeats repeats test folds, which --unfreeze does not take. Remove --repeats.")
        if self.cached.test_folds is not None:
            checked_folds(self.cached.test_folds, self.cached.repeats, {"--unfreeze": True})
        if self.cached.threshold is not None:
            raise InputError(
                "--threshold needs out-of-fold scores, and no network is trained from images in every fold. "
                "Remove --threshold, or --unfreeze."
            )
        if self.cached.prevalence is not None:
            raise InputError("--prevalence is for thresholds, which --unfreeze does not choose. Remove --prevalence.")
        if self.cached.calibrate is not None:
            raise InputError(
                "--unfreeze scales already: its logits are divided by the temperature with the lowest log loss on "
                "held-out fifths of the budget. A second scaling needs out-of-fold scores, and no network is trained "
                f"from images in every fold. Remove --calibrate {self.cached.calibrate}, or --unfreeze."
            )


def check_settings(settings: Settings, machine: Machine) -> None:
    """Raise InputError for a setting outside its range."""
    if settings.augment != "auto" and settings.augment not in AUGMENTATIONS:
        raise InputError(f"--augment takes one of auto, {', '.join(AUGMENTATIONS)}; got '{settings.augment}'.")
    if settings.precision not in PRECISIONS:
        raise InputError(f"--precision takes one of {', '.join(PRECISIONS)}; got '{settings.precision}'.")
    if not all(0 < rate < math.inf for rate in settings.learning_rates):
        raise InputError(f"--lr takes finite numbers above 0, got {', '.join(map(str, settings.learning_rates))}.")
    for rate in settings.learning_rates:
        if settings.learning_rates.count(rate) > 1:
            raise InputError(f"--lr {rate:g} is given twice. Name each rate once.")
    if settings.lora and settings.train_batch_norm:
        raise InputError("--lora trains adapters, and no batch norm. Remove --train-batch-norm, or --lora.")
    if settings.train_batch_norm and machine.batch_size < 3:
        raise InputError(
            f"--train-batch-norm takes statistics of each batch, and with --batch-size {machine.batch_size} "
            "one may hold a single image. Take at least 3."
        )
    for option, share in (("--dropout", settings.dropout), ("--label-smoothing", settings.label_smoothing)):
        if not 0 <= share < 1:
            raise InputError(f"{option} must be at least 0 and below 1, got {share:g}.")
    for option, number in (
        ("--epochs", settings.epochs),
        ("--unfreeze-last", settings.last),
        ("--lora", settings.lora),
        ("--batch-size", machine.batch_size),
        ("--accumulate", machine.accumulate),
        ("--checkpoint-every", machine.checkpoint_every),
        ("--workers", machine.workers),
    ):
        if number is not None and number < 1:
            raise InputError(f"{option} takes a number of at least 1, got {number}.")
