"""The request of `mt report`: where the page goes, and what it shows."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mt.cache.catalog import Catalog
    from mt.probe.request import Margin
    from mt.report.charts.embedding import Maps


@dataclass(frozen=True)
class ReportRequest:
    """A report to draw.

    out: the page; charts and tables go to the folder of the same name without its suffix.  datasets: names to show, all
    if empty.  experiments: names to show; if empty, those shown by default.  only: identities of the scores to show, as
    a study asks; None shows all.  missing: what the study's plan lacks, in words.
    catalog: where the features are; their settings distinguish experiments.  maps: what embedding maps may show; None
    draws no maps.  most: datasets on one page; with more, each has a page of its own, and the first page links to them.
    margin: what non-inferiority and equivalence are tested with; a study's reference may be absent from a dataset.
    export: also write every chart as SVG and PNG.  again: draw even if the whole report of the same scores is there.
    """

    out: Path
    datasets: tuple[str, ...] = ()
    experiments: tuple[str, ...] = ()
    only: frozenset[str] | None = None
    missing: tuple[str, ...] = ()
    catalog: Catalog | None = None
    maps: Maps | None = None
    margin: Margin | None = None
    most: int = 2
    export: bool = True
    again: bool = True

    @property
    def folder(self) -> Path:
        """The folder of charts and tables."""
        return self.out.with_suffix("") if self.out.suffix else self.out.with_name(f"{self.out.name}-files")

    def command(self, scores: Path) -> str:
        """Return the command that draws the page from a score database; for a study's page, the study."""
        if self.only is not None:
            return "mt study, on the same study file"
        words = ["mt", "report", "--out", str(self.out), "--scores", str(scores)]
        words += [word for name in self.datasets for word in ("--dataset", name)]
        words += [word for name in self.experiments for word in ("--experiment", name)]
        if self.margin is not None:
            words += ["--margin", f"{self.margin.size:g}", "--reference", self.margin.reference]
        if self.catalog is not None:
            words += ["--cache-dir", str(self.catalog.cache_dir)]
        if self.maps is not None:
            words += ["--map-points", str(self.maps.points)]
            words += ["--show-ids"] * self.maps.show_ids + ["--thumbnails"] * self.maps.thumbnails
            words += ["--data-dir", str(self.maps.data_dir)] if self.maps.data_dir else []
        return shlex.join(words)
