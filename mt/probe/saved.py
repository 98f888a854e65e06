"""Fitted probes on disk: numbers in safetensors, everything else in one JSON; loading executes no code.

DIR/<dataset>-<model>-<budget>-seed<n>-<identity[:8]>.safetensors    tensors
DIR/<dataset>-<model>-<budget>-seed<n>-<identity[:8]>.json           format, version, and all that was chosen
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from mt.cache.fingerprint import slug
from mt.errors import InputError
from mt.probe.heads import AveragedProbe
from mt.probe.knn import NeighbourProbe
from mt.probe.linear import LinearProbe, Scaling

if TYPE_CHECKING:
    from mt.probe.fit import Fitted, Probe
    from mt.probe.plan import Question
    from mt.probe.prober import Features

FORMAT = "mt-probe"
FORMAT_VERSION = 1
Tensors = dict[str, npt.NDArray[Any]]


@dataclass(frozen=True)
class SavedProbe:
    """A probe that was read back.  about: what the JSON says of it, the backbone and its fingerprint included."""

    probe: Probe
    about: dict[str, Any]

    def predict_proba(self, X: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
        """Return a probability a class (or label) for embeddings (n, dim) of the same backbone: (n, K)."""
        if X.ndim != 2 or X.shape[1] != self.about["dim"]:
            raise InputError(
                f"The probe takes embeddings of '{self.about['model']}', (n, {self.about['dim']}); found {X.shape}."
            )
        p = self.probe.probabilities(X)
        return np.column_stack([1 - p, p]) if p.ndim == 1 else p


class ProbeFolder:
    """The folder that `--save` fills, one pair of files a fit."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def keep(self, question: Question, features: Features, fitted: Fitted) -> None:
        """Write a fitted probe with all that is needed to predict later."""
        tensors, rebuild = _taken_apart(fitted.probe)
        manifest = features.train.manifest
        about = {
            "format": FORMAT,
            "format_version": FORMAT_VERSION,
            **rebuild,
            "dataset": question.pair.dataset,
            "model": question.pair.model,
            "dim": features.train.dim,
            "class_names": list(features.train.class_names),
            "fraction": question.budget.fraction,
            "shots": question.budget.shots,
            "seed": question.seed,
            "method": question.method,
            "recipe": dict(question.recipe),
            "settings": fitted.settings,
            "selection": fitted.selection,
            "flags": list(fitted.flags),
            "fit": question.identity,
            "fingerprints": question.pair.fingerprints,
            "backbone": manifest.get("inputs", {}).get("backbone"),
        }
        pair, budget = question.pair, str(question.budget).replace(" %", "pct").replace(" ", "-")
        name = f"{slug(pair.dataset)}-{slug(pair.model)}-{budget}-seed{question.seed}-{question.identity[:8]}"
        write_probe(self.folder / name, tensors, about)


def write_probe(stem: Path, tensors: Tensors, about: dict[str, Any]) -> None:
    """Write both files aside and rename them, the JSON last: where it stands, its tensors do."""
    from safetensors.numpy import save

    stem.parent.mkdir(parents=True, exist_ok=True)
    content = json.dumps(about, indent=1).encode()
    for suffix, data in ((".safetensors", save(tensors)), (".json", content)):
        aside = stem.with_name(f"{stem.name}{suffix}.{os.getpid()}.tmp")
        with aside.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        aside.replace(stem.with_name(stem.name + suffix))


def load_probe(path: str | os.PathLike[str]) -> SavedProbe:
    """Read a probe that `mt probe --save` wrote, by the path of its .json.

    Raises InputError for other files and newer versions.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    file = Path(path)
    try:
        about = json.loads(file.read_text(encoding="utf-8"))
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise InputError(
            f"{file} is not a saved probe: expected the .json that `mt probe --save DIR` wrote."
        ) from error
    if not isinstance(about, dict) or about.get("format") != FORMAT:
        raise InputError(f"{file} is not a saved probe: expected a JSON object with format '{FORMAT}'.")
    if about["format_version"] != FORMAT_VERSION:
        raise InputError(
            f"{file} has format {about['format_version']}, this mt reads {FORMAT_VERSION}. Install a newer mt."
        )
    try:
        tensors = load_file(file.with_suffix(".safetensors"))
    except (SafetensorError, FileNotFoundError) as error:
        raise InputError(f"{file} is not a saved probe: its .safetensors cannot be read ({error}).") from error
    return SavedProbe(_put_together(tensors, about), about)


def _taken_apart(probe: Probe) -> tuple[Tensors, dict[str, Any]]:
    """Return a probe's arrays, and the JSON that puts it together again."""
    if isinstance(probe, AveragedProbe):
        parts = [_taken_apart(part) for part in probe.probes]
        tensors = {f"{number}.{name}": array for number, (t, _) in enumerate(parts) for name, array in t.items()}
        return tensors, {**parts[0][1], "averaged": len(parts)}
    if isinstance(probe, LinearProbe):
        tensors = {"coef": probe.coef, "intercept": probe.intercept, "outputs": probe.outputs, "base": probe.base}
        rebuild: dict[str, Any] = {"kind": "linear"}
    elif isinstance(probe, NeighbourProbe):
        tensors = {"bank": probe.bank, "labels": probe.labels}
        rebuild = {"kind": "neighbours", "k": probe.k, "vote": probe.vote, "temperature": probe.temperature}
    else:
        raise TypeError(f"no format for a {type(probe).__name__}")
    tensors |= {"mean": probe.scaling.mean, "scale": probe.scaling.scale}
    clip = probe.scaling.clip if probe.scaling.clip < np.inf else None
    shared = {"task": probe.task, "n_classes": probe.n_classes, "unit_length": probe.scaling.unit, "clip": clip}
    return {name: np.ascontiguousarray(array) for name, array in tensors.items()}, {**rebuild, **shared}


def _put_together(tensors: Tensors, about: dict[str, Any]) -> Probe:
    if about.get("averaged"):
        one = {key: value for key, value in about.items() if key != "averaged"}
        runs = []
        for number in range(about["averaged"]):
            start = f"{number}."
            runs.append(
                _put_together({k.removeprefix(start): v for k, v in tensors.items() if k.startswith(start)}, one)
            )
        return AveragedProbe(tuple(run for run in runs if isinstance(run, LinearProbe)))
    clip = np.inf if about["clip"] is None else about["clip"]
    scaling = Scaling(tensors["mean"], tensors["scale"], unit=about["unit_length"], clip=clip)
    task, n_classes = about["task"], about["n_classes"]
    if about["kind"] == "linear":
        parts = (tensors[name] for name in ("coef", "intercept", "outputs", "base"))
        return LinearProbe(task, n_classes, scaling, *parts)
    rule = {name: about[name] for name in ("k", "vote", "temperature")}
    return NeighbourProbe(task, n_classes, scaling, tensors["bank"], tensors["labels"], **rule)
