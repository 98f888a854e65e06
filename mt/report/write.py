"""Writes the report: one HTML file that opens from disk with no network, and a folder of its charts and tables."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from mt.cache.scores import ScoreStore
from mt.report import tables
from mt.report.panels import Panel, collect


@dataclass(frozen=True)
class Report:
    """What was written."""

    page: Path
    folder: Path
    files: tuple[Path, ...]
    n_scores: int


def write_report(store: ScoreStore, out: Path, *, datasets: Collection[str] = (), charts: bool = True) -> Report:
    """Draw the report of a score database; returns what was written.

    out: the page; charts and tables go to the folder of the same name without its suffix.  charts: also export every
    chart as SVG and PNG.  Raises InputError where the store holds nothing that was asked for.
    """
    from mt.report.figures import figures
    from mt.report.html import page
    from mt.report.palette import looks

    panels = collect(store, datasets=datasets)
    styles = looks(name for panel in panels for name in panel.names)
    drawn = [figures(panel, f"p{number}", styles) for number, panel in enumerate(panels)]
    folder = out.with_suffix("")
    if folder == out:
        folder = out.with_name(f"{out.name}-files")
    files = dict[Path, str]()
    files[out] = page(panels, drawn, styles, [])
    files[folder / "scores.csv"] = tables.as_csv(panels)
    for panel in panels:
        files[folder / f"{_stem(panel)}.tex"] = tables.as_latex(panel)
    for path, text in files.items():
        _write(path, text.encode())
    return Report(out, folder, tuple(files), sum(len(cell.scores) for panel in panels for cell in panel.cells))


def _stem(panel: Panel) -> str:
    from mt.cache.fingerprint import slug

    return slug(panel.title)


def _write(path: Path, content: bytes) -> None:
    """Write a file aside and rename it, so that no half page stands under its name."""
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}.partial")
    try:
        aside.write_bytes(content)
        aside.replace(path)
    finally:
        aside.unlink(missing_ok=True)
