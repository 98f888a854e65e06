"""The charts, as Vega-Lite specifications that the page draws and vl-convert exports."""

from __future__ import annotations

import math
from typing import Any

import altair as alt

from mt.report.palette import Looks
from mt.report.panels import Cell, Panel

Spec = dict[str, Any]
HEIGHT = 340
MOST = 12  # lines that a chart starts with: the best ones
_TICKS = 6
_LOG = alt.Scale(type="log", nice=False, padding=18)
_APART = 0.006  # of the axis, between methods that share a budget


def label_efficiency(panel: Panel, styles: Looks) -> Spec:
    """Return the headline metric against labels: a line a method, a band over draws, whiskers over test cases.

    The band is the mean ± one standard deviation over draws; the whiskers are the 95 % interval over test cases.
    """
    rows = [_curve_row(panel, cell) for name in panel.names for cell in panel.curve(name)]
    ticks = sorted({row["labels"] for row in rows})
    axis = alt.Axis(format="~s", grid=False, **({"values": ticks} if len(ticks) <= _TICKS else {"tickCount": _TICKS}))
    base = (
        alt.Chart(alt.InlineData(values=rows, name="curves"))
        .transform_filter("indexof(shown, datum.method) >= 0")
        .encode(
            x=alt.X("place:Q", scale=_LOG, title="labels used (log scale)", axis=axis),
            color=_by_method(panel, styles, "colour"),
        )
    )  # fmt: skip
    y = alt.Y("mean:Q", title=panel.metric_label, scale=alt.Scale(zero=False, nice=True))
    band = base.mark_area(opacity=0.18, aria=False).encode(y=alt.Y("sd_low:Q"), y2="sd_high:Q")
    line = base.mark_line(strokeWidth=2, aria=False).encode(y=y, strokeDash=_by_method(panel, styles, "dash"))
    whisker = base.mark_rule(strokeWidth=1.5, aria=False).encode(y=alt.Y("low:Q"), y2="high:Q")
    point = base.mark_point(filled=True, size=60, opacity=1).encode(
        y=y, shape=_by_method(panel, styles, "shape"), description="says:N", tooltip=_tooltip(panel)
    )
    shown = alt.param("shown", value=list(panel.names[:MOST]))
    return _spec(alt.layer(band, line, whisker, point).add_params(shown).properties(height=HEIGHT, width="container"))


def _curve_row(panel: Panel, cell: Cell) -> dict[str, Any]:
    """Return one point; `place` is its labels, set a little apart from the other methods' so that none is covered."""
    labels = [cell.n_labels for cell in panel.headline]
    decades = math.log10(max(labels) / max(1, min(labels)))
    middle = (len(panel.names) - 1) / 2
    step = min(_APART, _APART * 8 / len(panel.names)) * decades
    sd = cell.sd
    return {
        "method": cell.name,
        "labels": cell.n_labels,
        "place": cell.n_labels * 10 ** (step * (panel.names.index(cell.name) - middle)),
        "budget": str(cell.budget),
        "mean": cell.mean,
        "sd": sd,
        "sd_low": None if sd is None else cell.mean - sd,
        "sd_high": None if sd is None else cell.mean + sd,
        "low": cell.low,
        "high": cell.high,
        "draws": len(cell.scores),
        "says": f"{cell.name}, {cell.n_labels} labels: {panel.metric_label} {cell.mean:.4f}",
    }


def _tooltip(panel: Panel) -> list[alt.Tooltip]:
    return [
        alt.Tooltip("method:N"),
        alt.Tooltip("budget:N"),
        alt.Tooltip("labels:Q", format=","),
        alt.Tooltip("mean:Q", title=panel.metric_label, format=".4f"),
        alt.Tooltip("sd:Q", title="sd over draws", format=".4f"),
        alt.Tooltip("draws:Q"),
        alt.Tooltip("low:Q", title="95 % over test cases, from", format=".4f"),
        alt.Tooltip("high:Q", title="to", format=".4f"),
    ]


def _by_method(panel: Panel, styles: Looks, what: str) -> Any:
    """Return the encoding that gives every method its own look, the same in all charts of a panel."""
    kinds: dict[str, Any] = {"colour": alt.Color, "shape": alt.Shape, "dash": alt.StrokeDash}
    names = list(panel.names)
    scale = alt.Scale(domain=names, range=[getattr(styles[name], what) for name in names])
    return kinds[what]("method:N", scale=scale, legend=None)


def _spec(chart: Any) -> Spec:
    """Return the chart as JSON that a page can hold, without settings that belong to the page."""
    spec: Spec = chart.to_dict()
    spec.pop("config", None)
    spec["autosize"] = {"type": "fit", "contains": "padding"}
    return spec
