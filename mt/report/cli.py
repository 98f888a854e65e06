"""`mt report`: draws the score database as one page to read and share."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import TYPE_CHECKING

import click

from mt.datasets.settings import dataset_choice
from mt.system import files
from mt.terminal import options, progress
from mt.terminal.progress import counted

if TYPE_CHECKING:
    from mt.report.request import ReportRequest
    from mt.results.store import ScoreStore


@click.command(epilog="Example: mt report --dataset pcam --out pcam.html")
@click.option(
    "--out",
    type=click.Path(dir_okay=False),
    default="report.html",
    show_default=True,
    help="The page; its charts and tables go to a folder of the same name.",
)
@options.datasets
@dataset_choice
@options.cache_dir
@options.scores
@click.option(
    "--experiment",
    "experiments",
    multiple=True,
    metavar="NAME",
    help="Show this experiment, as --list names it (repeatable).  [default: the newest complete one of each name]",
)
@click.option("--list", "listed", is_flag=True, help="List the experiments in the score database, and stop.")
@click.option(
    "--map-points",
    type=click.IntRange(0),
    default=2000,
    show_default=True,
    metavar="N",
    help="Test cases on each embedding map, at most 50,000 per dataset; 0 draws none.",
)
@click.option(
    "--methods-text",
    is_flag=True,
    help="Write methods.md, references.bib and table 1 for a paper to the folder, instead of the page.",
)
@click.option("--show-ids", is_flag=True, help="Show the names of cases; by default they are hashed.")
@click.option("--thumbnails", is_flag=True, help="Put small pictures of the test images into the page's maps.")
@options.margin
@options.reference
@options.data_dir
@options.as_json
def report(
    out: str,
    datasets: tuple[str, ...],
    experiments: tuple[str, ...],
    listed: bool,
    cache_dir: str | None,
    scores: str | None,
    map_points: int,
    methods_text: bool,
    show_ids: bool,
    thumbnails: bool,
    margin: float | None,
    reference: str | None,
    data_dir: str | None,
    as_json: bool,
) -> None:
    """Draw stored scores and predictions as one HTML page that needs no network.

    Charts are also written as SVG and PNG, tables as CSV and LaTeX.  Nothing is fitted.  Scores on different features,
    draws or revisions are never joined: if several experiments have one name, the newest complete one is shown,
    grouped before ungrouped.
    """
    from mt.cache.catalog import Catalog
    from mt.probe.request import Margin
    from mt.report.charts.embedding import Maps
    from mt.report.experiment_list import print_experiments
    from mt.report.panels import stored_experiments
    from mt.report.request import ReportRequest
    from mt.report.writing import write_report
    from mt.results.store import ScoreStore

    cache = files.cache_dir(cache_dir)
    catalog = Catalog(cache)
    with ScoreStore(files.scores_path(scores, cache)) as store:
        if listed:
            print_experiments(stored_experiments(store, datasets=datasets, catalog=catalog), as_json=as_json)
            return
        maps = Maps(
            catalog,
            points=map_points,
            show_ids=show_ids,
            thumbnails=thumbnails,
            data_dir=Path(data_dir) if data_dir else None,
        )
        request = ReportRequest(
            Path(out).absolute(),
            datasets=datasets,
            experiments=experiments,
            catalog=catalog,
            maps=maps,
            margin=Margin.of(margin, reference),
        )
        if methods_text:
            _print_methods(store, request, as_json=as_json)
            return
        written = write_report(store, request)
    if as_json:
        facts = {"page": str(written.page), "folder": str(written.folder), "files": [str(f) for f in written.files]}
        click.echo(json.dumps(facts | {"n_scores": written.n_scores, "others": list(written.others)}))
        return
    click.echo(f"{counted(written.n_scores, 'score')}: {written.page}")
    click.echo(f"  {len(written.files) - 1} charts and tables: {written.folder}")
    for name in written.others:
        command = shlex.join(["mt", "report", "--experiment", name])
        progress.note(f"Not shown, another experiment: {name}. Show it: {command}")


def _print_methods(store: ScoreStore, request: ReportRequest, *, as_json: bool) -> None:
    """Write the methods text and print where it is."""
    from mt.report.paper.methods_text import write_methods

    written = write_methods(store, request)
    if as_json:
        facts = {"methods": str(written.text), "references": str(written.references)}
        click.echo(json.dumps(facts | {"files": [str(path) for path in written.files]}))
        return
    for path in written.files:
        click.echo(str(path))
