"""Images to embeddings: backbones, weights, datasets, preprocessing, and the extraction loop."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mt.featurize.backbones import Backbone, load_backbone
    from mt.featurize.datasets import Dataset, Split, load_dataset
    from mt.featurize.extraction import extract
    from mt.featurize.preprocess import Preprocess

__all__ = ["Backbone", "Dataset", "Preprocess", "Split", "extract", "load_backbone", "load_dataset"]

_EXPORTS = {
    "Backbone": "mt.featurize.backbones",
    "Dataset": "mt.featurize.datasets",
    "Preprocess": "mt.featurize.preprocess",
    "Split": "mt.featurize.datasets",
    "extract": "mt.featurize.extraction",
    "load_backbone": "mt.featurize.backbones",
    "load_dataset": "mt.featurize.datasets",
}


def __getattr__(name: str) -> Any:
    if name not in _EXPORTS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(importlib.import_module(_EXPORTS[name]), name)
    return value


def __dir__() -> list[str]:
    return __all__
