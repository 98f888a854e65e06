"""Fusion: DVME on the embeddings of several models, what it must beat, and predicting with what was fitted."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mt.fuse.dvme import DVME as DVME
    from mt.fuse.estimators import AverageProbe as AverageProbe
    from mt.fuse.estimators import ConcatProbe as ConcatProbe
    from mt.fuse.estimators import DVMEClassifier as DVMEClassifier
    from mt.fuse.evaluate import run_fuse as run_fuse
    from mt.fuse.fit import fit_dvme as fit_dvme
    from mt.fuse.predict import predict_dataset as predict_dataset
    from mt.fuse.predict import predict_images as predict_images
    from mt.fuse.saved import load_model as load_model

_EXPORTS = {
    "AverageProbe": "mt.fuse.estimators",
    "ConcatProbe": "mt.fuse.estimators",
    "DVME": "mt.fuse.dvme",
    "DVMEClassifier": "mt.fuse.estimators",
    "fit_dvme": "mt.fuse.fit",
    "load_model": "mt.fuse.saved",
    "predict_dataset": "mt.fuse.predict",
    "predict_images": "mt.fuse.predict",
    "run_fuse": "mt.fuse.evaluate",
}

__all__ = sorted(_EXPORTS)


def __getattr__(name: str) -> Any:
    if name not in _EXPORTS:
        raise AttributeError(f"module 'mt.fuse' has no attribute '{name}'")
    return getattr(importlib.import_module(_EXPORTS[name]), name)
