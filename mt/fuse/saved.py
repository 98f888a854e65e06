"""Fitted DVMEs on disk, as `mt.results.model_files` writes them: the network, and the scaling of its inputs."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from mt.backbones.recorded import described
from mt.errors import InputError
from mt.fuse.dvme.fit import FittedDVME
from mt.fuse.dvme.inputs import Inputs
from mt.fuse.dvme.recipes import Recipe
from mt.fuse.dvme.selection import Choice
from mt.fuse.dvme.training import Shape, build
from mt.probe.methods.linear import CLIP, Scaling
from mt.probe.saved import FORMAT as PROBE_FORMAT
from mt.probe.saved import facts_of, load_probe, stem_of
from mt.results.model_files import (
    check_classes,
    check_format,
    read_about,
    read_tensors,
    whole,
    write_model,
)

if TYPE_CHECKING:
    from mt.fuse.aligned import Joined
    from mt.probe.questions import Question
    from mt.results.store import Fit

FORMAT = "mt-fusion"
FORMAT_VERSION = 1
END_TO_END = "mt-end-to-end"  # the format of `mt.fuse.end_to_end.saved`, which reads images, not embeddings
Array = npt.NDArray[Any]


@dataclass(frozen=True)
class SavedModel:
    """A probe or a DVME that was read back.

    backbones: for every model in order its name, fingerprint, width and description; about: what the JSON says.
    """

    about: dict[str, Any]
    backbones: list[dict[str, Any]]
    class_names: tuple[str, ...]
    task: str
    _predict: Any

    def predict_proba(self, embeddings: Sequence[Array]) -> npt.NDArray[np.float32]:
        """Return a probability a class (or label), (n, K), of one embedding matrix (n, d_m) a backbone."""
        widths = [backbone["dim"] for backbone in self.backbones]
        if [X.shape[1] for X in embeddings] != widths:
            found = [X.shape[1] for X in embeddings]
            names = ", ".join(backbone["name"] for backbone in self.backbones)
            raise InputError(f"This model reads embeddings of {names}, {widths} wide; found {found}.")
        p: npt.NDArray[np.float32] = self._predict(embeddings)
        return np.column_stack([1 - p, p]) if p.ndim == 1 else p


class ModelFolder:
    """The folder that `--save` fills, one pair of files a fit."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def keep(self, question: Question, joined: Joined, fitted: FittedDVME, fit: Fit) -> None:
        """Write a fitted DVME with all that is needed to predict later."""
        write_dvme(self.folder / stem_of(question), fitted, {
            **facts_of(question, fit, joined.first.cases), "attention": fit.outcome["attention"],
            "backbones": described(question.pair.train),
        })  # fmt: skip


def write_dvme(stem: Path, fitted: FittedDVME, about: Mapping[str, Any]) -> None:
    """Write a DVME as stem.safetensors and stem.json; `about` needs class_names and backbones."""

    tensors = {"outputs": fitted.outputs, "base": fitted.base}
    for number, scaling in enumerate(fitted.inputs.scalings):
        tensors |= {f"mean.{number}": scaling.mean, f"scale.{number}": scaling.scale}
    shape = None
    if fitted.model is not None:
        tensors |= {f"model.{name}": value.numpy() for name, value in fitted.model.state_dict().items()}
        shape = {
            "n_outputs": fitted.model.n_outputs,
            "width": fitted.model.width,
            "heads": fitted.model.attention.heads,
        }
    write_model(stem, tensors, {
        "format": FORMAT, "format_version": FORMAT_VERSION, "task": fitted.task, "n_classes": fitted.n_classes,
        "clip": CLIP, "shape": shape, "recipe": fitted.choice.recipe.settings(), "epochs": fitted.choice.epochs,
        "C": fitted.choice.C, **about,
    })  # fmt: skip


def load_model(path: str | os.PathLike[str]) -> SavedModel:
    """Read what `mt fuse --save` or `mt probe --save` wrote: a folder that holds one model, or the path of its .json.

    Raises InputError for other files, several models, newer versions, and files that do not fit together.
    """
    file, about = read_about(path)
    if about.get("format") == END_TO_END:
        raise InputError(f"{file} was trained end to end and reads images: mt predict {file} IMAGES")
    if about.get("format") == PROBE_FORMAT:
        saved = load_probe(file)
        with whole(file):
            backbone = {"name": about["model"], "dim": about["dim"], "description": about.get("backbone"),
                        "fingerprint": about["fingerprints"]["train"][0]["backbone"]}  # fmt: skip
        names = tuple(about["class_names"])
        return SavedModel(about, [backbone], names, about["task"], lambda X: saved.probe.probabilities(X[0]))
    check_format(file, about, FORMAT, FORMAT_VERSION)
    with whole(file):
        check_classes(about)
        fitted = _read_dvme(file, about)
        return SavedModel(about, about["backbones"], tuple(about["class_names"]), about["task"], fitted.probabilities)


def is_end_to_end(path: str | os.PathLike[str]) -> bool:
    """Return whether the one model at a path reads images rather than embeddings."""
    return read_about(path)[1].get("format") == END_TO_END


def _read_dvme(file: Path, about: Mapping[str, Any]) -> FittedDVME:
    import torch

    tensors = read_tensors(file, about)
    recipe = Recipe(**about["recipe"])
    scalings = [
        Scaling(tensors[f"mean.{n}"], tensors[f"scale.{n}"], clip=about["clip"]) for n in range(len(about["backbones"]))
    ]
    widths = [backbone["dim"] for backbone in about["backbones"]]
    if [len(scaling.mean) for scaling in scalings] != widths or f"mean.{len(widths)}" in tensors:
        raise ValueError(f"the backbones are {widths} wide, their scaling is not")
    model = None
    if about["shape"] is not None:
        dims = tuple(len(scaling.mean) for scaling in scalings)
        model = build(Shape(dims, task=about["task"], **about["shape"]), recipe, None, seed=0)
        state = {name.removeprefix("model."): array for name, array in tensors.items() if name.startswith("model.")}
        model.load_state_dict({name: torch.from_numpy(array.copy()) for name, array in state.items()})
    choice = Choice(recipe, about["epochs"], about["C"])
    return FittedDVME(
        model, Inputs(tuple(scalings)), about["task"], about["n_classes"], tensors["outputs"], tensors["base"], choice
    )
