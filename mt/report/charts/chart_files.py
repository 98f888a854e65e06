"""Charts as files: the page's own specifications, drawn by vl-convert as SVG and PNG."""

from __future__ import annotations

import json
from typing import Any

from mt.report.charts.figures import Figure, Spec, records

_WIDTH = 640
_LEGEND = {"orient": "bottom", "columns": 3, "title": None, "labelLimit": 280, "symbolLimit": 0}
_CONFIG = {"background": "white", "font": "sans-serif", "view": {"stroke": None}}


def images(figure: Figure, title: str) -> dict[str, bytes]:
    """Return a figure as `svg` and `png`, light, with its legend, menus at their first choice."""
    import vl_convert

    spec = json.dumps(standalone(figure, title))
    svg = vl_convert.vegalite_to_svg(spec)
    return {"svg": svg.encode(), "png": vl_convert.svg_to_png(svg, scale=2)}


def standalone(figure: Figure, title: str) -> Spec:
    """Return a figure's specification with its data and legend inside, as any Vega-Lite editor opens it."""
    spec: Spec = _with_legend(figure.spec)
    data = spec.get("datasets", {}) | {name: records(table) for name, table in figure.tables.items()}
    return {
        **spec,
        "width": _WIDTH,
        "autosize": "pad",
        "datasets": data,
        "config": _CONFIG,
        "title": f"{title}: {figure.title}",
    }


def _with_legend(part: Any) -> Any:
    """Return a specification whose hidden legends are shown: the page draws its own instead."""
    if isinstance(part, dict):
        return {
            name: _LEGEND if name == "legend" and value is None else _with_legend(value) for name, value in part.items()
        }
    return [_with_legend(one) for one in part] if isinstance(part, list) else part
