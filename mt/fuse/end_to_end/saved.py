"""Networks trained end to end on disk, as `mt.results.model_files` writes them: tuned backbones, scaling, head."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch

from mt.backbones import Preprocess
from mt.backbones.recorded import described, load_untrained
from mt.cache.names import bare_name, without_place
from mt.datasets import Dataset, DatasetSettings, ImageError, Split, load_dataset
from mt.datasets.images import ImageFiles
from mt.datasets.readers.made_from import placed
from mt.datasets.settings import decoded_alike, decoding_of
from mt.errors import InputError
from mt.fuse.dvme.module import DVME
from mt.fuse.end_to_end.augment import AUGMENTATIONS
from mt.fuse.end_to_end.blended import Blended, StartBlend
from mt.fuse.end_to_end.images import Images
from mt.fuse.end_to_end.network import EndToEnd, LinearHead, Standardize
from mt.fuse.end_to_end.request import Machine, Settings
from mt.fuse.end_to_end.work import Work, predict
from mt.fuse.saved import END_TO_END
from mt.probe.methods.linear import link
from mt.probe.saved import ModelFolder, put_together, taken_apart
from mt.results.model_files import (
    Tensors,
    check_classes,
    check_format,
    read_about,
    read_tensors,
    whole,
)
from mt.system.device import decoders, pick_device
from mt.system.ranks import Ranks
from mt.terminal import progress
from mt.types import Array, LabelledRows

if TYPE_CHECKING:
    from mt.fuse.end_to_end.choice.fit import TunedFit
    from mt.probe.questions import Question
    from mt.results.store import Fit

# Version 1 holds the trained network alone: neither share nor temperature, no tensor `start.*`.  Version 3 may hold
# `blend`, which predicts beside the start, version 4 the models' own heads, `own.*`, version 5 networks of trials,
# `trial.0.*` and so on, version 6 further trained networks, `trained.0.*` and so on.  The lowest version that holds all
# of a network is written.  Of all networks but one trained one only the tensors that differ from its own are written.
FORMAT_VERSION = 6
Found = tuple[list[str], npt.NDArray[np.float32]]


def save_tuned(folder: ModelFolder, question: Question, fitted: TunedFit, fit: Fit) -> None:
    """Write the networks that predict, with all that is needed to predict later."""
    network, start = fitted.network, fitted.start
    if network is None:
        progress.note("  no network to save: this draw has one class, which is predicted everywhere")
        return
    first, last = network.parts[0], network.parts[-1]
    tensors = {name: value.cpu().numpy() for name, value in last.state_dict().items()}
    trained = dict(tensors)
    if first is not last:
        tensors |= _beside("start", first, trained)
    for name, networks in (("trained", network.trained[:-1]), ("trial", network.trials)):
        for number, one in enumerate(networks):
            tensors |= _beside(f"{name}.{number}", one, trained)
    version, beside = 2, dict[str, Any]()
    if network.blend is not None:
        own, rebuild = taken_apart(network.blend.probe)
        tensors |= {f"blend.{name}": value for name, value in own.items()}
        version, beside = 3, {"blend": rebuild, "blend_beside": network.blend.share}
    if len(last.own):
        version = 4
    if network.trials:
        version = 5
        beside["trials"] = [_head_shape(trial.head) for trial in network.trials]
    if len(network.trained) > 1:
        version = FORMAT_VERSION
        beside["trained"] = len(network.trained)
    folder.write(
        question,
        fit,
        {**tensors, "outputs": start.outputs, "base": start.base},
        {
            "format": END_TO_END,
            "format_version": version,
            **beside,
            "task": start.task,
            "n_classes": start.n_classes,
            "head": _head_shape(last.head),
            "clip": last.clip,
            "share": network.share,
            "temperature": network.temperature,
            "attention": fit.outcome["attention"],
            "backbones": described(question.pair.train),
        },
    )


def _beside(prefix: str, network: EndToEnd, trained: Tensors) -> Tensors:
    """Return the tensors of a network that differ from the trained one's, with a prefix to their names."""
    state = {name: value.cpu().numpy() for name, value in network.state_dict().items()}
    return {f"{prefix}.{name}": value for name, value in state.items() if not np.array_equal(value, trained[name])}


def load_tuned(path: str | os.PathLike[str]) -> TunedModel:
    """Read what `mt fuse --unfreeze --save` wrote: a folder that holds one model, or the path of its .json.

    Raises InputError for other files, newer versions, and files that do not fit together.
    """
    file, about = read_about(path)
    if about.get("format_version") not in range(1, FORMAT_VERSION + 1) or about.get("format") != END_TO_END:
        check_format(file, about, END_TO_END, FORMAT_VERSION)
    with whole(file):
        check_classes(about)
        tensors = read_tensors(file, about)
        outputs, base = tensors.pop("outputs"), tensors.pop("base")
        before, beside = _taken(tensors, "start."), _taken(tensors, "blend.")
        tried = [(head, _taken(tensors, f"trial.{number}.")) for number, head in enumerate(about.get("trials", []))]
        further = [_taken(tensors, f"trained.{number}.") for number in range(about.get("trained", 1) - 1)]
        last, preprocessing = _network(about, about["head"], tensors)
        trained = [_network(about, about["head"], {**tensors, **its})[0] for its in further]
        trials = [_network(about, head, {**tensors, **its})[0] for head, its in tried]
        shared = {name: value for name, value in tensors.items() if not name.startswith("own.")}
        start = _network(about, about["head"], {**shared, **before})[0] if before else None
        share, blend = about.get("share", 1.0), None
        if "blend" in about:
            blend = StartBlend(put_together(beside, about["blend"]), about["blend_beside"], outputs)
        network = Blended(
            start or last,
            [*trained, last],
            about["task"],
            share=share if before or blend else 1.0,
            temperature=about.get("temperature", 1.0),
            blend=blend,
            trials=trials,
        )
        precision = about["settings"]["recipe"]["precision"]
    return TunedModel(about, network.eval(), preprocessing, outputs, base, precision)


