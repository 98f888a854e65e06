"""The group of charts that shows predictions up close: ROC, precision-recall, confusion, calibration, net benefit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import altair as alt

from mt.report.charts import curves
from mt.report.charts.by_label import by_label
from mt.report.charts.figures import (
    IN_FOCUS,
    IS_SHOWN,
    SHADES,
    Figure,
    Menu,
    Section,
    Spec,
    Table,
    as_spec,
    by_method,
    menu,
    near,
    on_shade,
    shown,
)
from mt.report.charts.palette import Looks
from mt.report.panels import Panel
from mt.results.store import ScoreStore

_SHORT = 3  # letters of a class name that needs no slant
_UNIT = alt.Scale(domain=[0, 1], nice=False)
_QUARTERS = alt.Axis(values=[0, 0.25, 0.5, 0.75, 1], format=".2~f")


def close_up(store: ScoreStore, panel: Panel, looks: Looks) -> Section | None:
    """Return the charts that a task's predictions make; None where no score is defined."""
    predicted = curves.predictions(store, panel)
    if not predicted:
        return None
    budgets = list(dict.fromkeys(str(one.cell.budget) for one in predicted))
    choices = [Menu("labels used", "budget", budgets, budgets[-1])]
    if panel.task == "multilabel":
        choices.append(Menu("finding", "label", panel.class_names, panel.class_names[0]))
    figures = []
    if panel.task in ("binary", "multilabel"):
        figures += [
            _curve(panel, looks, choices, "roc", "ROC", curves.roc(panel, predicted)),
            _curve(panel, looks, choices, "pr", "Precision and recall", curves.precision_recall(panel, predicted)),
        ]
    else:
        names = list(dict.fromkeys(one.cell.name for one in predicted if str(one.cell.budget) == budgets[-1]))
        every = list(dict.fromkeys([*names, *(one.cell.name for one in predicted)]))
        choices.append(Menu("confusion of", "method", every, every[0]))
        figures.append(_confusion(panel, choices, curves.confusion(panel, predicted)))
    names = list(dict.fromkeys(one.cell.name for one in predicted))
    focus = Menu("uncertainty of", "chosen", names, next(name for name in panel.names if name in names))
    smooth, bins = curves.calibrated(panel, predicted), curves.reliability(panel, predicted)
    figures.append(_reliability(panel, looks, (*choices, focus), {"reliability": bins, "calibration": smooth}))
    if panel.task in ("binary", "multilabel"):
        benefits, everybody = curves.net_benefits(panel, predicted)
        figures.append(_decisions(panel, looks, (*choices, focus), {"decisions": benefits, "everybody": everybody}))
    choices.append(focus)
    most = f"the {curves.MOST} best methods" if len(panel.names) > curves.MOST else "each method"
    text = f"Predictions for the test cases by {most} at a budget, from the first draw of the labels."
    legend = [name for name in panel.names if name in names]
    return Section("A closer look", text, figures, choices, by_label(panel, predicted), legend)


_AXES = {
    "roc": ("false positive rate", "true positive rate"),
    "pr": ("recall", "precision"),
}
_SAYS = {
    "roc": "True against false positive rate at every threshold; the thin line is chance.",
    "pr": "Precision against recall at every threshold.",
}


def _curve(panel: Panel, looks: Looks, choices: Sequence[Menu], name: str, title: str, table: Table) -> Figure:
    x, y = _AXES[name]
    line = (
        _chosen(alt.Chart(alt.NamedData(name=name)), choices)
        .mark_line(strokeWidth=2, interpolate="linear")
        .encode(
            x=alt.X("x:Q", scale=_UNIT, axis=_QUARTERS, title=x),
            y=alt.Y("y:Q", scale=_UNIT, axis=_QUARTERS, title=y),
            order="i:Q",
            color=by_method(panel, looks, "colour"),
            strokeDash=by_method(panel, looks, "dash"),
            description="method:N",
            tooltip=["method:N"],
        )
    )
    chart = alt.layer(*([_diagonal()] if name == "roc" else []), line)
    return _figure(panel, chart, choices, name, title, _SAYS[name], {name: table})


def _reliability(panel: Panel, looks: Looks, choices: Sequence[Menu], tables: Mapping[str, Table]) -> Figure:
    several = panel.task in ("multiclass", "ordinal")
    x = "confidence in the predicted class" if several else "predicted probability"
    y = "share that was right" if several else "share that was positive"
    base = _chosen(alt.Chart(alt.NamedData(name="reliability")), choices).encode(
        x=alt.X("x:Q", scale=_UNIT, axis=_QUARTERS, title=x),
        y=alt.Y("y:Q", scale=_UNIT, axis=_QUARTERS, title=y),
        color=by_method(panel, looks, "colour"),
    )
    curve = _chosen(alt.Chart(alt.NamedData(name="calibration")), choices).encode(
        x=alt.X("x:Q", scale=_UNIT, axis=_QUARTERS, title=x), color=by_method(panel, looks, "colour")
    )
    line = curve.mark_line(strokeWidth=2, aria=False).encode(
        y=alt.Y("y:Q", scale=_UNIT, axis=_QUARTERS, title=y), strokeDash=by_method(panel, looks, "dash")
    )
    band = curve.transform_filter(IN_FOCUS).mark_area(opacity=0.18, aria=False).encode(y=alt.Y("low:Q"), y2="high:Q")
    point = (
        base.mark_point(filled=True, size=50, opacity=1)
        .encode(
            shape=by_method(panel, looks, "shape"),
            tooltip=[
                alt.Tooltip("method:N"),
                alt.Tooltip("x:Q", title=x, format=".3f"),
                alt.Tooltip("y:Q", title=y, format=".3f"),
                alt.Tooltip("n:Q", title="cases", format=","),
            ],
        )
        .add_params(near())
    )
    says = (
        "Curves: logistic regression of what happened on a spline of the predicted logit, with the 95 % band of the "
        "method under the pointer or the chosen one; none where predictions separate the classes. Points: ten bins of "
        "the predicted probability. On the thin line probabilities are calibrated."
    )
    layers = [_diagonal(), *([band, line] if tables["calibration"]["x"] else []), point]
    return _figure(panel, alt.layer(*layers), choices, "reliability", "Calibration", says, tables)


