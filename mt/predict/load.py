"""Reading the models that `mt probe --save` and `mt fuse --save` wrote: all that predict from embeddings."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from mt.errors import InputError
from mt.fuse.combined import FORMAT as COMBINED_FORMAT
from mt.fuse.combined import read_combined
from mt.fuse.saved import END_TO_END, read_dvme
from mt.probe.decisions.decided import facts_of_decision
from mt.probe.decisions.scaling import Scaled
from mt.probe.saved import FORMAT as PROBE_FORMAT
from mt.probe.saved import load_probe
from mt.results.model_files import read_about, whole
from mt.types import Array


@dataclass(frozen=True)
class SavedModel:
    """A saved probe, DVME or rival of DVME, read from its files.

    about: the content of the JSON.  backbones: name, fingerprint, width and description of each, in the order of the
    embeddings.  scaling: of its probabilities, fitted out of fold, or None.  thresholds: of class 1, or of each label;
    empty if none were chosen.
    """

    about: dict[str, Any]
    backbones: list[dict[str, Any]]
    class_names: tuple[str, ...]
    task: str
    _predict: Callable[[Sequence[Array]], npt.NDArray[np.float32]]
    scaling: Scaled | None = None
    thresholds: tuple[float | None, ...] = ()

    def predict_proba(self, embeddings: Sequence[Array]) -> npt.NDArray[np.float32]:
        """Return a probability per class (or label), (n, K), from one embedding matrix (n, d_m) per backbone.

        Raises InputError for matrices of other widths.
        """
        widths = [backbone["dim"] for backbone in self.backbones]
        if [X.shape[1] for X in embeddings] != widths:
            found = [X.shape[1] for X in embeddings]
            names = ", ".join(backbone["name"] for backbone in self.backbones)
            raise InputError(f"This model reads embeddings of {names}, {widths} wide; found {found}.")
        p: npt.NDArray[np.float32] = self._predict(embeddings)
        p = p if self.scaling is None else self.scaling.apply(p, self.task)
        return np.column_stack([1 - p, p]) if p.ndim == 1 else p


def load_model(path: str | os.PathLike[str]) -> SavedModel:
    """Read a model that `mt fuse --save` or `mt probe --save` wrote: a folder that holds one, or the path of its .json.

    Raises InputError for other files, several models, newer versions, and files that do not fit together.
    """
    file, about = read_about(path)
    if about.get("format") == END_TO_END:
        raise InputError(f"{file} was trained end to end and reads images: mt predict {file} IMAGES")
    if bags := about.get("bags"):
        raise InputError(
            f"{file} was fitted on cases of several rows ({bags['pool']} per {bags['column']}), and mt predict takes "
            "rows one by one. Its predictions for the test cases: mt report"
        )
    with whole(file):
        scaling, chosen = facts_of_decision(about)
    decided = scaling, tuple(one.value for one in chosen or ())
    if about.get("format") == PROBE_FORMAT:
        probe = load_probe(file).probe
        with whole(file):
            backbone = {
                "name": about["model"],
                "dim": about["dim"],
                "description": about.get("backbone"),
                "fingerprint": about["fingerprints"]["train"][0]["backbone"],
            }
        names = tuple(about["class_names"])
        return SavedModel(about, [backbone], names, about["task"], lambda X: probe.probabilities(X[0]), *decided)
    fitted = read_combined(file, about) if about.get("format") == COMBINED_FORMAT else read_dvme(file, about)
    return SavedModel(
        about, about["backbones"], tuple(about["class_names"]), about["task"], fitted.probabilities, *decided
    )


def stated(saved: SavedModel) -> list[str]:
    """Return what a reader of the predictions should know of scaling and thresholds, as lines."""
    lines = [] if saved.scaling is None else [f"Probabilities are scaled ({saved.scaling.kind}), fitted out of fold."]
    rule = saved.about.get("decision", {}).get("rule", "")
    names = saved.class_names if saved.task == "multilabel" else saved.class_names[1:2]
    known = [f"'{n}' from {t:.4g}" for n, t in zip(names, saved.thresholds, strict=False) if t is not None]
    none = [f"'{name}'" for name, t in zip(names, saved.thresholds, strict=False) if t is None]
    if known:
        lines.append(f"Predicted at thresholds chosen out of fold ({rule}): {', '.join(known)} on.")
    if none:
        lines.append(f"No threshold ({rule}; too few cases per class): {', '.join(none)}, predicted above 0.5.")
    return lines


def is_end_to_end(path: str | os.PathLike[str]) -> bool:
    """Return whether the one model at a path reads images rather than embeddings."""
    return read_about(path)[1].get("format") == END_TO_END