def _taken(tensors: Tensors, prefix: str) -> Tensors:
    """Remove the tensors whose names begin with a prefix, and return them without it."""
    return {name.removeprefix(prefix): tensors.pop(name) for name in list(tensors) if name.startswith(prefix)}


def _network(about: Mapping[str, Any], head: Mapping[str, Any], tensors: Tensors) -> tuple[EndToEnd, list[Preprocess]]:
    """Return the network with the given weights, and each backbone's preprocessing."""
    backbones = [load_untrained(one) for one in about["backbones"]]
    scalings = [Standardize(torch.zeros(one.dim), torch.ones(one.dim), about["clip"]) for one in backbones]
    network = EndToEnd([one.model for one in backbones], scalings, _head([one.dim for one in backbones], head))
    if any(name.startswith("own.") for name in tensors):
        network.add_own_heads()
    network.load_state_dict({name: torch.from_numpy(array.copy()) for name, array in tensors.items()})
    return network, [one.preprocess for one in backbones]


@dataclass(frozen=True)
class TunedModel:
    """A network trained end to end, read from disk.  about: its JSON.  precision: the arithmetic of its prediction."""

    about: dict[str, Any]
    network: Blended
    preprocessing: Sequence[Preprocess]
    outputs: Array
    base: Array
    precision: str

    @property
    def class_names(self) -> tuple[str, ...]:
        return tuple(self.about["class_names"])

    @property
    def task(self) -> str:
        return str(self.about["task"])

    def predict_files(self, files: Sequence[Path], *, device: str = "auto") -> Found:
        """Return the paths of image files and a probability per class (or label) of each, (n, K)."""
        ids = [str(file) for file in files]
        rows = LabelledRows(None, np.zeros(len(ids), np.int64), ids=ids)
        split = Split("files", rows, ImageFiles(ids, decoding=decoding_of(self.about)))
        dataset = Dataset("files", None, "multiclass", self.class_names, "", "unknown", {"files": split})
        return self._predict(dataset, "files", device)

    def predict_split(
        self,
        name: str,
        split: str,
        *,
        data_dir: Path | None = None,
        device: str = "auto",
        without: Collection[str] = (),
    ) -> Found:
        """Return the ids of a dataset's split, some omitted, and a probability per class (or label) of each, (n, K)."""
        return self._predict(self._dataset(name, split, data_dir), split, device, without)

    def unreadable(self, name: str, split: str, *, data_dir: Path | None = None) -> tuple[list[str], dict[str, str]]:
        """Return the ids of a dataset's split, and why some of its images cannot be read; every image is decoded."""
        part = self._dataset(name, split, data_dir).splits[split]
        problems: dict[str, str] = {}
        with progress.bar("reading", len(part)) as advance:
            for place, id_ in enumerate(part.ids):
                (image,) = part.images.load(place, place + 1)
                if isinstance(image, ImageError):
                    problems[id_] = str(image)
                advance(1)
        return list(part.ids), problems

    def _dataset(self, name: str, split: str, data_dir: Path | None) -> Dataset:
        """Load a dataset: the one that the model was trained on with all its settings, another decoded alike."""
        own = bare_name(without_place(name)) == bare_name(self.about["dataset"])
        settings = DatasetSettings(**self.about.get("dataset_settings", {}) if own else {})
        name = placed(name if own else decoded_alike(name, self.about), data_dir)
        dataset = load_dataset(name, data_dir, settings=settings, on_error="skip")
        if split not in dataset.splits:
            raise InputError(f"'{name}' has no split '{split}'. It has: {', '.join(dataset.splits)}")
        return dataset

    def _predict(self, dataset: Dataset, split: str, device: str, without: Collection[str] = ()) -> Found:
        ids = [id_ for id_ in dataset.splits[split].ids if id_ not in without]
        work = Work(
            Images(dataset, ids, self.preprocessing),
            AUGMENTATIONS["none"],
            Settings(precision=self.precision),
            Machine(),
            pick_device(device),
            Ranks(),
            decoders(),
            self.task,
            len(self.class_names),
            seed=0,
        )
        logits, _ = predict(self.network, work, np.arange(len(ids)))
        out = np.tile(self.base, (len(ids), 1))
        out[:, self.outputs] = link(logits, self.task)
        return list(ids), out.astype(np.float32)


def _head_shape(head: DVME | LinearHead) -> dict[str, Any]:
    """Return what builds the head again, beside its weights."""
    if isinstance(head, LinearHead):
        return {"kind": "linear", "n_outputs": head.n_outputs}
    return {
        "kind": "dvme",
        "n_outputs": head.n_outputs,
        "width": head.width,
        "heads": head.attention.heads,
        "residual": head.residual,
        "uniform": head.attention.uniform,
    }


def _head(dims: Sequence[int], shape: Mapping[str, Any]) -> DVME | LinearHead:
    options = {name: value for name, value in shape.items() if name != "kind"}
    return DVME(dims, **options) if shape["kind"] == "dvme" else LinearHead(dims[0], shape["n_outputs"])