def _decisions(panel: Panel, looks: Looks, choices: Sequence[Menu], tables: Mapping[str, Table]) -> Figure:
    """Return net benefit against the threshold probability, with that of calling every case, or none, positive."""
    heights = [value for value in (*tables["decisions"]["y"], *tables["everybody"]["y"]) if value > 0]
    top = max([*heights, 0.01]) * 1.1
    scale = alt.Scale(domain=[-0.15 * top, top], nice=False)
    base = _chosen(alt.Chart(alt.NamedData(name="decisions")), choices).encode(
        x=alt.X("x:Q", scale=_UNIT, axis=_QUARTERS, title="threshold probability"),
        color=by_method(panel, looks, "colour"),
    )
    y = alt.Y("y:Q", scale=scale, title="net benefit")
    line = (
        base.mark_line(strokeWidth=2, clip=True)
        .encode(y=y, strokeDash=by_method(panel, looks, "dash"), description="method:N", tooltip=["method:N"])
        .add_params(near())
    )
    band = base.transform_filter(IN_FOCUS).mark_area(opacity=0.18, clip=True, aria=False)
    band = band.encode(y=alt.Y("low:Q", scale=scale), y2="high:Q")
    every = alt.Chart(alt.NamedData(name="everybody"))
    if any(choice.parameter == "label" for choice in choices):
        every = every.transform_filter("datum.label === label")
    every = every.mark_line(strokeWidth=1, opacity=0.8, color="#8f8f8f", clip=True, aria=False).encode(x="x:Q", y=y)
    nobody = alt.Chart(alt.InlineData(values=[{"zero": 0}])).mark_rule(strokeDash=[4, 4], aria=False).encode(y="zero:Q")
    says = (
        "Net benefit of calling positive what reaches the threshold probability (Vickers and Elkin 2006), with "
        "the 95 % band of the method under the pointer or the chosen one. Grey: every case is called positive; dashed: "
        "none is."
    )
    return _figure(panel, alt.layer(nobody, every, band, line), choices, "decisions", "Decision curve", says, tables)


def _confusion(panel: Panel, choices: Sequence[Menu], table: Table) -> Figure:
    names = list(panel.class_names)
    slant = -35 if max(map(len, names)) > _SHORT else 0
    base = (
        alt.Chart(alt.NamedData(name="confusion"))
        .transform_filter("datum.budget === budget && datum.method === method")
        .encode(
            x=alt.X("guess:N", sort=names, title="predicted", axis=alt.Axis(labelAngle=slant, labelLimit=90)),
            y=alt.Y("truth:N", sort=names, title="true class", axis=alt.Axis(labelLimit=90)),
            tooltip=[
                alt.Tooltip("truth:N", title="true class"),
                alt.Tooltip("guess:N", title="predicted"),
                alt.Tooltip("n:Q", title="cases", format=","),
                alt.Tooltip("share:Q", title="of the true class", format=".1%"),
            ],
        )
    )
    square = base.mark_rect().encode(color=alt.Color("share:Q", scale=SHADES, legend=None))
    count = base.mark_text(fontSize=12, aria=False).encode(
        text=alt.Text("n:Q", format=","),
        color=on_shade("share"),
    )
    layers = [square, count] if len(names) <= 12 else [square]
    chart = alt.layer(*layers).add_params(*(menu(choice) for choice in choices))
    says = "Counts of test cases; the darker, the larger the share of its true class."
    return Figure("confusion", "Confusion", says, as_spec(chart), {"confusion": table})


def _chosen(chart: Any, choices: Sequence[Menu]) -> Any:
    """Return the chart, filtered by the page's methods and the group's menus."""
    for choice in choices:
        if choice.parameter not in ("method", "chosen"):
            chart = chart.transform_filter(f"datum.{choice.parameter} === {choice.parameter}")
    return chart.transform_filter(IS_SHOWN)


def _figure(
    panel: Panel,
    chart: Any,
    choices: Sequence[Menu],
    name: str,
    title: str,
    caption: str,
    tables: Mapping[str, Table],
) -> Figure:
    parameters = [menu(choice) for choice in choices if choice.parameter != "method"]
    spec: Spec = as_spec(chart.add_params(shown(panel), *parameters))
    return Figure(name, title, caption, spec, tables, methods=panel.names)


def _diagonal() -> Any:
    ends = alt.InlineData(values=[{"x": 0, "y": 0}, {"x": 1, "y": 1}])
    return alt.Chart(ends).mark_line(strokeWidth=1, opacity=0.6, color="#8f8f8f", aria=False).encode(x="x:Q", y="y:Q")
