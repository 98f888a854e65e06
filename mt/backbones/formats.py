"""Forms in which weights lie on a disk beside torch's own: safetensors, shards with their index, TorchScript."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mt.errors import WeightsError

INDEX = ".index.json"
_MOST_HEADER = 100 << 20  # bytes of a safetensors header, as the library allows


def is_safetensors(path: Path) -> bool:
    """Return whether a file's content, or else its name, is that of a safetensors file."""
    with open(path, "rb") as file:
        head = file.read(9)
    size = int.from_bytes(head[:8], "little")
    return path.suffix == ".safetensors" or (len(head) == 9 and head[8:] == b"{" and 0 < size <= _MOST_HEADER)


def read_safetensors(path: Path) -> dict[str, Any]:
    """Return the tensors of a safetensors file."""
    from safetensors.torch import load_file

    return dict(load_file(path))


def read_shards(index: Path, read: Callable[[Path], dict[str, Any]]) -> dict[str, Any]:
    """Return the tensors of all shards that an index names, each opened by `read`; shards lie beside the index.

    Raises:
        WeightsError: the file is not an index, a shard is missing or elsewhere, or a tensor is not in its shard.
    """
    try:
        places: dict[str, str] = dict(json.loads(index.read_text(encoding="utf-8"))["weight_map"])
    except (ValueError, KeyError, TypeError) as error:
        raise WeightsError(f"{index} is not an index of shards: expected JSON with a 'weight_map'.") from error
    tensors: dict[str, Any] = {}
    for name in sorted(set(places.values())):
        if Path(name).name != name:
            raise WeightsError(f"{index} names the shard {name}, which is not beside it.")
        shard = index.with_name(name)
        if not shard.is_file():
            raise WeightsError(f"{index} names the shard {name}, which is not there. Fetch all files of the model.")
        tensors |= read(shard)
    missing = sorted(set(places) - set(tensors))
    if missing:
        raise WeightsError(f"{index}: {len(missing)} tensors are not in their shards, first '{missing[0]}'.")
    return {name: tensors[name] for name in places}


def is_torchscript(path: Path) -> bool:
    """Return whether a file is a TorchScript archive, which holds code beside its constants."""
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except (OSError, zipfile.BadZipFile):
        return False
    return any(name.endswith("/constants.pkl") for name in names) and any("/code/" in name for name in names)
