"""The figures of a panel: each a chart with its title, its caption and its choices, for the page and for export."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from mt.report import charts
from mt.report.palette import Looks
from mt.report.panels import Panel


@dataclass(frozen=True)
class Choice:
    """A menu over a chart: sets one of its parameters."""

    label: str
    signal: str
    options: Sequence[str]


@dataclass(frozen=True)
class Figure:
    """One chart.

    methods: the names that the page's filter chooses from.  columns: large data by name, a list a column.
    """

    panel_id: str
    name: str
    title: str
    caption: str
    spec: charts.Spec
    height: int
    methods: Sequence[str] | None = None
    choices: Sequence[Choice] = ()
    columns: Mapping[str, Mapping[str, Sequence[Any]]] | None = None
    renderer: str = "svg"
    most: int = field(default=charts.MOST)

    @property
    def id(self) -> str:
        return f"{self.panel_id}-{self.name}"

    def content(self) -> dict[str, Any]:
        """Return what the page's script needs to draw it."""
        return {
            "spec": self.spec,
            "renderer": self.renderer,
            "methods": self.methods,
            "most": self.most,
            "columns": self.columns,
        }


def figures(panel: Panel, panel_id: str, styles: Looks) -> list[Figure]:
    """Return the figures of a panel that its stored predictions make."""
    return [_label_efficiency(panel, panel_id, styles)]


def _label_efficiency(panel: Panel, panel_id: str, styles: Looks) -> Figure:
    some = f" The {charts.MOST} best of the chosen methods are drawn." if len(panel.names) > charts.MOST else ""
    return Figure(
        panel_id,
        "labels",
        "Label efficiency",
        f"{panel.metric_label} against labels used. Bands: mean ± one standard deviation over draws of the labels. "
        "Whiskers: 95 % interval over test cases. Methods that share a budget are set a little apart." + some,
        charts.label_efficiency(panel, styles),
        charts.HEIGHT,
        methods=panel.names,
    )
