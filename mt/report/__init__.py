"""Reports: tables, charts and one offline page, drawn from stored scores and predictions."""

from __future__ import annotations

from typing import TYPE_CHECKING

import lazy_loader

if TYPE_CHECKING:
    from mt.report.panels import Panel as Panel
    from mt.report.panels import collect as collect
    from mt.report.request import ReportRequest as ReportRequest
    from mt.report.writing import WrittenReport as WrittenReport
    from mt.report.writing import write_report as write_report

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "panels": ["Panel", "collect"],
        "request": ["ReportRequest"],
        "writing": ["WrittenReport", "write_report"],
    },
)
