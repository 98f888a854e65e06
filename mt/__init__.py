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
    from mt.cache import ScoreStore as ScoreStore
    from mt.cache import open_features as open_features
    from mt.featurize import Backbone as Backbone
    from mt.featurize import Dataset as Dataset
    from mt.featurize import Preprocess as Preprocess
    from mt.featurize import extract as extract
    from mt.featurize import load_backbone as load_backbone
    from mt.featurize import load_dataset as load_dataset
    from mt.fuse import DVME as DVME
    from mt.fuse import AverageProbe as AverageProbe
    from mt.fuse import ConcatProbe as ConcatProbe
    from mt.fuse import DVMEClassifier as DVMEClassifier
    from mt.fuse import fit_dvme as fit_dvme
    from mt.fuse import load_model as load_model
    from mt.fuse import predict_dataset as predict_dataset
    from mt.fuse import predict_images as predict_images
    from mt.fuse import run_fuse as run_fuse
    from mt.probe import METRICS as METRICS
    from mt.probe import PROTOCOLS as PROTOCOLS
    from mt.probe import LogisticProbe as LogisticProbe
    from mt.probe import draw as draw
    from mt.probe import fit_logistic as fit_logistic
    from mt.probe import folds as folds
    from mt.probe import load_probe as load_probe
    from mt.probe import run_probe as run_probe
    from mt.report import write_report as write_report

_STAGES = {
    "Catalog": "mt.cache",
    "FeatureFile": "mt.cache",
    "ScoreStore": "mt.cache",
    "open_features": "mt.cache",
    "Backbone": "mt.featurize",
    "Dataset": "mt.featurize",
    "Preprocess": "mt.featurize",
    "extract": "mt.featurize",
    "load_backbone": "mt.featurize",
    "load_dataset": "mt.featurize",
    "AverageProbe": "mt.fuse",
    "ConcatProbe": "mt.fuse",
    "DVME": "mt.fuse",
    "DVMEClassifier": "mt.fuse",
    "fit_dvme": "mt.fuse",
    "load_model": "mt.fuse",
    "predict_dataset": "mt.fuse",
    "predict_images": "mt.fuse",
    "run_fuse": "mt.fuse",
    "LogisticProbe": "mt.probe",
    "METRICS": "mt.probe",
    "PROTOCOLS": "mt.probe",
    "draw": "mt.probe",
    "fit_logistic": "mt.probe",
    "folds": "mt.probe",
    "load_probe": "mt.probe",
    "run_probe": "mt.probe",
    "write_report": "mt.report",
}

__all__ = sorted(_STAGES)


def __getattr__(name: str) -> Any:
    if name not in _STAGES:
        raise AttributeError(f"module 'mt' has no attribute '{name}'")
    return getattr(importlib.import_module(_STAGES[name]), name)


def __dir__() -> list[str]:
    return [*globals(), *_STAGES]
