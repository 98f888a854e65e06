"""Networks trained end to end on disk: all weights in safetensors, everything else in one JSON; loading runs no code.

DIR/<dataset>-<models>-<method>-<budget>-seed<n>.safetensors    the tuned backbones, the scaling, the head
DIR/<dataset>-<models>-<method>-<budget>-seed<n>.json           format, version, backbones, head, classes, settings
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch
from safetensors.torch import load, save

from mt.errors import InputError
from mt.featurize import Preprocess, load_backbone, load_dataset
from mt.featurize.datasets import Dataset, Split
from mt.featurize.datasets.images import ImageFiles
from mt.featurize.embed import default_workers
from mt.fuse.backbones import described
from mt.fuse.dvme import DVME
from mt.fuse.fit import link, torch_device
from mt.fuse.saved import END_TO_END, read_about, read_tensors, stem_of
from mt.fuse.unfrozen.augment import AUGMENTATIONS
from mt.fuse.unfrozen.images import Images
from mt.fuse.unfrozen.network import EndToEnd, LinearHead, Standardize
from mt.fuse.unfrozen.ranks import Ranks
from mt.fuse.unfrozen.settings import Machine, Settings
from mt.fuse.unfrozen.work import Work, predict
from mt.probe.saved import write_probe

if TYPE_CHECKING:
    from mt.fuse.joined import Joined
    from mt.fuse.unfrozen.fit import Fitted
    from mt.probe.plan import Question

FORMAT_VERSION = 1
Array = npt.NDArray[Any]
Found = tuple[list[str], npt.NDArray[np.float32]]


class TunedFolder:
    """The folder that `--save` fills, one pair of files a fit."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def keep(self, question: Question, joined: Joined, fitted: Fitted, outcome: Mapping[str, Any]) -> None:
        """Write a tuned network with all that is needed to predict later."""
        assert fitted.network is not None
        about = {
            "dataset": question.pair.dataset, "method": question.method, "fraction": question.budget.fraction,
            "shots": question.budget.shots, "seed": question.seed, "fit": question.identity,
            "class_names": list(joined.first.train.class_names), "backbones": described(question.pair.train),
            **{name: outcome[name] for name in ("settings", "selection", "flags", "attention", "n_labels", "versions")},
        }  # fmt: skip
        write_tuned(self.folder / stem_of(question), fitted, about)


def write_tuned(stem: Path, fitted: Fitted, about: Mapping[str, Any]) -> None:
    """Write a tuned network as stem.safetensors and stem.json; `about` needs class_names and backbones."""
    network, start = fitted.network, fitted.start
    assert network is not None
    tensors = {name: value.cpu().contiguous() for name, value in network.state_dict().items()}
    tensors |= {"outputs": torch.from_numpy(start.outputs), "base": torch.from_numpy(start.base)}
    write_probe(stem, {name: value.numpy() for name, value in tensors.items()}, {
        "format": END_TO_END, "format_version": FORMAT_VERSION, "task": start.task, "n_classes": start.n_classes,
        "head": _head_shape(network.head), "clip": network.clip, **about,
        "tensors_sha256": hashlib.sha256(save(tensors)).hexdigest(),
    })  # fmt: skip


def load_tuned(path: str | os.PathLike[str]) -> TunedModel:
    """Read what `mt fuse --unfreeze --save` wrote: a folder that holds one model, or the path of its .json.

    Raises InputError for other files, newer versions, and files that do not fit together.
    """
    file, about = read_about(path)
    if about.get("format") != END_TO_END or about["format_version"] != FORMAT_VERSION:
        found = f"{about.get('format')} {about.get('format_version')}"
        raise InputError(f"{file} holds {found}, this mt reads {END_TO_END} {FORMAT_VERSION}. Install a newer mt.")
    tensors = load(read_tensors(file, about))
    outputs, base = tensors.pop("outputs").numpy(), tensors.pop("base").numpy()
    backbones = [
        load_backbone(one["name"], "random", image_size=(one["description"] or {}).get("image_size"))
        for one in about["backbones"]
    ]
    scalings = [Standardize(torch.zeros(one.dim), torch.ones(one.dim), about["clip"]) for one in backbones]
    dims = [one.dim for one in backbones]
    network = EndToEnd([one.model for one in backbones], scalings, _head(dims, about["head"]))
    network.load_state_dict(tensors)
    return TunedModel(about, network.eval(), [one.preprocess for one in backbones], outputs, base)


@dataclass(frozen=True)
class TunedModel:
    """A network trained end to end that was read back.  about: what the JSON says."""

    about: dict[str, Any]
    network: EndToEnd
    preprocessing: Sequence[Preprocess]
    outputs: Array
    base: Array

    @property
    def class_names(self) -> tuple[str, ...]:
        return tuple(self.about["class_names"])

    @property
    def task(self) -> str:
        return str(self.about["task"])

    def predict_files(self, files: Sequence[Path], *, device: str = "auto") -> Found:
        """Return the paths of image files and a probability a class (or label) of each, (n, K)."""
        ids = [str(file) for file in files]
        split = Split("files", ids, np.zeros(len(ids), np.int64), ImageFiles(ids))
        dataset = Dataset("files", None, "multiclass", self.class_names, "", "photo", {"files": split})
        return self._predict(dataset, "files", device)

    def predict_split(self, name: str, split: str, *, data_dir: Path | None = None, device: str = "auto") -> Found:
        """Return the ids of a dataset's split and a probability a class (or label) of each, (n, K)."""
        dataset = load_dataset(name, data_dir, on_error="skip")
        if split not in dataset.splits:
            raise InputError(f"'{name}' has no split '{split}'. It has: {', '.join(dataset.splits)}")
        return self._predict(dataset, split, device)

    def _predict(self, dataset: Dataset, split: str, device: str) -> Found:
        ids = dataset.splits[split].ids
        work = Work(
            Images(dataset, ids, self.preprocessing), AUGMENTATIONS["none"], Settings(), Machine(),
            torch_device(device), Ranks(), default_workers(), self.task, seed=0,
        )  # fmt: skip
        logits, _ = predict(self.network, work, np.arange(len(ids)))
        out = np.tile(self.base, (len(ids), 1))
        out[:, self.outputs] = link(logits, self.task)
        return list(ids), out.astype(np.float32)


def _head_shape(head: DVME | LinearHead) -> dict[str, Any]:
    """Return what builds the head again, beside its weights."""
    if isinstance(head, LinearHead):
        return {"kind": "linear", "n_outputs": head.n_outputs}
    return {
        "kind": "dvme", "n_outputs": head.n_outputs, "width": head.width, "heads": head.attention.heads,
        "residual": head.residual, "uniform": head.attention.uniform,
    }  # fmt: skip


def _head(dims: Sequence[int], shape: Mapping[str, Any]) -> DVME | LinearHead:
    options = {name: value for name, value in shape.items() if name != "kind"}
    return DVME(dims, **options) if shape["kind"] == "dvme" else LinearHead(dims[0], shape["n_outputs"], dropout=0.0)
