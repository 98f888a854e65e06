"""The two files of a saved model: numbers in safetensors, everything else in one JSON; loading executes no code.

DIR/<dataset>-<models>-<method>-<budget>-seed<n>-<identity[:8]>.safetensors    tensors
DIR/<dataset>-<models>-<method>-<budget>-seed<n>-<identity[:8]>.json           format, version, the tensors' sha256, ...
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from mt.errors import InputError, MtError
from mt.system import files
from mt.terminal import progress

MAIN = "dvme"  # the method that a folder stands for, where the methods it is compared with are saved beside it
DECISIONS = frozenset({"calibration", "decision"})  # what a JSON says of scaling and threshold
Tensors = dict[str, npt.NDArray[Any]]


def write_model(stem: Path, tensors: Tensors, about: Mapping[str, Any]) -> None:
    """Write both files aside and rename them, the JSON last: if it exists, its tensors do too.

    The JSON holds the hash of the tensors, so that files which do not belong together are detected.
    """
    from safetensors.numpy import save

    files.make_folder(stem.parent)
    numbers = save({name: np.asarray(array, order="C") for name, array in tensors.items()})
    hashed = {**about, "tensors_sha256": hashlib.sha256(numbers).hexdigest()}
    for suffix, data in ((".safetensors", numbers), (".json", json.dumps(hashed, indent=1).encode())):
        path = stem.with_name(stem.name + suffix)
        try:
            files.write_whole(path, data)
        except OSError as error:
            raise files.explained(error, path, needed=len(data), option="--save") from error


def read_about(path: str | os.PathLike[str]) -> tuple[Path, dict[str, Any]]:
    """Return the JSON file of the model at a path (a folder, or either of its files), and its content.

    If a folder holds several models, its only DVME is taken, and named on stderr.  Raises InputError if there is no
    model, if several are there without exactly one DVME, or if the JSON cannot be read.
    """
    file = _json_at(Path(path))
    try:
        about = json.loads(file.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError, RecursionError) as error:
        raise InputError(f"{file} is not a saved model: expected the .json that --save wrote.") from error
    if not isinstance(about, dict):
        raise InputError(f"{file} is not a saved model: expected a JSON object.")
    return file, about


def check_format(file: Path, about: Mapping[str, Any], name: str, version: int) -> None:
    """Raise InputError for a JSON of another format, or of a version that this mt does not read.

    A model that scales its probabilities or has a threshold of its own is one version above others, so that an mt which
    knows neither refuses it instead of predicting something else.
    """
    version += bool(DECISIONS & about.keys())
    if about.get("format") != name:
        raise InputError(f"{file} is not a saved model: expected a JSON with format '{name}', which --save writes.")
    found = about.get("format_version")
    if found != version:
        newer = isinstance(found, int) and found > version
        raise InputError(
            f"{file} has {name} format {found}, this mt reads {version}. "
            f"{'Install a newer mt.' if newer else 'Save the model again.'}"
        )


def check_classes(about: Mapping[str, Any]) -> None:
    """Raise ValueError for a JSON with more or fewer class names than its model has classes."""
    if len(about["class_names"]) != about["n_classes"]:
        raise ValueError(f"{len(about['class_names'])} class names for {about['n_classes']} classes")


def read_tensors(file: Path, about: Mapping[str, Any]) -> Tensors:
    """Return the tensors of a model's JSON.  Raises InputError if they are missing or do not have its sha256."""
    from safetensors.numpy import load

    numbers = file.with_suffix(".safetensors")
    content = numbers.read_bytes() if numbers.is_file() else None
    expected = about["tensors_sha256"]
    if content is None or hashlib.sha256(content).hexdigest() != expected:
        found = "other content" if content is not None else "no such file"
        raise InputError(
            f"{numbers.name} does not belong to {file}: expected sha256 {str(expected)[:12]}, found {found}. "
            "Copy both files together, or save again."
        )
    return load(content)


@contextmanager
def whole(file: Path) -> Iterator[None]:
    """Turn the errors of a JSON that lacks a key, or does not match its tensors, into an InputError of one line."""
    from safetensors import SafetensorError

    try:
        yield
    except MtError:
        raise
    except (LookupError, TypeError, ValueError, AttributeError, RuntimeError, SafetensorError) as error:
        why = " ".join(str(error).split()) or type(error).__name__
        what = f"it lacks {why}" if isinstance(error, KeyError) else why[:200]
        line = f"{file} does not fit together with its tensors: {what}. Copy both again, or save again."
        raise InputError(line) from error


def _json_at(path: Path) -> Path:
    if path.is_file():
        return path.with_suffix(".json")
    found = sorted(path.glob("*.json")) if path.is_dir() else []
    main = found if len(found) == 1 else [file for file in found if _method(file) == MAIN]
    if len(main) == 1:
        if len(found) > 1:
            progress.note(f"{main[0].name}: the {MAIN} of {len(found)} models in {path}. For another, name its .json.")
        return main[0]
    if not found:
        raise InputError(f"No saved model in {path}. Save one: mt fuse --save {path}")
    names = ", ".join(str(file) for file in found[:3])
    raise InputError(f"{path} holds {len(found)} models. Name one of them: {names}{', ...' if len(found) > 3 else ''}")


def _method(file: Path) -> str:
    """Return the method of a saved model; empty where it states none."""
    try:
        about = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return ""
    return str(about.get("method", "")) if isinstance(about, dict) else ""
