"""The report: one HTML file that opens from disk with no network, and a folder of its charts and tables beside it."""

from __future__ import annotations

import base64
import hashlib
import json
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from importlib.resources import files
from typing import Any

from mt.probe.scores.metrics import METRICS
from mt.report import labels_needed, tables
from mt.report.answer.findings import BudgetAnswer
from mt.report.charts.figures import MOST, Figure, Section
from mt.report.charts.palette import Look, Looks
from mt.report.experiments import Experiment
from mt.report.page.first_screen import answer
from mt.report.panels import Panel
from mt.report.provenance import ProvenancePart
from mt.report.short_names import ShortNames
from mt.report.tables import number
from mt.results.flag_words import in_words
from mt.terminal.progress import counted

NOTHING_DECLARED = "No primary metric and budget were declared (--primary): all comparisons here are exploratory."
TITLE = "Which pretrained features, with how many labels?"
MARKS = {"best": "★ ", "tied": "☆ ", "": "", None: "† "}
_COLUMNS = ("method", "dataset", "task", "metric", "budget", "labels", "score", "± sd", "95 % [ ]", "draws", "realised")
_NEEDED = 24  # methods that the page compares by the labels they need, the best ones; the folder's table has all
_NUMBERS = ("labels", "score", "± sd", "95 % [ ]", "draws")


@dataclass(frozen=True)
class Legend:
    """How the rows of a page are drawn, and their short names."""

    looks: Looks
    names: ShortNames


