"""Writes the report: one HTML file that opens from disk with no network, and a folder of its charts and tables."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

from mt.cache.names import digest, slug
from mt.errors import CacheError
from mt.probe.scores.score_tables import is_scaled
from mt.report import tables
from mt.report.panels import Panel, collect
from mt.report.request import ReportRequest
from mt.results.report_pages import DRAWN, ReportPage, hashes_of, register
from mt.results.store import ScoreStore
from mt.system import files
from mt.system.device import cores
from mt.terminal import progress

if TYPE_CHECKING:
    from mt.report.answer.findings import BudgetAnswer
    from mt.report.charts.figures import Section
    from mt.report.charts.palette import Looks
    from mt.report.page.html import Legend
    from mt.report.short_names import ShortNames


REVISION = 21  # of the page; raised whenever the same scores are shown differently


@dataclass(frozen=True)
class WrittenReport:
    """A report on the disk.  drawn: by this call, not by an earlier one.  others: names of experiments not shown."""

    page: Path
    folder: Path
    files: tuple[Path, ...]
    n_scores: int
    drawn: bool = True
    others: tuple[str, ...] = ()


def write_report(store: ScoreStore, request: ReportRequest) -> WrittenReport:
    """Draw the report of a score database, and return what was written.

    Raises InputError if the store lacks a dataset or an experiment that the request names, or holds no scores.
    """
    panels = collect(
        store, datasets=request.datasets, names=request.experiments, only=request.only, catalog=request.catalog
    )
    if request.margin is not None and request.only is None:
        from mt.report.verdicts.margin_section import check_reference

        check_reference(panels, request.margin)
    out, folder, state = request.out, request.folder, _state(panels, request)
    written = [] if request.again else _found(out, folder, state)
    drawn = not written
    if drawn:
        (folder / DRAWN).unlink(missing_ok=True)  # what an interruption leaves is not whole
        written = _draw(store, panels, request)
        names = [path.name for path in written[1:]]
        kept = {"state": state, "files": names, "sha256": hashes_of(written)}
        _write(folder / DRAWN, json.dumps(kept).encode())
    _register(store, panels, request)
    n_scores = sum(len(cell.scores) for panel in panels for cell in panel.cells)
    others = dict.fromkeys(one.name for panel in panels for one in panel.others)
    return WrittenReport(out, folder, tuple(written), n_scores, drawn, tuple(others))


def _register(store: ScoreStore, panels: Sequence[Panel], request: ReportRequest) -> None:
    """Register the page in the score database, so that `mt cache forget` finds it; skip a read-only database."""
    fits = frozenset(score.fit for panel in panels for cell in panel.cells for score in cell.scores)
    page, folder = (Path(os.path.realpath(path)) for path in (request.out, request.folder))
    with contextlib.suppress(CacheError):
        register(store, ReportPage(page, folder, fits, request.command(store.path)))


def _state(panels: Sequence[Panel], request: ReportRequest) -> str:
    """Return the hash of all that a report is drawn from."""
    maps = request.maps
    cells = [cell for panel in panels for cell in panel.cells]
    scores = [[score.identity, repr(score.value), score.fit] for cell in cells for score in cell.scores]
    features = sorted(str(entry.fingerprints.get("file")) for entry in maps.catalog.entries()) if maps else []
    others = [[one.identity, one.name] for panel in panels for one in panel.others]
    named = [[cell.name, cell.mark] for cell in cells]
    asked = [maps.points, maps.show_ids, maps.thumbnails] if maps else []
    stated = [panel.declaration.facts() if panel.declaration else None for panel in panels]
    decided = [repr([panel.decisions for panel in panels]), repr(request.margin)]
    shown = [scores, named, stated, decided, others, features, list(request.missing)]
    return digest([REVISION, version("medical-transfer"), request.out.name, request.export, asked, shown])


def _found(out: Path, folder: Path, state: str) -> list[Path]:
    """Return the files of a whole report that was drawn from this state; none if any of them is missing."""
    try:
        kept = json.loads((folder / DRAWN).read_bytes())
        names = [Path(name).name for name in kept["files"]] if kept["state"] == state else []
    except (OSError, ValueError, KeyError, TypeError):
        return []
    files = [out, *(folder / name for name in names)]
    return files if names and all(file.exists() for file in files) else []


def _draw(store: ScoreStore, panels: Sequence[Panel], request: ReportRequest) -> list[Path]:
    """Write page, tables and charts, the page first."""
    from mt.report.answer.findings import answers
    from mt.report.charts.palette import looks_of
    from mt.report.page.html import Legend, vega_script
    from mt.report.short_names import ShortNames

    folder = request.folder
    looks = looks_of(name for panel in panels for name in panel.names)
    with ThreadPoolExecutor(cores()) as threads:  # Rust draws, and Python continues meanwhile
        vega = threads.submit(vega_script)
        groups, names = [], ShortNames.of(panels)
        with progress.bar("mapping", len(panels), unit="datasets") as advance:
            for panel in panels:
                groups.append(_groups(store, panel, request, looks, names))
                advance(1)
        found = [answers(store, panel) for panel in panels]
        written = _pages(panels, groups, Legend(looks, names), found, vega.result(), request)
        written += _tables(panels, groups, folder, names)
        written += _charts(panels, groups, folder, threads) if request.export else []
    return written


def _pages(
    panels: Sequence[Panel],
    groups: Sequence[Sequence[Section]],
    legend: Legend,
    found: Sequence[Sequence[BudgetAnswer]],
    vega: str,
    request: ReportRequest,
) -> list[Path]:
    """Write the page; above `most` datasets, a page per dataset in the folder, and the page that links to them."""
    from mt.report.page.html import Legend, page
    from mt.report.provenance import provenance

    folder, catalog = request.folder, request.maps.catalog if request.maps else None
    parts = provenance(panels, catalog)
    if len(panels) <= request.most:
        content = page(panels, groups, legend, parts, vega, found=found, missing=request.missing)
        return [_write(request.out, content.encode())]
    places = [folder / f"{slug(panel.title)}.html" for panel in panels]
    links = {panel.title: quote(f"{folder.name}/{at.name}") for panel, at in zip(panels, places, strict=True)}
    none: list[list[Section]] = [[] for _ in panels]
    content = page(panels, none, legend, parts, "", found=found, missing=request.missing, links=links)
    written = [_write(request.out, content.encode())]
    back = {"All datasets": f"../{quote(request.out.name)}"}
    for panel, some, one, at in zip(panels, groups, found, places, strict=True):
        parts = provenance([panel], catalog)
        mine = Legend({name: legend.looks[name] for name in panel.names}, legend.names)
        content = page([panel], [some], mine, parts, vega, found=[one], links=back)
        written.append(_write(at, content.encode()))
    return written


def _tables(
    panels: Sequence[Panel], groups: Sequence[Sequence[Section]], folder: Path, names: ShortNames
) -> list[Path]:
    """Write every table as CSV and LaTeX; the main table is one CSV file, and one LaTeX file per dataset."""
    written = [_write(folder / "scores.csv", tables.as_csv(panels).encode())]
    for panel, some in zip(panels, groups, strict=True):
        stem = slug(panel.title)
        written.append(_write(folder / f"{stem}.tex", tables.as_latex(panel, names).encode()))
        files = {f"needed.{kind}": text for kind, text in tables.needed_files(panel, names).items()}
        for side in (group.table for group in some if group.table):
            files |= {f"{side.name}.csv": side.file, f"{side.name}.tex": tables.side_latex(panel, side, names)}
        written += [_write(folder / f"{stem}-{name}", text.encode()) for name, text in files.items()]
    return written


def _charts(
    panels: Sequence[Panel], groups: Sequence[Sequence[Section]], folder: Path, threads: ThreadPoolExecutor
) -> list[Path]:
    """Write every chart as SVG and PNG."""
    from mt.report.charts.chart_files import images

    figures = [
        (panel.title, figure)
        for panel, some in zip(panels, groups, strict=True)
        for group in some
        for figure in group.figures
    ]
    written = []
    with progress.bar("drawing", len(figures), unit="charts") as advance:
        drawn = threads.map(lambda one: images(one[1], one[0]), figures)
        for (title, figure), contents in zip(figures, drawn, strict=True):
            stem = f"{slug(title)}-{figure.name}"
            written += [_write(folder / f"{stem}.{kind}", content) for kind, content in contents.items()]
            advance(1)
    return written


def _groups(store: ScoreStore, panel: Panel, request: ReportRequest, looks: Looks, names: ShortNames) -> list[Section]:
    """Return the charts of one dataset, in the order of the page."""
    from mt.report.charts.calibration_numbers import calibration_numbers
    from mt.report.charts.close_up import close_up
    from mt.report.charts.efficiency import label_efficiency
    from mt.report.charts.embedding import embedding_map
    from mt.report.charts.fusion import fusion
    from mt.report.contrast_sections import drop_section, subgroup_section

    found = [label_efficiency(panel, looks, names), fusion(store, panel, looks, names), close_up(store, panel, looks)]
    found.append(calibration_numbers(store, panel))
    if panel.decisions is not None:
        from mt.report.verdicts.threshold_section import threshold_sections

        found += threshold_sections(store, panel)
    if any(is_scaled(cell.summary) for cell in panel.headline):
        from mt.report.verdicts.scaling_section import scaling_section

        found.append(scaling_section(store, panel))
    if request.margin is not None:
        from mt.report.verdicts.margin_section import margin_section

        found.append(margin_section(store, panel, request.margin))
    found += [subgroup_section(store, panel), drop_section(store, panel)]
    if request.maps is not None:
        found.append(embedding_map(store, panel, request.maps))
    return [group for group in found if group is not None]


def _write(path: Path, content: bytes) -> Path:
    files.make_folder(path.parent)
    files.write_whole(path, content)
    return path
