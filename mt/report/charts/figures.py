"""Figures and groups of them: what the page draws and vl-convert exports, and what all charts share."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import altair as alt

from mt.report.charts.palette import Looks
from mt.report.panels import Panel
from mt.terminal.spreadsheet import inert

Spec = dict[str, Any]
Table = Mapping[str, Sequence[Any]]
HEIGHT = 340
MOST = 12  # lines that a chart draws at once: the best of those chosen


@dataclass(frozen=True)
class Figure:
    """One chart, as a Vega-Lite specification whose data are tables by name, each with a list per column.

    methods: the names that the page's method filter chooses from, None where it does not apply.
    renderer: "svg", or "canvas" for many points.
    """

    name: str
    title: str
    caption: str
    spec: Spec
    tables: Mapping[str, Table]
    height: int = HEIGHT
    methods: Sequence[str] | None = None
    renderer: str = "svg"


@dataclass(frozen=True)
class Menu:
    """A menu over a group of figures: it sets the parameter of that name in all of them."""

    label: str
    parameter: str
    options: Sequence[str]
    chosen: str


@dataclass(frozen=True)
class SideTable:
    """A table that goes with a group of figures.

    methods: of its last columns, one column per method.  file: all of it as CSV.
    """

    name: str
    title: str
    text: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    methods: Sequence[str]
    file: str


@dataclass(frozen=True)
class Section:
    """Figures that belong together, under one heading, and the table that goes with them.

    legend: methods whose marks are explained above the figures.
    """

    title: str
    text: str
    figures: Sequence[Figure]
    choices: Sequence[Menu] = ()
    table: SideTable | None = None
    legend: Sequence[str] = ()


def side_table(name: str, title: str, text: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> SideTable:
    """Return a table of texts, its file included; the page omits a last column without any text."""
    out = io.StringIO()
    lines = ([inert(" ".join(value.split())) for value in line] for line in (columns, *rows))
    csv.writer(out, lineterminator="\n").writerows(lines)
    shown = len(columns) if any(row[-1] for row in rows) else len(columns) - 1
    return SideTable(name, title, text, columns[:shown], [row[:shown] for row in rows], (), out.getvalue())


def table_section(name: str, title: str, text: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> Section:
    """Return a section that is a table alone."""
    return Section(title, "", (), table=side_table(name, title, text, columns, rows))


def by_method(panel: Panel, looks: Looks, what: str) -> Any:
    """Return the encoding of each method's own "colour", "fill", "shape" or "dash", the same in all charts."""
    kinds: dict[str, Any] = {"colour": alt.Color, "shape": alt.Shape, "dash": alt.StrokeDash, "fill": alt.Fill}
    names = list(panel.names)
    own = [getattr(looks[name], "colour" if what == "fill" else what) for name in names]
    scale = alt.Scale(domain=names, range=own)
    return kinds[what]("method:N", scale=scale, legend=None)


def shown(panel: Panel) -> Any:
    """Return the parameter that the page's method filter sets."""
    return alt.param("shown", value=list(panel.names[:MOST]))


# Shares from none to all, and words on them: white from where it is more legible than ink.
SHADES = alt.Scale(domain=[0, 1], range=["#eaf2fa", "#00457c"])


def on_shade(field: str) -> Any:
    """Return the colour of words on the shade of a share."""
    return alt.condition(f"datum.{field} > 0.62", alt.value("#ffffff"), alt.value("#10202f"))


# The method under the pointer, else the one that the menu names: its uncertainty alone is drawn.
IN_FOCUS = "isDefined(near.method) ? indexof(near.method, datum.method) >= 0 : datum.method === chosen"


def near() -> Any:
    """Return the parameter that holds the method under the pointer."""
    return alt.selection_point(name="near", fields=["method"], on="pointerover", clear="pointerout")


IS_SHOWN = "indexof(shown, datum.method) >= 0"


def menu(choice: Menu) -> Any:
    """Return the parameter that a menu sets."""
    return alt.param(choice.parameter, value=choice.chosen)


def as_spec(chart: Any, *, height: int = HEIGHT) -> Spec:
    """Return a chart as JSON that fills its place on the page; colours of words and axes are left to the page."""
    spec: Spec = chart.properties(height=height, width="container").to_dict()
    spec.pop("config", None)
    spec["autosize"] = {"type": "fit", "contains": "padding"}
    return spec


def scale_with_room(labels: Sequence[int], room: str) -> alt.Scale:
    """Return the log axis of labels, with room at its right; a single budget stands in the middle of a decade.

    room: an expression in pixels.
    """
    (low, high), root = (labels[0], labels[-1]), math.sqrt(10)
    domain = [low, high] if low < high else [low / root, high * root]
    ends = [alt.ExprRef("0"), alt.ExprRef(f"width - {room}")]
    return alt.Scale(type="log", nice=False, domain=domain, range=ends, padding=24)


def records(table: Table) -> list[dict[str, Any]]:
    """Return the rows of a table."""
    return [dict(zip(table, row, strict=True)) for row in zip(*table.values(), strict=True)]


def columns(rows: Sequence[Mapping[str, Any]]) -> dict[str, list[Any]]:
    """Return the columns of rows, by name."""
    return {name: [row[name] for row in rows] for name in rows[0]} if rows else {}
