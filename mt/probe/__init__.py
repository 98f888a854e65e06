"""Probing: label budgets, solvers, metrics, protocols, and the evaluation that puts them together."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mt.probe.budget import Draw as Draw
    from mt.probe.budget import draw as draw
    from mt.probe.budget import folds as folds
    from mt.probe.estimator import LogisticProbe as LogisticProbe
    from mt.probe.evaluate import Study as Study
    from mt.probe.evaluate import run_probe as run_probe
    from mt.probe.logistic import fit_logistic as fit_logistic
    from mt.probe.metrics import METRICS as METRICS
    from mt.probe.protocols import PROTOCOLS as PROTOCOLS
    from mt.probe.saved import load_probe as load_probe

_EXPORTS = {
    "Draw": "mt.probe.budget",
    "LogisticProbe": "mt.probe.estimator",
    "METRICS": "mt.probe.metrics",
    "PROTOCOLS": "mt.probe.protocols",
    "Study": "mt.probe.evaluate",
    "draw": "mt.probe.budget",
    "fit_logistic": "mt.probe.logistic",
    "folds": "mt.probe.budget",
    "load_probe": "mt.probe.saved",
    "run_probe": "mt.probe.evaluate",
}

__all__ = sorted(_EXPORTS)


def __getattr__(name: str) -> Any:
    if name not in _EXPORTS:
        raise AttributeError(f"module 'mt.probe' has no attribute '{name}'")
    return getattr(importlib.import_module(_EXPORTS[name]), name)
