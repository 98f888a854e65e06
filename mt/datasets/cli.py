"""`mt datasets`: list the datasets, and check one's own copy of one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from mt.cache.names import bare_name
from mt.datasets.setting_options import dataset_settings
from mt.terminal import options, tables
from mt.terminal.progress import counted, note

if TYPE_CHECKING:
    from mt.datasets.check import Report
    from mt.datasets.settings import DatasetSettings

# Problems of one kind that are printed in full; `--json` prints all.
SHOWN = 20


@click.group(
    invoke_without_command=True,
    subcommand_metavar="[COMMAND] [ARGS]...",  # click 8.4 shows the command as required
    epilog="Example: mt datasets check folder:photos",
)
@click.pass_context
def datasets(ctx: click.Context) -> None:
    """List the datasets; check one before using it."""
    if ctx.invoked_subcommand is None:
        ctx.invoke(list_, as_json=False)


@datasets.command("list", epilog="Example: mt datasets list --json")
@options.as_json
def list_(as_json: bool) -> None:
    """List the datasets: name, task, licence, the files expected, and which the cache has features of."""
    from mt.datasets import DATASETS

    cached = _cached()
    if as_json:
        for family, spec in DATASETS.items():
            facts = {"name": family, "usage": spec.usage, "task": spec.task, "licence": spec.licence}
            facts |= {"layout": spec.layout, "obtain": spec.obtain, "paper": spec.paper}
            own = [name for name in cached if bare_name(name).partition(":")[0] == family]
            click.echo(json.dumps({**facts, "cached": own}))
        return
    width = max(len(spec.usage) for spec in DATASETS.values()) + 2
    for spec in DATASETS.values():
        margin = " " * width
        click.echo(tables.indented(f"{spec.task}; {spec.licence}", first=spec.usage.ljust(width), rest=margin))
        click.echo(tables.indented(spec.layout, first=margin, rest=margin))
    if cached:
        click.echo(f"\n{tables.indented('In the cache, with their settings: ' + ', '.join(cached))}")
    last = "Where to get them: mt datasets list --json. Is a copy sound? mt datasets check NAME"
    click.echo(f"\n{tables.indented(last)}")


def _cached() -> list[str]:
    """Return the datasets that the user's cache has features of, by their names with settings."""
    from mt.cache.catalog import Catalog
    from mt.system import files

    return sorted({entry.dataset for entry in Catalog(files.cache_dir(None)).entries(everything=True)})


@datasets.command(epilog="Example: mt datasets check folder:photos --group-regex 'patient[0-9]+'")
@click.argument("name")
@dataset_settings
@options.as_json
@click.pass_context
def check(
    ctx: click.Context, name: str, data_dir: str | None, download: bool, settings: DatasetSettings, as_json: bool
) -> None:
    """Read every image of NAME: counts, class balance, crossing groups, duplicates, unreadable files.

    Exits with status 1 when something is wrong.
    """
    from mt.datasets import load_dataset
    from mt.datasets.check import check_dataset

    dataset = load_dataset(
        name, Path(data_dir) if data_dir else None, settings=settings, download=download, on_error="skip"
    )
    report = check_dataset(dataset)
    (_print_json if as_json else _print)(report)
    if report.problems:
        ctx.exit(1)


def _print_json(report: Report) -> None:
    name = report.dataset.name
    for split, counts in report.splits.items():
        click.echo(json.dumps({"dataset": name, "split": split, **counts}))
    for warning in report.dataset.warnings:
        click.echo(json.dumps({"dataset": name, "warning": warning}))
    for text in report.notes:
        click.echo(json.dumps({"dataset": name, "note": text}))
    for problem in report.problems:
        found = {"problem": problem.kind, "id": problem.id, "detail": problem.detail}
        click.echo(json.dumps({"dataset": name, **found}))


def _print(report: Report) -> None:
    dataset = report.dataset
    click.echo(f"{dataset.shown}: {dataset.task}, {dataset.metric}, licence {dataset.licence}")
    for split, counts in report.splits.items():
        groups = "" if counts["groups"] is None else f", {counted(counts['groups'], 'group')} ({dataset.grouping})"
        click.echo(f"\n{split}: {counted(counts['rows'], 'image')}{groups}")
        for class_name, count in counts["classes"].items():
            click.echo(f"  {count:>9,}  {count / counts['rows']:6.1%}  {class_name}")
        if counts["unlabelled"]:
            click.echo(f"  {counts['unlabelled']:>9,}  {counts['unlabelled'] / counts['rows']:6.1%}  (no label)")
    for warning in dataset.warnings:
        note(f"Warning: {warning}")
    for text in report.notes:
        note(f"Note: {text}")
    kinds = {
        kind: [problem for problem in report.problems if problem.kind == kind]
        for kind in dict.fromkeys(problem.kind for problem in report.problems)
    }
    for kind, problems in kinds.items():
        click.echo(f"\n{kind}: {len(problems):,}")
        for problem in problems[:SHOWN]:
            click.echo(f"  {problem.id}: {problem.detail}")
        if len(problems) > SHOWN:
            click.echo(f"  ... and {len(problems) - SHOWN:,} more (--json shows all)")
    click.echo("\nSomething is wrong: see above." if kinds else "\nNothing wrong found.")
