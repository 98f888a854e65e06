"""Seeing it: tables, charts and one offline page, drawn from stored scores and predictions."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mt.report.panels import Panel as Panel
    from mt.report.panels import collect as collect
    from mt.report.write import write_report as write_report

_EXPORTS = {
    "Panel": "mt.report.panels",
    "collect": "mt.report.panels",
    "write_report": "mt.report.write",
}

__all__ = ["Panel", "collect", "write_report"]


def __getattr__(name: str) -> Any:
    if name not in _EXPORTS:
        raise AttributeError(f"module 'mt.report' has no attribute '{name}'")
    return getattr(importlib.import_module(_EXPORTS[name]), name)


def __dir__() -> list[str]:
    return __all__
