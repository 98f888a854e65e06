"""Backbones: the registry, their weights, their preprocessing, and loading them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import lazy_loader

if TYPE_CHECKING:
    from mt.backbones.load import Backbone as Backbone
    from mt.backbones.load import load_backbone as load_backbone
    from mt.backbones.preprocess import Preprocess as Preprocess

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "load": ["Backbone", "load_backbone"],
        "preprocess": ["Preprocess"],
    },
)
