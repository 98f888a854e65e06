"""What a backbone needs before it can be used here: a library, weights, accepted terms, a token, memory, disk.

Nothing is fetched and no library is imported.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
from dataclasses import dataclass
from pathlib import Path

from mt.backbones.embeddings import split_rule, split_views
from mt.backbones.entries.forms import parameters_of
from mt.backbones.entries.spec import HF, OPEN_CLIP, TIMM, BackboneSpec, loader_of
from mt.backbones.weights import place
from mt.system import files
from mt.system.memory import available_memory

_LIBRARIES = {HF: "transformers", OPEN_CLIP: "open_clip", TIMM: "timm"}
BYTES = 4  # of a number in float32
_WEIGHTS = ("*.safetensors", "*.bin", "*.pth", "*.pt")


@dataclass(frozen=True)
class Need:
    """One thing that a backbone needs; `met` is None where only the publisher knows."""

    name: str
    met: bool | None
    said: str


def needs(spec: BackboneSpec) -> list[Need]:
    """Return what a backbone needs, each with what is here or how to get it."""
    here = where_is(spec)
    found = [_library(spec), Need("weights", here is not None, here or "to download")]
    if here is None and spec.weights is not None and spec.weights.by_hand:
        found[-1] = Need("file", False, f"{spec.weights.url}: {spec.weights.by_hand}")
    if here is None and spec.gated:
        page = f"https://huggingface.co/{spec.repository}" if spec.weights is None else spec.weights.url
        found.append(Need("terms", None, f"accept them at {page} (licence: {spec.licence})"))
        if spec.weights is None:
            found.append(_token())
    found.append(_memory(spec))
    if here is None:
        found.append(_disk(spec))
    return found


def memory_mb(spec: BackboneSpec) -> int | None:
    """Return the memory that a backbone's weights take in float32, in MB; None if its size is not known."""
    parameters = parameters_of(_entry_name(spec), spec.network)
    return None if parameters is None else -(-parameters * BYTES // 10**6)


def _entry_name(spec: BackboneSpec) -> str:
    """Return the entry's own name, without the embedding rule and the views of the name that was asked for."""
    return split_rule(split_views(spec.name)[0])[0]


def _memory(spec: BackboneSpec) -> Need:
    needed, free = memory_mb(spec), available_memory() / 1e9
    if needed is None:
        return Need("memory", None, f"{free:.1f} GB free; the size of the network is known once it is built")
    said = f"{needed / 1e3:.1f} GB of {free:.1f} GB free, for the weights in float32"
    return Need("memory", free > needed / 1e3, said)


def where_is(spec: BackboneSpec) -> str | None:
    """Return where a backbone's weights are on this machine: folder, package or hub cache; None if they are not."""
    if spec.weights is not None:
        return place(spec.weights)
    repository = spec.repository or (f"timm/{spec.network}" if "." in spec.network else None)
    if repository is None:
        return None
    snapshots = hub_cache() / f"models--{repository.replace('/', '--')}" / "snapshots"
    return "hub cache" if any(any(snapshots.glob(f"*/{ending}")) for ending in _WEIGHTS) else None


def hub_cache() -> Path:
    """Return the cache folder of the hub's client (huggingface_hub.constants, `HF_HUB_CACHE`)."""
    given = os.environ.get("HF_HUB_CACHE") or os.environ.get("HUGGINGFACE_HUB_CACHE")
    return Path(given).expanduser() if given else _hub_home() / "hub"


def _hub_home() -> Path:
    cache = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser()
    return Path(os.environ.get("HF_HOME") or cache / "huggingface").expanduser()


def _library(spec: BackboneSpec) -> Need:
    name = _LIBRARIES.get(loader_of(spec.network) or TIMM, "timm")
    installed = importlib.util.find_spec(name) is not None
    return Need("library", installed, name if installed else f"{name}: pip install 'medical-transfer[hub]'")


def _token() -> Need:
    if os.environ.get("HF_TOKEN"):
        return Need("token", True, "HF_TOKEN is set")
    file = Path(os.environ.get("HF_TOKEN_PATH") or _hub_home() / "token").expanduser()
    if file.is_file():
        return Need("token", True, f"in {file}")
    return Need("token", False, "set HF_TOKEN, or run: hf auth login")


def _disk(spec: BackboneSpec) -> Need:
    folder = files.weights_dir() if spec.weights is not None else hub_cache()
    there = next(one for one in (folder, *folder.parents) if one.exists())
    free = shutil.disk_usage(there).free / 1e6
    if spec.size_mb is None:
        return Need("disk", None, f"{free / 1e3:.1f} GB free in {folder}; the size of the download is not known")
    return Need("disk", free > spec.size_mb, f"{spec.size_mb / 1e3:.1f} GB of {free / 1e3:.1f} GB free in {folder}")
