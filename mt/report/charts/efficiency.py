"""Label efficiency: the headline metric against the labels used, with the uncertainty of one method at a time."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import altair as alt

from mt.probe.scores.metrics import METRICS
from mt.report.charts.figures import (
    IN_FOCUS,
    MOST,
    Figure,
    Menu,
    Section,
    as_spec,
    by_method,
    columns,
    menu,
    near,
    shown,
)
from mt.report.charts.line_names import against_labels, line_names
from mt.report.charts.palette import Looks
from mt.report.panels import Panel, PanelCell
from mt.report.short_names import ShortNames
from mt.terminal.progress import counted

_SOFT = 0.18  # of bands
_ALONE = "datum.alone"
_OPEN = "datum.open"  # marks of fewer draws than another method has at the budget, and of what is not compared


def label_efficiency(panel: Panel, looks: Looks, names: ShortNames | None = None) -> Section:
    """Return the curves of a panel: a line per method, named at its end; band and whiskers of the one in focus.

    names: short names of lines; None: full names.
    """
    rows = [{**row, "label": names(name) if names else name} for name in panel.names for row in _rows(panel, name)]
    marked = "Open marks: fewer draws than another method at that budget, or not compared with most."
    note = f" {marked}" if any(row["open"] for row in rows) else ""
    some = f" The {MOST} best of the chosen methods are drawn." if len(panel.names) > MOST else ""
    caption = (
        f"{capitalised(panel.metric_label)} against labels used. The band is the mean ± one standard deviation over "
        "draws of the labels, the whiskers are the 95 % interval over test cases, both of the method under the "
        "pointer, else of the one chosen above. Methods that share a budget are set a little apart." + note + some
    )
    choice = Menu("uncertainty of", "chosen", panel.names, panel.names[0])
    spec = _chart(panel, looks, rows, choice)
    figure = Figure("labels", "Label efficiency", caption, spec, {"curves": columns(rows)}, methods=panel.names)
    return Section("Label efficiency", "", [figure], [choice])


def _chart(panel: Panel, looks: Looks, rows: list[dict[str, Any]], choice: Menu) -> dict[str, Any]:
    lowest, highest = _heights(panel, rows)
    plain = against_labels("curves", rows)
    base = plain.encode(color=by_method(panel, looks, "colour"))
    focus = base.transform_filter(IN_FOCUS)
    y = alt.Y("mean:Q", title=panel.metric_label, scale=alt.Scale(domain=[lowest, highest], nice=False, zero=False))
    band = focus.mark_area(opacity=_SOFT, aria=False).encode(y=alt.Y("sd_low:Q"), y2="sd_high:Q", detail="kind:N")
    bar = (
        focus.transform_filter(_ALONE)
        .mark_rule(strokeWidth=10, opacity=_SOFT, aria=False)
        .encode(y=alt.Y("sd_low:Q"), y2="sd_high:Q", color=by_method(panel, looks, "colour"))
    )
    line = base.mark_line(strokeWidth=2, aria=False).encode(
        y=y, strokeDash=by_method(panel, looks, "dash"), detail="kind:N"
    )
    whisker = focus.mark_rule(strokeWidth=1.5, aria=False).encode(y=alt.Y("low:Q"), y2="high:Q")
    point = (
        base.mark_point(size=60, opacity=1)
        .encode(
            y=y,
            shape=by_method(panel, looks, "shape"),
            description="says:N",
            tooltip=_tooltip(panel),
            fill=alt.condition(_OPEN, alt.value("transparent"), by_method(panel, looks, "fill")),
        )
        .add_params(near())
    )
    # A layer without a number to show would have no domain, of which Vega warns.
    some_whiskers, some_bars = any(row["low"] is not None for row in rows), any(row["alone"] for row in rows)
    some_bands = any(row["sd"] is not None and not row["alone"] for row in rows)
    mark, named = line_names(plain, (lowest, highest), panel, looks)
    wanted = (
        (band, some_bands),
        (bar, some_bars),
        (line, True),
        (whisker, some_whiskers),
        (mark, True),
        (named, True),
        (point, True),
    )
    return as_spec(alt.layer(*(layer for layer, is_there in wanted if is_there)).add_params(shown(panel), menu(choice)))


def capitalised(words: str) -> str:
    """Return words with a capital at their start."""
    return words[:1].upper() + words[1:]


def _heights(panel: Panel, rows: Sequence[Mapping[str, Any]]) -> tuple[float, float]:
    """Return the lowest and the highest score that the chart may have to show, with a little air, within its limits."""
    ends = ("mean", "sd_low", "sd_high", "low", "high")
    values = [row[name] for row in rows for name in ends if row[name] is not None]
    lowest, highest = min(values, default=0.0), max(values, default=1.0)
    air = 0.04 * (highest - lowest) or 0.05
    least, most = METRICS[panel.metric].limits
    return max(least, lowest - air), min(most, highest + air)


def _rows(panel: Panel, name: str) -> list[dict[str, Any]]:
    """Return a method's points; a band cannot show the deviation of one that is `alone`: no neighbour has any."""
    rows = []
    for kind in dict.fromkeys(cell.budget.kind for cell in panel.curve(name)):
        curve = [cell for cell in panel.curve(name) if cell.budget.kind == kind]
        has = [cell.sd is not None for cell in curve]
        for i, cell in enumerate(curve):
            alone = has[i] and not any(has[max(0, i - 1) : i] + has[i + 1 : i + 2])
            rows.append({**_row(panel, cell), "alone": alone, "last": cell is panel.curve(name)[-1]})
    return rows


def _row(panel: Panel, cell: PanelCell) -> dict[str, Any]:
    """Return one point."""
    mean, sd = _defined(cell.mean), cell.sd
    least, most = METRICS[cell.metric].limits
    return {
        "method": cell.name,
        "labels": cell.n_labels,
        "budget": str(cell.budget),
        "mean": mean,
        "sd": sd,
        "sd_low": None if sd is None else max(least, cell.mean - sd),
        "sd_high": None if sd is None else min(most, cell.mean + sd),
        "low": cell.low,
        "high": cell.high,
        "draws": len(cell.scores),
        "of": panel.most_draws(cell),
        "open": panel.most_draws(cell) > len(cell.scores) or cell.mark is None,
        "kind": cell.budget.kind,
        "says": f"{cell.name}, {counted(cell.n_labels, 'label')}: {panel.metric_label} {cell.mean:.4f}",
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
