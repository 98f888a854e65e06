"""Loading a backbone: the network with its weights, its preprocessing, and the fingerprint of what it computes.

    backbone = load_backbone("dino")
    embeddings = backbone.model(torch.stack([backbone.preprocess(image) for image in images]))

The backbones are listed in `mt.backbones.registry`.
"""

from __future__ import annotations

import os
from collections.abc import Collection
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mt.backbones.entries.spec import BackboneSpec
from mt.backbones.preprocess import Preprocess
from mt.backbones.registry import REGISTRY, find_spec
from mt.backbones.weights import RANDOM, find
from mt.cache.names import digest
from mt.errors import InputError

if TYPE_CHECKING:
    import torch
    from torch import nn

    from mt.backbones.networks.frozen import FrozenNetwork
    from mt.cache.content import ContentIndex

__all__ = ["REGISTRY", "Backbone", "BackboneSpec", "Resolved", "find_spec", "load_backbone", "resolve_backbone"]

# Raised whenever our own code changes an embedding's numbers; part of the fingerprint, so old files are not reused.
EXTRACTION_REVISION = 1
_REMEMBERED = 2  # raised when descriptions gain entries: backbones that were remembered are then loaded again
MEMORY_FORMAT = "channels_last"


@dataclass(frozen=True)
class Resolved:
    """What identifies a backbone's embeddings, known without loading it."""

    name: str
    dim: int
    fingerprint: str
    description: dict[str, Any]
    random_weights: bool


@dataclass(frozen=True)
class Backbone:
    """A frozen network with its preprocessing.

    `model` maps normalised images (N, 3, S, S), S the side of the preprocessing's crop, to embeddings (N, dim),
    averaged over views where the name asks for some; `description` is the JSON that `fingerprint` is the digest of;
    `notes` are lines to show whoever uses it, such as a non-commercial licence.
    """

    name: str
    model: nn.Module
    preprocess: Preprocess
    dim: int
    fingerprint: str
    description: dict[str, Any]
    random_weights: bool
    licence: str
    notes: tuple[str, ...]


def load_backbone(
    name: str,
    weights: str | Path | None = None,
    device: str | torch.device = "cpu",
    image_size: int | None = None,
    *,
    precision: str = "float32",
    index: ContentIndex | None = None,
    trust_remote_code: Collection[str] = (),
) -> Backbone:
    """Load a backbone in eval mode, its parameters frozen.

    Args:
        name: a name of the registry, `timm:NAME` or another loader's, each with `:RULE` for another embedding and
            `:VIEWS` for the average over views; see `mt models`.
        weights: a .pth, .ckpt or .safetensors file; `random` for seeded random weights; None for the published ones,
            looked for in the weights folder, an installed package, and then downloaded.
        device: where the model is put.
        image_size: side of the network's input in pixels, its own by default; resizing keeps the official proportion.
        precision: the arithmetic that the caller will run the model in (`float32`, `tf32`, `bfloat16`); it changes
            the fingerprint, not the model.
        index: remembers hashes, and what `resolve_backbone` needs to name the backbone without loading it.
        trust_remote_code: repositories, or folders, of `hf:` models whose own code may be run.

    Raises:
        InputError: an unknown name, or an image size that the network cannot take.
        WeightsError: weights that cannot be found, downloaded, verified or fitted strictly into the network.
        MissingExtraError: the library that builds the network is not installed.
    """
    import torch

    spec = find_spec(name)
    if spec.preprocess is not None:
        check_image_size(spec, image_size)
    loaded = _network(spec, weights, image_size, index, trust_remote_code)
    description = {
        "architecture": loaded.architecture or spec.network,
        "embedding": spec.embedding,
        "weights": loaded.weights_sha256,
        "random_weights": weights == RANDOM,
        "preprocessing": loaded.preprocess.describe(),
        "image_size": loaded.preprocess.crop,
        "precision": precision,
        "memory_format": MEMORY_FORMAT,
        "revision": EXTRACTION_REVISION,
    }
    if loaded.origin is not None:
        description["origin"] = dict(loaded.origin)
    network, preprocess = loaded.network, loaded.preprocess
    if spec.views is not None:
        from mt.backbones.networks.averaged import averaged

        network, preprocess = averaged(network, preprocess, spec.views)
        description["views"] = spec.views
    backbone = Backbone(
        name=name,
        model=network.to(torch.device(device)).to(memory_format=torch.channels_last),
        preprocess=preprocess,
        dim=loaded.dim,
        fingerprint=digest(description),
        description=description,
        random_weights=weights == RANDOM,
        licence=spec.licence,
        notes=(*spec.notes, *_code_notes(spec, loaded)),
    )
    if index is not None:
        resolved = Resolved(name, backbone.dim, backbone.fingerprint, description, backbone.random_weights)
        state = None if loaded.file is None else _file_state(loaded.file)
        seen = {"file": state, "watched": [_file_state(file) for file in loaded.watched]}
        index.remember("backbone", _key(name, weights, image_size, precision), seen | asdict(resolved))
    return backbone


