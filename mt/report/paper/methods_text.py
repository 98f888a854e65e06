"""The methods text of a study: the paragraph, the flow of cases, table 1, answered items of guidelines, references."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from mt.cache.names import slug
from mt.report.panels import Panel, collect
from mt.report.paper.checklists import GUIDELINES, ITEM, NOT_CHECKED, answered, unanswered
from mt.report.paper.escaped import md
from mt.report.paper.facts import Characteristics, DatasetFacts, dataset_facts
from mt.report.paper.flow import NOTE, flow_table, why_no_groups
from mt.report.paper.paragraph import cited, sentences
from mt.report.paper.references import bibtex
from mt.system import files
from mt.terminal.spreadsheet import inert

if TYPE_CHECKING:
    from mt.cache.catalog import Catalog
    from mt.report.request import ReportRequest
    from mt.results.store import ScoreStore

_NOTE = (
    "Made from stored facts only. What they do not hold (ethics, dates, devices, annotators, rationale, limitations, "
    "funding) is not here: write it."
)


@dataclass(frozen=True)
class WrittenMethods:
    """What was written."""

    text: Path
    references: Path
    files: tuple[Path, ...]


def write_methods(store: ScoreStore, request: ReportRequest) -> WrittenMethods:
    """Write methods.md, references.bib and a table 1 per dataset into the report's folder; returns their paths.

    Raises InputError if the store lacks a dataset or an experiment that the request names, or holds no scores.
    """
    panels = collect(store, datasets=request.datasets, names=request.experiments, catalog=request.catalog)
    text, references, tables = methods(store, panels, request.catalog)
    files.make_folder(request.folder)
    paths = [request.folder / name for name in ("methods.md", "references.bib", *tables)]
    for path, content in zip(paths, (text, references, *tables.values()), strict=True):
        files.write_whole(path, content.encode())
    return WrittenMethods(paths[0], paths[1], tuple(paths))


def methods(store: ScoreStore, panels: Sequence[Panel], catalog: Catalog | None) -> tuple[str, str, dict[str, str]]:
    """Return the text as Markdown, the references that it cites as BibTeX, and a table 1 per dataset as CSV by name."""
    every = [dataset_facts(store, panel, catalog) for panel in panels]
    text = "\n".join(
        ["# Methods", "", _NOTE, "", *(line for facts in every for line in _dataset(facts)), *_rest(every)]
    )
    tables = {f"{slug(facts.title)}-table1.csv": _csv([facts.train, facts.test, *facts.draws]) for facts in every}
    return text + "\n", bibtex(cited(text, panels)), tables


def _dataset(facts: DatasetFacts) -> Iterator[str]:
    yield from (f"## {md(facts.title)}", "", " ".join(sentences(facts)), "", *_flow(facts), *_table1(facts))
    for guideline in GUIDELINES:
        rows = [(number, what, answer) for number, what, answer in answered(facts, guideline)]
        yield from (f"### {guideline.name} [@{guideline.key}]", "", *_table((ITEM, "topic", "answer"), rows), "")


def _rest(every: Sequence[DatasetFacts]) -> Iterator[str]:
    """Yield which items are left to the authors."""
    yield from ("## Items that stored facts do not answer", "")
    for guideline in GUIDELINES:
        yield f"- {guideline.name}: {', '.join(unanswered(guideline, every))}"
    yield from ("", NOT_CHECKED)


def _flow(facts: DatasetFacts) -> Iterator[str]:
    """Yield the flow of cases: images, and patients or groups, that are listed, excluded and used."""
    columns, *rows = flow_table(facts.flow)
    yield from ("### Flow of cases", "", NOTE, "", *_table(columns, rows), "")
    reason = why_no_groups(facts.flow)
    if reason:
        yield from (reason, "")


def _table1(facts: DatasetFacts) -> Iterator[str]:
    """Yield table 1: the splits, and the first draw of each budget."""
    yield from (
        "### Table 1",
        "",
        "Shares are of the known values. Draws: the first of each budget; all are in the CSV file.",
        "",
    )
    first = {one.name.partition(",")[0]: one for one in reversed(facts.draws)}
    shown = [facts.train, facts.test, *reversed(first.values())]
    names = list(dict.fromkeys(what for one in shown for what, _ in one.rows))
    known = [dict(one.rows) for one in shown]
    rows = [
        ("cases", *(f"{one.n_rows:,}" for one in shown)),
        ("patients or groups", *("not known" if one.n_groups is None else f"{one.n_groups:,}" for one in shown)),
        *((md(name), *(md(some.get(name, "–")) for some in known)) for name in names),
        ("not known", *(md(", ".join(f"{what} {count:,}" for what, count in one.unknown) or "none") for one in shown)),
    ]
    yield from (*_table(("", *(md(one.name) for one in shown)), rows), "")


def _table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """Return a table of Markdown; cells are Markdown already."""
    return [_line(columns), _line(["---"] * len(columns)), *map(_line, rows)]


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _csv(every: Sequence[Characteristics]) -> str:
    """Return table 1 of both splits and of every draw, a row each."""
    names = list(dict.fromkeys(what for one in every for what, _ in one.rows))
    lacks = list(dict.fromkeys(what for one in every for what, _ in one.unknown))
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(map(inert, ["of", "cases", "groups", *names, *(f"not known: {what}" for what in lacks)]))
    for one in every:
        known, unknown = dict(one.rows), dict(one.unknown)
        groups = "" if one.n_groups is None else one.n_groups
        cells = [one.name, one.n_rows, groups, *(known.get(name, "") for name in names)]
        writer.writerow(map(inert, [*cells, *(unknown.get(what, 0) for what in lacks)]))
    return out.getvalue()
