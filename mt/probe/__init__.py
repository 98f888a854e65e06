"""Probing: label budgets, solvers, metrics, protocols, and the evaluation that combines them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import lazy_loader

if TYPE_CHECKING:
    from mt.probe.budgets.draw import Draw as Draw
    from mt.probe.budgets.draw import draw as draw
    from mt.probe.budgets.draw import folds as folds
    from mt.probe.estimator import LogisticProbe as LogisticProbe
    from mt.probe.protocols import PROTOCOLS as PROTOCOLS
    from mt.probe.request import Answers as Answers
    from mt.probe.request import ProbeRequest as ProbeRequest
    from mt.probe.run import run_probe as run_probe
    from mt.probe.saved import load_probe as load_probe
    from mt.probe.scores.calibration import calibration as calibration
    from mt.probe.scores.metrics import METRICS as METRICS
    from mt.probe.scores.metrics import Metric as Metric
    from mt.probe.scores.metrics import interval as interval
    from mt.probe.scores.operating import decision_curve as decision_curve
    from mt.probe.scores.operating import operating_point as operating_point
    from mt.probe.solver.api import fit_logistic as fit_logistic

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "budgets.draw": ["Draw", "draw", "folds"],
        "estimator": ["LogisticProbe"],
        "protocols": ["PROTOCOLS"],
        "request": ["Answers", "ProbeRequest"],
        "run": ["run_probe"],
        "saved": ["load_probe"],
        "scores.calibration": ["calibration"],
        "scores.metrics": ["METRICS", "Metric", "interval"],
        "scores.operating": ["decision_curve", "operating_point"],
        "solver.api": ["fit_logistic"],
    },
)