def resolve_backbone(
    name: str,
    weights: str | Path | None = None,
    image_size: int | None = None,
    *,
    precision: str = "float32",
    index: ContentIndex,
) -> Resolved | None:
    """Return what an earlier `load_backbone` found, without torch; None if unknown or if the weights' file changed."""
    spec = find_spec(name)
    known = index.recall("backbone", _key(name, weights, image_size, precision))
    if known is None:
        return None
    then, watched = known.pop("file"), known.pop("watched", [])
    if any(not Path(one[0]).is_file() or _file_state(Path(one[0])) != one for one in watched):
        return None
    if weights == RANDOM:
        return Resolved(**known) if then is None else None
    if then is None:
        return None
    file = find(spec.weights, weights) if spec.weights or weights else Path(then[0])
    unchanged = file is not None and file.is_file() and _file_state(file) == then
    return Resolved(**known) if unchanged else None


def _network(
    spec: BackboneSpec,
    weights: str | Path | None,
    image_size: int | None,
    index: ContentIndex | None,
    trusted: Collection[str],
) -> FrozenNetwork:
    """Return the frozen network: a hub's where the entry names no weights of its own."""
    if spec.weights is None:
        from mt.backbones.hubs import load_from

        return load_from(spec, weights, image_size, trusted)
    from mt.backbones.networks.filled import load_published

    return load_published(spec, weights, image_size, index)


def _code_notes(spec: BackboneSpec, loaded: FrozenNetwork) -> list[str]:
    """Return the line that says whose code is run, if any is."""
    code = (loaded.origin or {}).get("remote_code")
    return [f"'{spec.name}' runs code of its repository: {', '.join(code)}."] if code else []


def check_image_size(spec: BackboneSpec, image_size: int | None) -> None:
    """Raise InputError for an image size that does not divide into the network's patches."""
    if image_size is not None and spec.patch and image_size % spec.patch:
        lower = image_size // spec.patch * spec.patch
        fits = f"{lower} or {lower + spec.patch}" if lower else str(spec.patch)
        raise InputError(
            f"'{spec.name}' cuts images into patches of {spec.patch} pixels: --image-size must be a multiple of it, "
            f"got {image_size}. Use --image-size {fits}."
        )


def _key(name: str, weights: str | Path | None, image_size: int | None, precision: str) -> list[Any]:
    """Return what, beside the weights' content, decides a backbone's description."""
    given = None if weights is None else RANDOM if weights == RANDOM else str(Path(weights).expanduser().absolute())
    return [_REMEMBERED, EXTRACTION_REVISION, name, given, image_size, precision]


def _file_state(path: Path) -> list[Any]:
    stat = os.stat(path)
    return [str(path.absolute()), stat.st_size, stat.st_mtime_ns]
