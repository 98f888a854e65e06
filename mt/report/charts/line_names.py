"""What lines against labels share: their axis, marks set apart at one budget, and a name at the end of each line."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import altair as alt

from mt.report.charts.figures import IS_SHOWN, by_method, scale_with_room
from mt.report.charts.palette import Looks
from mt.report.panels import Panel

_TICKS = 6
# Pixels between methods that share a budget, with several budgets, and with one; together at most 0.7 of its space.
_APART, _APART_ALONE, _SHARE = 6, 48, 0.7
ROOM = "min(190, 0.42 * width)"  # pixels for the names of lines
_LINE = 0.052  # of the height: between two names


def against_labels(name: str, rows: Sequence[Mapping[str, Any]]) -> alt.Chart:
    """Return the base of a chart of the named rows that are shown, by labels: a tick per budget, if they are few."""
    ticks = sorted({row["labels"] for row in rows})
    where = {"values": ticks, "format": ","} if len(ticks) <= _TICKS else {"tickCount": _TICKS, "format": "~s"}
    x = alt.X(
        "place:Q",
        scale=scale_with_room(ticks, ROOM),
        title="labels used (log scale)",
        axis=alt.Axis(grid=False, **where),
    )
    shown = alt.Chart(alt.NamedData(name=name)).transform_filter(IS_SHOWN).transform_calculate(place=_set_apart(rows))
    return shown.encode(x=x)


def line_names(
    plain: Any, heights: tuple[float, float], panel: Panel, looks: Looks, field: str = "mean"
) -> tuple[Any, Any]:
    """Return marks and names at the right of the lines, in the order of their last points and legibly far apart.

    Marks have the lines' colours, names the page's own: some colours are too light for words.

    With last points m_1 <= m_2 <= ... and the distance d: the mean of pushing names up, i d + max_{j<=i} (m_j - j d),
    and of pushing them down, i d + min_{j>=i} (m_j - j d), both of which keep the distance; then moved inside.

    plain: the base chart, whose rows have `method`, `label` (the name), `last` and the field of the height.
    """
    lowest, highest = heights
    apart = _LINE * (highest - lowest)
    order = [alt.SortField(field, order="ascending"), alt.SortField("method", order="ascending")]
    place = f"datum.n * {apart} + (datum.up + datum.down) / 2"
    inside = (
        f"max({lowest} + (datum.n - 0.5) * {apart}, min({highest} - (datum.of - datum.n + 0.5) * {apart}, {place}))"
    )
    placed = (
        plain.transform_filter(f"datum.last && isValid(datum.{field})")
        .transform_window(n="row_number()", sort=order)
        .transform_joinaggregate(of="count()")
        .transform_calculate(slack=f"datum.{field} - datum.n * {apart}")
        .transform_window(up="max(slack)", sort=order, frame=[None, 0])
        .transform_window(down="min(slack)", sort=order, frame=[0, None])
        .transform_calculate(height=inside)
        .encode(y=alt.Y("height:Q"))
    )
    colours = {name: by_method(panel, looks, name) for name in ("shape", "fill")}
    mark = placed.mark_point(size=44, strokeWidth=0, opacity=1, aria=False)
    mark = mark.encode(x=alt.value(alt.ExprRef(f"width - {ROOM} + 12")), **colours)
    name = placed.mark_text(align="left", baseline="middle", fontSize=12, aria=False, limit=alt.ExprRef(f"{ROOM} - 22"))
    return mark, name.encode(x=alt.value(alt.ExprRef(f"width - {ROOM} + 20")), text="label:N")


def _set_apart(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return the expression for where a point stands: its labels, a few pixels off by its rank among what is shown."""
    labels = [row["labels"] for row in rows]
    decades = math.log10(max(labels) / min(labels))
    budgets = len({row["budget"] for row in rows})
    most = _APART if decades else _APART_ALONE
    width = f"(width - {ROOM})"
    pixels = f"min({most}, {_SHARE:g} * {width} / {budgets} / length(shown))"
    rank = "(indexof(shown, datum.method) - (length(shown) - 1) / 2)"
    return f"datum.labels * pow(10, {rank} * {pixels} * {decades or 1:.6g} / max({width}, 1))"
