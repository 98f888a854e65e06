"""Reading back what `mt probe --save` and `mt fuse --save` wrote: anything that predicts from embeddings."""

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
from mt.probe.saved import FORMAT as PROBE_FORMAT
from mt.probe.saved import load_probe
from mt.results.model_files import read_about, whole

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class SavedModel:
    """A probe, a DVME or one of its rivals that was read back.

    backbones: for every model in order its name, fingerprint, width and description; about: what the JSON says.
    """

    about: dict[str, Any]
    backbones: list[dict[str, Any]]
    class_names: tuple[str, ...]
    task: str
    _predict: Callable[[Sequence[Array]], npt.NDArray[np.float32]]

    def predict_proba(self, embeddings: Sequence[Array]) -> npt.NDArray[np.float32]:
        """Return a probability a class (or label), (n, K), of one embedding matrix (n, d_m) a backbone."""
        widths = [backbone["dim"] for backbone in self.backbones]
        if [X.shape[1] for X in embeddings] != widths:
            found = [X.shape[1] for X in embeddings]
            names = ", ".join(backbone["name"] for backbone in self.backbones)
            raise InputError(f"This model reads embeddings of {names}, {widths} wide; found {found}.")
        p: npt.NDArray[np.float32] = self._predict(embeddings)
        return np.column_stack([1 - p, p]) if p.ndim == 1 else p


def load_model(path: str | os.PathLike[str]) -> SavedModel:
    """Read what `mt fuse --save` or `mt probe --save` wrote: a folder that holds one model, or the path of its .json.

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
    if about.get("format") == PROBE_FORMAT:
        probe = load_probe(file).probe
        with whole(file):
            backbone = {"name": about["model"], "dim": about["dim"], "description": about.get("backbone"),
                        "fingerprint": about["fingerprints"]["train"][0]["backbone"]}  # fmt: skip
        names = tuple(about["class_names"])
        return SavedModel(about, [backbone], names, about["task"], lambda X: probe.probabilities(X[0]))
    fitted = read_combined(file, about) if about.get("format") == COMBINED_FORMAT else read_dvme(file, about)
    return SavedModel(about, about["backbones"], tuple(about["class_names"]), about["task"], fitted.probabilities)


def is_end_to_end(path: str | os.PathLike[str]) -> bool:
    """Return whether the one model at a path reads images rather than embeddings."""
    return read_about(path)[1].get("format") == END_TO_END
