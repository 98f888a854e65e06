"""What `mt report` is asked: where the page goes, and what it shows."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mt.cache.catalog import Catalog
    from mt.report.charts.embedding import Maps


@dataclass(frozen=True)
class ReportRequest:
    """A report to draw.

    out: the page; charts and tables go to the folder of the same name without its suffix.  datasets: all without any.
    experiments: those that are shown by default without any.  only: these scores by identity, as a study asks.
    missing: what of a study's plan is not there, in words.
    catalog: where the features are, whose settings distinguish experiments.  maps: what embedding maps may show, none
    without.  most: datasets on one page; with more, each has a page of its own, and the first page leads to them.
    export: also write every chart as SVG and PNG.  again: also draw where all of it is there already, drawn
    from the same scores.
    """

    out: Path
    datasets: tuple[str, ...] = ()
    experiments: tuple[str, ...] = ()
    only: frozenset[str] | None = None
    missing: tuple[str, ...] = ()
    catalog: Catalog | None = None
    maps: Maps | None = None
    most: int = 2
    export: bool = True
    again: bool = True

    @property
    def folder(self) -> Path:
        """The folder of charts and tables."""
        return self.out.with_suffix("") if self.out.suffix else self.out.with_name(f"{self.out.name}-files")

    def command(self, scores: Path) -> str:
        """Return the command that draws the page from a score database; a study's page is its study's."""
        if self.only is not None:
            return "mt study, on the same study file"
        words = ["mt", "report", "--out", str(self.out), "--scores", str(scores)]
        words += [word for name in self.datasets for word in ("--dataset", name)]
        words += [word for name in self.experiments for word in ("--experiment", name)]
        if self.catalog is not None:
            words += ["--cache-dir", str(self.catalog.cache_dir)]
        if self.maps is not None:
            words += ["--map-points", str(self.maps.points)]
            words += ["--show-ids"] * self.maps.show_ids + ["--thumbnails"] * self.maps.thumbnails
            words += ["--data-dir", str(self.maps.data_dir)] if self.maps.data_dir else []
        return shlex.join(words)
