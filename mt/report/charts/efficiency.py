"""Label efficiency: the headline metric against the labels used, with the two uncertainties apart."""

from __future__ import annotations

import math
from typing import Any

import altair as alt

from mt.report.charts.figures import IS_SHOWN, MOST, Figure, Section, as_spec, by_method, columns, shown
from mt.report.charts.palette import Looks
from mt.report.panels import Panel, PanelCell

_TICKS = 6
_FEW, _SOFT, _FAINT = 5, 0.18, 0.07  # bands of more methods than a few are fainter
# Pixels between methods that share a budget, where there are several budgets, or one; at most so much of their place.
_APART, _APART_ALONE, _SHARE = 6, 48, 0.7
_ALONE = "datum.alone"
_OPEN = "datum.open"  # marks of fewer draws than another method has at the budget, and of what is not compared


def label_efficiency(panel: Panel, looks: Looks) -> Section:
    """Return the curves of a panel: a line a method, a band over draws, whiskers over test cases."""
    rows = [row for name in panel.names for row in _rows(panel, name)]
    marked = "Open marks: fewer draws than another method at that budget, or not compared with most."
    note = f" {marked}" if any(row["open"] for row in rows) else ""
    some = f" The {MOST} best of the chosen methods are drawn." if len(panel.names) > MOST else ""
    caption = (
        f"{panel.metric_label} against labels used. Bands: mean ± one standard deviation over draws of the labels. "
        "Whiskers: 95 % interval over test cases. Methods that share a budget are set a little apart."
        + note + some
    )
    spec = _chart(panel, looks, rows)
    figure = Figure("labels", "Label efficiency", caption, spec, {"curves": columns(rows)}, methods=panel.names)
    return Section("Label efficiency", "", [figure])


def _chart(panel: Panel, looks: Looks, rows: list[dict[str, Any]]) -> dict[str, Any]:
    ticks = sorted({row["labels"] for row in rows})
    where = {"values": ticks, "format": ","} if len(ticks) <= _TICKS else {"tickCount": _TICKS, "format": "~s"}
    axis = alt.Axis(grid=False, **where)
    base = (
        alt.Chart(alt.NamedData(name="curves"))
        .transform_filter(IS_SHOWN)
        .transform_calculate(place=_place(rows))
        .encode(
            x=alt.X("place:Q", scale=_scale(ticks), title="labels used (log scale)", axis=axis),
            color=by_method(panel, looks, "colour"),
        )
    )
    y = alt.Y("mean:Q", title=panel.metric_label, scale=alt.Scale(zero=False, nice=True))
    band = base.mark_area(opacity=_FAINT if len(panel.names) > _FEW else _SOFT, aria=False).encode(
        y=alt.Y("sd_low:Q"), y2="sd_high:Q", detail="kind:N"
    )
    bar = (
        base.transform_filter(_ALONE)
        .mark_rule(strokeWidth=10, opacity=_SOFT, aria=False)
        .encode(y=alt.Y("sd_low:Q"), y2="sd_high:Q", color=by_method(panel, looks, "colour"))
    )
    line = base.mark_line(strokeWidth=2, aria=False).encode(
        y=y, strokeDash=by_method(panel, looks, "dash"), detail="kind:N"
    )
    whisker = base.mark_rule(strokeWidth=1.5, aria=False).encode(y=alt.Y("low:Q"), y2="high:Q")
    point = base.mark_point(size=60, opacity=1).encode(
        y=y, shape=by_method(panel, looks, "shape"), description="says:N", tooltip=_tooltip(panel),
        fill=alt.condition(_OPEN, alt.value("transparent"), by_method(panel, looks, "fill")),
    )  # fmt: skip
    # A layer without a number to show would have no domain, of which Vega warns.
    some_whiskers, some_bars = any(row["low"] is not None for row in rows), any(row["alone"] for row in rows)
    some_bands = any(row["sd"] is not None and not row["alone"] for row in rows)
    wanted = ((band, some_bands), (bar, some_bars), (line, True), (whisker, some_whiskers), (point, True))
    return as_spec(alt.layer(*(layer for layer, is_there in wanted if is_there)).add_params(shown(panel)))


def _scale(labels: list[int]) -> alt.Scale:
    """Return the log axis; a single budget stands in the middle of a decade."""
    (low, high), root = (labels[0], labels[-1]), math.sqrt(10)
    domain = alt.Undefined if low < high else [low / root, high * root]
    return alt.Scale(type="log", nice=False, padding=18, domain=domain)


def _place(rows: list[dict[str, Any]]) -> str:
    """Return the expression for where a point stands: its labels, a few pixels off by its rank among what is shown."""
    labels = [row["labels"] for row in rows]
    decades = math.log10(max(labels) / min(labels))
    budgets = len({row["budget"] for row in rows})
    most = _APART if decades else _APART_ALONE
    pixels = f"min({most}, {_SHARE:g} * width / {budgets} / length(shown))"
    rank = "(indexof(shown, datum.method) - (length(shown) - 1) / 2)"
    return f"datum.labels * pow(10, {rank} * {pixels} * {decades or 1:.6g} / max(width, 1))"


def _rows(panel: Panel, name: str) -> list[dict[str, Any]]:
    """Return a method's points; `alone` are those whose deviation no band can show, for want of a neighbour's."""
    rows = []
    for kind in dict.fromkeys(cell.budget.kind for cell in panel.curve(name)):
        curve = [cell for cell in panel.curve(name) if cell.budget.kind == kind]
        has = [cell.sd is not None for cell in curve]
        for i, cell in enumerate(curve):
            rows.append({**_row(panel, cell), "alone": has[i] and not any(has[max(0, i - 1) : i] + has[i + 1 : i + 2])})
    return rows


def _row(panel: Panel, cell: PanelCell) -> dict[str, Any]:
    """Return one point."""
    mean, sd = _defined(cell.mean), cell.sd
    return {
        "method": cell.name,
        "labels": cell.n_labels,
        "budget": str(cell.budget),
        "mean": mean,
        "sd": sd,
        "sd_low": None if sd is None else cell.mean - sd,
        "sd_high": None if sd is None else cell.mean + sd,
        "low": cell.low,
        "high": cell.high,
        "draws": len(cell.scores),
        "of": panel.most_draws(cell),
        "open": panel.most_draws(cell) > len(cell.scores) or cell.mark is None,
        "kind": cell.budget.kind,
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
        alt.Tooltip("of:Q", title="most draws of a method here"),
        alt.Tooltip("low:Q", title="95 % over test cases, from", format=".4f"),
        alt.Tooltip("high:Q", title="to", format=".4f"),
    ]
