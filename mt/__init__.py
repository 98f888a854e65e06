"""Featurize medical images with frozen backbones once, probe the cached features in seconds, fuse several models.

The public names of all stages are here, imported when first used: `import mt` costs nothing.

    >>> import mt
    >>> mt.extract("folder:photos", ["dino"])          # images -> feature files
    >>> features = mt.open_features(path)               # a feature file -> embeddings, labels, ids
    >>> path = mt.fit_logistic(features.embeddings, features.labels, [0.1, 1.0], task="binary")
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mt.cache import Catalog as Catalog
    from mt.cache import FeatureFile as FeatureFile
    from mt.cache import open_features as open_features
    from mt.featurize import Backbone as Backbone
    from mt.featurize import Dataset as Dataset
    from mt.featurize import extract as extract
    from mt.featurize import load_backbone as load_backbone
    from mt.featurize import load_dataset as load_dataset

_STAGES = {
    "Catalog": "mt.cache",
    "FeatureFile": "mt.cache",
    "open_features": "mt.cache",
    "Backbone": "mt.featurize",
    "Dataset": "mt.featurize",
    "extract": "mt.featurize",
    "load_backbone": "mt.featurize",
    "load_dataset": "mt.featurize",
}

__all__ = sorted(_STAGES)


def __getattr__(name: str) -> Any:
    if name not in _STAGES:
        raise AttributeError(f"module 'mt' has no attribute '{name}'")
    return getattr(importlib.import_module(_STAGES[name]), name)


def __dir__() -> list[str]:
    return [*globals(), *_STAGES]
