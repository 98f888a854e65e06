"""Fitted DVMEs on disk, as `mt.results.model_files` writes them: the network, and the scaling of its inputs."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mt.backbones.recorded import described
from mt.fuse.dvme.fit import FittedDVME
from mt.fuse.dvme.inputs import Inputs
from mt.fuse.dvme.networks import build
from mt.fuse.dvme.problem import NetworkShape
from mt.fuse.dvme.recipes import Recipe
from mt.fuse.dvme.selection import ChosenRecipe
from mt.probe.methods.linear import CLIP, Scaling
from mt.probe.saved import ModelFolder, put_together, taken_apart
from mt.results.model_files import (
    Tensors,
    check_classes,
    check_format,
    read_tensors,
    whole,
)

if TYPE_CHECKING:
    from mt.probe.questions import Question
    from mt.results.store import Fit

FORMAT = "mt-fusion"
BLENDED = "mt-fusion-blend"  # blend has a share of the prediction; versions of mt without blend refuse this format
FORMAT_VERSION = 1
END_TO_END = "mt-end-to-end"  # the format of `mt.fuse.end_to_end.saved`, which reads images, not embeddings


def save_dvme(folder: ModelFolder, question: Question, fitted: FittedDVME, fit: Fit) -> None:
    """Write a fitted DVME with all that is needed to predict later."""
    tensors, about = parts_of_dvme(fitted)
    backbones = described(question.pair.train)
    folder.write(question, fit, tensors, {**about, "attention": fit.outcome["attention"], "backbones": backbones})


def parts_of_dvme(fitted: FittedDVME) -> tuple[Tensors, dict[str, Any]]:
    """Return the tensors of a DVME, and the JSON that rebuilds it, except for class_names and backbones."""
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
    beside: dict[str, Any] = {"format": FORMAT}
    if fitted.blend is not None:
        own, rebuild = taken_apart(fitted.blend)
        tensors |= {f"blend.{name}": value for name, value in own.items()}
        beside = {"format": BLENDED, "share": fitted.choice.share, "blend": rebuild}
    return tensors, {
        **beside,
        "format_version": FORMAT_VERSION,
        "task": fitted.task,
        "n_classes": fitted.n_classes,
        "clip": CLIP,
        "shape": shape,
        "recipe": fitted.choice.recipe.settings(),
        "epochs": fitted.choice.epochs,
        "C": fitted.choice.C,
    }


def read_dvme(file: Path, about: dict[str, Any]) -> FittedDVME:
    """Read what `save_dvme` wrote; file, about: the path and the content of its JSON.

    Raises InputError for another format, a newer version, and files that do not fit together.
    """
    check_format(file, about, BLENDED if about.get("format") == BLENDED else FORMAT, FORMAT_VERSION)
    with whole(file):
        check_classes(about)
        return _fitted(read_tensors(file, about), about)


def _fitted(tensors: Tensors, about: Mapping[str, Any]) -> FittedDVME:
    import torch

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
        model = build(NetworkShape(dims, task=about["task"], **about["shape"]), recipe, None, seed=0)
        state = {name.removeprefix("model."): array for name, array in tensors.items() if name.startswith("model.")}
        model.load_state_dict({name: torch.from_numpy(array.copy()) for name, array in state.items()})
    choice = ChosenRecipe(recipe, about["epochs"], about["C"], share=about.get("share", 1.0))
    blend = None
    if about["format"] == BLENDED:
        own = {name.removeprefix("blend."): array for name, array in tensors.items() if name.startswith("blend.")}
        blend = put_together(own, about["blend"])
    inputs, known = Inputs(tuple(scalings)), (tensors["outputs"], tensors["base"])
    return FittedDVME(model, inputs, about["task"], about["n_classes"], *known, choice, blend)
