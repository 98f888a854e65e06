"""Writes the report: one HTML file that opens from disk with no network, and a folder of its charts and tables."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from mt import progress
from mt.cache.fingerprint import slug
from mt.cache.scores import ScoreStore
from mt.report import tables
from mt.report.panels import Panel, collect

if TYPE_CHECKING:
    from mt.report.embedding import Maps
    from mt.report.figures import Group
    from mt.report.palette import Looks


@dataclass(frozen=True)
class Report:
    """What was written."""

    page: Path
    folder: Path
    files: tuple[Path, ...]
    n_scores: int


def write_report(
    store: ScoreStore, out: Path, *, datasets: Collection[str] = (), maps: Maps | None = None, export: bool = True
) -> Report:
    """Draw the report of a score database; returns what was written.

    out: the page; charts and tables go to the folder of the same name without its suffix.  maps: what embedding maps
    may show, none without.  export: also write every chart as SVG and PNG.
    Raises InputError where the store holds nothing that was asked for.
    """
    from mt.report.export import images
    from mt.report.html import page
    from mt.report.palette import looks_of
    from mt.report.provenance import provenance

    panels = collect(store, datasets=datasets)
    looks = looks_of(name for panel in panels for name in panel.names)
    groups = [_groups(store, panel, looks, maps) for panel in panels]
    folder = out.with_suffix("") if out.suffix else out.with_name(f"{out.name}-files")
    written = [_write(out, page(panels, groups, looks, provenance(panels, maps.catalog if maps else None)).encode())]
    written.append(_write(folder / "scores.csv", tables.as_csv(panels).encode()))
    written += [_write(folder / f"{slug(panel.title)}.tex", tables.as_latex(panel).encode()) for panel in panels]
    written += [
        _write(folder / f"{slug(panel.title)}-{group.table.name}.csv", group.table.file.encode())
        for panel, some in zip(panels, groups, strict=True) for group in some if group.table
    ]  # fmt: skip
    charts = [
        (panel, figure)
        for panel, some in zip(panels, groups, strict=True) for group in some for figure in group.figures
    ] if export else []  # fmt: skip
    with progress.bar("drawing", len(charts), unit="charts") as advance:
        for panel, figure in charts:
            stem = f"{slug(panel.title)}-{figure.name}"
            written += [
                _write(folder / f"{stem}.{kind}", content) for kind, content in images(figure, panel.title).items()
            ]
            advance(1)
    return Report(out, folder, tuple(written), sum(len(cell.scores) for panel in panels for cell in panel.cells))


def _groups(store: ScoreStore, panel: Panel, looks: Looks, maps: Maps | None) -> list[Group]:
    """Return the charts of one dataset, in the order of the page."""
    from mt.report.close_up import close_up
    from mt.report.efficiency import label_efficiency
    from mt.report.embedding import embedding_map
    from mt.report.fusion import fusion

    found = [label_efficiency(panel, looks), fusion(store, panel), close_up(store, panel, looks)]
    if maps is not None:
        found.append(embedding_map(store, panel, maps))
    return [group for group in found if group is not None]


def _write(path: Path, content: bytes) -> Path:
    """Write a file aside and rename it, so that no half page stands under its name."""
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}.partial")
    try:
        aside.write_bytes(content)
        aside.replace(path)
    finally:
        aside.unlink(missing_ok=True)
    return path
