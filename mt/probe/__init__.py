"""Probing: label budgets, solvers, metrics, protocols, and the evaluation that puts them together."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mt.probe.evaluate import Study as Study
    from mt.probe.evaluate import run_probe as run_probe
    from mt.probe.protocols import PROTOCOLS as PROTOCOLS

_EXPORTS = {
    "PROTOCOLS": "mt.probe.protocols",
    "Study": "mt.probe.evaluate",
    "run_probe": "mt.probe.evaluate",
}

__all__ = ["PROTOCOLS", "Study", "run_probe"]


def __getattr__(name: str) -> Any:
    if name not in _EXPORTS:
        raise AttributeError(f"module 'mt.probe' has no attribute '{name}'")
    return getattr(importlib.import_module(_EXPORTS[name]), name)
