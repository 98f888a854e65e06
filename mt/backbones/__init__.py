"""Backbones: the registry, their weights, their preprocessing, and loading them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import lazy_loader

if TYPE_CHECKING:
    from mt.backbones.entries.spec import BackboneSpec as BackboneSpec
    from mt.backbones.layouts import Layout as Layout
    from mt.backbones.load import Backbone as Backbone
    from mt.backbones.load import load_backbone as load_backbone
    from mt.backbones.preprocess import Preprocess as Preprocess
    from mt.backbones.registry import REGISTRY as REGISTRY
    from mt.backbones.weights import Published as Published

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "entries.spec": ["BackboneSpec"],
        "layouts": ["Layout"],
        "load": ["Backbone", "load_backbone"],
        "preprocess": ["Preprocess"],
        "registry": ["REGISTRY"],
        "weights": ["Published"],
    },
)
