"""Featurize medical images with frozen backbones once, probe the cached features in seconds, fuse several models.

The public names of all stages are here, imported when first used: `import mt` costs nothing.

    >>> import mt
    >>> request = mt.FeaturizeRequest(["folder:photos"], ["dino"])
    >>> mt.extract(request)                             # images -> feature files
    >>> features = mt.open_features(path)               # a feature file -> embeddings, labels, ids
    >>> fits = mt.fit_logistic(features.embeddings, features.labels, [0.1, 1.0], task="binary")
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import lazy_loader

if TYPE_CHECKING:
    from mt.backbones import Backbone as Backbone
    from mt.backbones import Preprocess as Preprocess
    from mt.backbones import load_backbone as load_backbone
    from mt.cache import Catalog as Catalog
    from mt.cache import FeatureFile as FeatureFile
    from mt.cache import open_features as open_features
    from mt.datasets import Dataset as Dataset
    from mt.datasets import load_dataset as load_dataset
    from mt.featurize import FeaturizeRequest as FeaturizeRequest
    from mt.featurize import extract as extract
    from mt.fuse import DVME as DVME
    from mt.fuse import AverageProbe as AverageProbe
    from mt.fuse import ConcatProbe as ConcatProbe
    from mt.fuse import DVMEClassifier as DVMEClassifier
    from mt.fuse import FuseRequest as FuseRequest
    from mt.fuse import fit_dvme as fit_dvme
    from mt.fuse import run_fuse as run_fuse
    from mt.predict import PredictRequest as PredictRequest
    from mt.predict import load_model as load_model
    from mt.predict import predict_dataset as predict_dataset
    from mt.predict import predict_images as predict_images
    from mt.probe import METRICS as METRICS
    from mt.probe import PROTOCOLS as PROTOCOLS
    from mt.probe import LogisticProbe as LogisticProbe
    from mt.probe import ProbeRequest as ProbeRequest
    from mt.probe import calibration as calibration
    from mt.probe import decision_curve as decision_curve
    from mt.probe import draw as draw
    from mt.probe import fit_logistic as fit_logistic
    from mt.probe import folds as folds
    from mt.probe import interval as interval
    from mt.probe import load_probe as load_probe
    from mt.probe import operating_point as operating_point
    from mt.probe import run_probe as run_probe
    from mt.report import ReportRequest as ReportRequest
    from mt.report import write_report as write_report
    from mt.results import ScoreStore as ScoreStore

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "backbones": ["Backbone", "Preprocess", "load_backbone"],
        "cache": ["Catalog", "FeatureFile", "open_features"],
        "datasets": ["Dataset", "load_dataset"],
        "featurize": ["FeaturizeRequest", "extract"],
        "fuse": ["AverageProbe", "ConcatProbe", "DVME", "DVMEClassifier", "FuseRequest", "fit_dvme", "run_fuse"],
        "predict": ["PredictRequest", "load_model", "predict_dataset", "predict_images"],
        "probe": [
            "LogisticProbe",
            "METRICS",
            "PROTOCOLS",
            "ProbeRequest",
            "calibration",
            "decision_curve",
            "draw",
            "fit_logistic",
            "folds",
            "interval",
            "load_probe",
            "operating_point",
            "run_probe",
        ],
        "report": ["ReportRequest", "write_report"],
        "results": ["ScoreStore"],
    },
)