def page(
    panels: Sequence[Panel],
    groups: Sequence[Sequence[Section]],
    legend: Legend,
    provenance: Sequence[ProvenancePart],
    vega: str,
    *,
    found: Sequence[Sequence[BudgetAnswer]] = (),
    missing: Sequence[str] = (),
    links: Mapping[str, str] | None = None,
) -> str:
    """Return the whole page.

    legend: how rows are drawn and called, the same on all pages of a report.
    found: the answers of each panel, which come first.  groups: the charts of each panel.  vega: the script that draws
    them.  missing: what a study's plan lacks.  links: addresses of other pages, by name.
    Every name from a dataset is escaped: in HTML by the template, in JSON by `_data`.
    """
    from jinja2 import Environment, PackageLoader, StrictUndefined
    from markupsafe import Markup

    scripts = {"vega": vega, "script": _resource("page.js")}
    environment = Environment(
        loader=PackageLoader("mt.report", "page"), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    names = legend.names
    environment.filters |= {
        "short": names,
        "short_sets": names.of_sets,
        "swatch": lambda name: _swatch(legend.looks[name]),
    }
    parts = [_panel(f"p{i}", panel, some) for i, (panel, some) in enumerate(zip(panels, groups, strict=True))]
    figures = {
        f"{part['id']}-{figure.name}": _figure(figure, group)
        for part in parts
        for group in part["groups"]
        for figure in group.figures
    }
    return environment.get_template("page.html").render(
        title=TITLE,
        lead=_lead(panels),
        missing=missing,
        links=links or {},
        answer=answer(found, names),
        key=names.key(cell.name for panel in panels for cell in panel.cells),
        version=version("medical-transfer"),
        policy=_policy(scripts.values()),
        css=Markup(_resource("page.css")),
        charts=Markup(_data(figures)),
        panels=[part for part in parts if part["groups"]],
        filters=_filters(panels, legend.looks),
        columns=[{"label": name, "number": name in _NUMBERS} for name in _COLUMNS],
        rows=[_row(row) for row in tables.rows(panels)],
        flags={flag: number for number, flag in enumerate(_flags(panels), start=1)},
        provenance=provenance,
        **{name: Markup(code) for name, code in scripts.items()},
    )


def _lead(panels: Sequence[Panel]) -> str:
    methods = {cell.name for panel in panels for cell in panel.headline}
    fits = {score.fit for panel in panels for cell in panel.cells for score in cell.scores}
    return (
        f"{counted(len(panels), 'dataset')}, {counted(len(methods), 'method')}, {counted(len(fits), 'fit')}. "
        "Everything here is drawn from stored predictions; nothing was fitted for this page."
    )


def _panel(name: str, panel: Panel, groups: Sequence[Section]) -> dict[str, Any]:
    return {
        "id": name,
        "title": panel.title,
        "task": panel.task,
        "metric": panel.metric_label,
        "groups": groups,
        "n_names": len(panel.names),
        "names": panel.names[:_NEEDED],
        "others": [_other(one) for one in panel.others],
        "needed": _needed(panel),
        "declared": panel.declaration.said if panel.declaration else NOTHING_DECLARED,
    }


def _other(one: Experiment) -> dict[str, str]:
    """Return an experiment that is not shown, in words, and the command that shows it."""
    draws = ", ".join(f"{counted(len(seeds), 'draw')} of {budget}" for budget, seeds in one.draws.items())
    command = shlex.join(["mt", "report", "--dataset", one.data.dataset, "--experiment", one.name])
    return {"name": one.name, "draws": draws, "command": command}


def _needed(panel: Panel) -> list[dict[str, Any]]:
    """Return a row per goal: a method's score at its largest budget, and the labels that each needs to reach it."""
    names = panel.names[:_NEEDED]
    return [
        {
            "name": goal,
            "goal": f"{number(panel.curve(goal)[-1].mean)} with {panel.curve(goal)[-1].n_labels:,}",
            "cells": [{"name": name, "text": text} for name, text in zip(names, texts, strict=True)],
        }
        for goal, texts in labels_needed.rows(panel, names)
    ]


def _figure(figure: Figure, group: Section) -> dict[str, Any]:
    """Return what the page's script needs to draw a figure."""
    known = {parameter["name"] for parameter in figure.spec.get("params", ())}
    return {
        "spec": figure.spec,
        "tables": figure.tables,
        "renderer": figure.renderer,
        "methods": figure.methods,
        "most": MOST,
        "menus": [choice.parameter for choice in group.choices if choice.parameter in known],
    }


def _filters(panels: Sequence[Panel], looks: Looks) -> dict[str, list[dict[str, Any]]]:
    """Return the choices of each filter; methods carry the mark that charts draw them with."""
    headline = {panel.metric_label for panel in panels}
    metrics = {METRICS[cell.metric].label for panel in panels for cell in panel.cells}
    return {
        "dataset": [_choice(panel.title) for panel in panels],
        "task": [_choice(task) for task in dict.fromkeys(panel.task for panel in panels)],
        "metric": [{**_choice(label), "on": label in headline} for label in sorted(metrics)],
        "method": [{**_choice(name), "look": _swatch(looks[name])} for name in looks],
    }


def _choice(value: str) -> dict[str, Any]:
    return {"value": value, "label": value, "on": True, "look": None}


def _swatch(look: Look) -> Any:
    """Return the mark of a method as a small drawing."""
    from markupsafe import Markup

    dash = ",".join(map(str, look.dash)) if look.dash[1] else "none"
    return Markup(
        '<svg width="28" height="12" viewBox="-14 -6 28 12" aria-hidden="true">'
        '<line x1="-14" x2="14" stroke="{c}" stroke-width="2" stroke-dasharray="{d}"/><path d="{p}" fill="{c}"/></svg>'
    ).format(c=look.colour, d=dash, p=look.outline)


def _flags(panels: Sequence[Panel]) -> list[str]:
    """Return what rows of the main table are flagged with, each once: the page prints it under the table."""
    return list(dict.fromkeys(in_words(flag) for row in tables.rows(panels) for flag in row.cell.flags))


def _row(row: tables.ScoreRow) -> dict[str, Any]:
    cell = row.cell
    bounds = cell.low, cell.high
    return {
        "method": cell.name,
        "filter": cell.beside or cell.name,
        "dataset": row.panel.title,
        "task": row.panel.task,
        "metric": row.metric,
        "budget": str(cell.budget),
        "labels": cell.n_labels,
        "mean": _value(cell.mean),
        "sd": _value(cell.sd),
        "low": _value(cell.low),
        "interval": "–" if None in bounds else f"[{number(cell.low)}, {number(cell.high)}]",
        "draws": len(cell.scores),
        "of": row.panel.most_draws(cell),
        "mark": MARKS[cell.mark],
        "realised": "; ".join(filter(None, [row.role, row.realised])),
        "flags": list(dict.fromkeys(map(in_words, cell.flags))),
    }


def _value(value: float | None) -> dict[str, Any]:
    """Return a number for sorting and for reading; what is not defined has no value."""
    text = number(value)
    return {"value": "" if text == "–" else value, "text": text}


def _data(value: Any) -> str:
    """Return JSON that is safe inside a script element: no character can end the element or begin a comment."""
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    for sign in "<>&\u2028\u2029":
        text = text.replace(sign, f"\\u{ord(sign):04x}")
    return text


def _policy(scripts: Any) -> str:
    """Return the page's own rule for the browser: these scripts and no others, and no network at all.

    Vega compiles its expressions, so it needs unsafe-eval; its tooltips and sizes need inline styles.
    """
    digests = [base64.b64encode(hashlib.sha256(code.encode()).digest()).decode() for code in scripts]
    allowed = " ".join(f"'sha256-{digest}'" for digest in digests)
    return (
        f"default-src 'none'; script-src {allowed} 'unsafe-eval'; style-src 'unsafe-inline'; img-src data:; "
        "base-uri 'none'; form-action 'none'"
    )


def vega_script() -> str:
    """Return Vega, Vega-Lite and Vega-Embed as one script."""
    import vl_convert

    return str(vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;"))


def _resource(name: str) -> str:
    return (files("mt.report") / "page" / name).read_text(encoding="utf-8")
