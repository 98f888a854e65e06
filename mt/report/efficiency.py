"""Label efficiency: the headline metric against the labels used, with the two uncertainties apart."""

from __future__ import annotations

import math
from typing import Any

import altair as alt

from mt.report.figures import IS_SHOWN, MOST, Figure, Group, as_spec, by_method, columns, shown
from mt.report.palette import Looks
from mt.report.panels import Cell, Panel

_TICKS = 6
_LOG = alt.Scale(type="log", nice=False, padding=18)
_FEW, _SOFT, _FAINT = 5, 0.18, 0.07  # bands of more methods than a few are fainter
_APART = 0.006  # of the axis, between methods that share a budget


def label_efficiency(panel: Panel, looks: Looks) -> Group:
    """Return the curves of a panel: a line a method, a band over draws, whiskers over test cases."""
    rows = [_row(panel, cell) for name in panel.names for cell in panel.curve(name)]
    some = f" The {MOST} best of the chosen methods are drawn." if len(panel.names) > MOST else ""
    caption = (
        f"{panel.metric_label} against labels used. Bands: mean ± one standard deviation over draws of the labels. "
        "Whiskers: 95 % interval over test cases. Methods that share a budget are set a little apart." + some
    )
    spec = _chart(panel, looks, rows)
    figure = Figure("labels", "Label efficiency", caption, spec, {"curves": columns(rows)}, methods=panel.names)
    return Group("Label efficiency", "", [figure])


def _chart(panel: Panel, looks: Looks, rows: list[dict[str, Any]]) -> dict[str, Any]:
    ticks = sorted({row["labels"] for row in rows})
    where = {"values": ticks} if len(ticks) <= _TICKS else {"tickCount": _TICKS}
    axis = alt.Axis(format="~s", grid=False, **where)
    base = (
        alt.Chart(alt.NamedData(name="curves"))
        .transform_filter(IS_SHOWN)
        .encode(
            x=alt.X("place:Q", scale=_LOG, title="labels used (log scale)", axis=axis),
            color=by_method(panel, looks, "colour"),
        )
    )
    y = alt.Y("mean:Q", title=panel.metric_label, scale=alt.Scale(zero=False, nice=True))
    band = base.mark_area(opacity=_FAINT if len(panel.names) > _FEW else _SOFT, aria=False).encode(
        y=alt.Y("sd_low:Q"), y2="sd_high:Q"
    )
    line = base.mark_line(strokeWidth=2, aria=False).encode(y=y, strokeDash=by_method(panel, looks, "dash"))
    whisker = base.mark_rule(strokeWidth=1.5, aria=False).encode(y=alt.Y("low:Q"), y2="high:Q")
    point = base.mark_point(filled=True, size=60, opacity=1).encode(
        y=y, shape=by_method(panel, looks, "shape"), description="says:N", tooltip=_tooltip(panel)
    )
    # A layer without a number to show would have no domain, of which Vega warns.
    some_bands, some_whiskers = (any(row[end] is not None for row in rows) for end in ("sd", "low"))
    layers = [*([band] if some_bands else []), line, *([whisker] if some_whiskers else []), point]
    return as_spec(alt.layer(*layers).add_params(shown(panel)))


def _row(panel: Panel, cell: Cell) -> dict[str, Any]:
    """Return one point; `place` is its labels, set a little apart from the other methods' so that none is covered."""
    labels = [cell.n_labels for cell in panel.headline]
    decades = math.log10(max(labels) / max(1, min(labels)))
    middle = (len(panel.names) - 1) / 2
    step = min(_APART, _APART * 8 / len(panel.names)) * decades
    mean, sd = _defined(cell.mean), cell.sd
    return {
        "method": cell.name,
        "labels": cell.n_labels,
        "place": cell.n_labels * 10 ** (step * (panel.names.index(cell.name) - middle)),
        "budget": str(cell.budget),
        "mean": mean,
        "sd": sd,
        "sd_low": None if sd is None else cell.mean - sd,
        "sd_high": None if sd is None else cell.mean + sd,
        "low": cell.low,
        "high": cell.high,
        "draws": len(cell.scores),
        "says": f"{cell.name}, {cell.n_labels} labels: {panel.metric_label} {cell.mean:.4f}",
    }


def _defined(value: float) -> float | None:
    return None if math.isnan(value) else value


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
