"""The request of `mt predict`; imports nothing heavy."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from mt.errors import InputError


@dataclass(frozen=True)
class PredictRequest:
    """A saved model, and the cases to predict for: image files and folders, or the split of a dataset.

    model: a folder with one saved model, or the path of its .json.
    weights: of the backbones: a file, `random`, or the published ones.
    trust_remote_code: repositories of the backbones whose own code may be run.
    on_error: raise at an unreadable image, or skip it.
    cache_dir, data_dir: where a dataset's features and its published files are.
    device, engine: several devices, or a Ray cluster, featurize a dataset; image files use the first device.

    Raises InputError if it names both images and a dataset, or neither, or an engine for images.
    """

    model: str | os.PathLike[str]
    images: Sequence[str | os.PathLike[str]] = ()
    dataset: str | None = None
    split: str = "test"
    cache_dir: str | os.PathLike[str] | None = None
    data_dir: str | os.PathLike[str] | None = None
    weights: str | None = None
    device: str = "auto"
    on_error: Literal["raise", "skip"] = "raise"
    trust_remote_code: Sequence[str] = ()
    engine: str = "local"

    def __post_init__(self) -> None:
        if bool(self.images) == bool(self.dataset):
            raise InputError("Name either image files or folders, or a dataset: --dataset NAME. Not both.")
        if self.images and self.engine != "local":
            raise InputError(f"--engine {self.engine} featurizes a dataset: name one with --dataset NAME.")

    def check_end_to_end(self) -> None:
        """Raise InputError for an option that a network trained end to end would not read."""
        given = {
            "--weights": self.weights,
            "--trust-remote-code": self.trust_remote_code,
            "--engine": self.engine != "local",
        }
        for option, value in given.items():
            if value:
                raise InputError(
                    f"{option} is for models on features. A network trained end to end holds its weights, and predicts "
                    f"from images in this process. Remove {option}."
                )

    @property
    def data_folder(self) -> Path | None:
        return Path(self.data_dir) if self.data_dir else None
