"""Networks that other libraries build, one module per library."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING

from mt.backbones.entries.spec import HF, MODULE, OPEN_CLIP, BackboneSpec, loader_of

if TYPE_CHECKING:
    from mt.backbones.networks.frozen import FrozenNetwork


def load_from(
    spec: BackboneSpec, weights: str | Path | None, image_size: int | None, trusted: Collection[str] = ()
) -> FrozenNetwork:
    """Build a network with the library that its name begins with; only that library is imported.

    `trusted` are the repositories of transformers whose code may be run.
    """
    loader = loader_of(spec.network)
    if loader == HF:
        from mt.backbones.hubs.hf import load_transformers

        return load_transformers(spec, weights, image_size, trusted)
    if loader == OPEN_CLIP:
        from mt.backbones.hubs.openclip import load_open_clip

        return load_open_clip(spec, weights, image_size)
    if loader == MODULE:
        from mt.backbones.hubs.user_module import load_module

        return load_module(spec, weights, image_size)
    from mt.backbones.hubs.timm import load_timm

    return load_timm(spec, weights, image_size)
