"""`mt cache`: list, look into, verify, export and clean the feature files."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Concatenate, ParamSpec

import click

from mt.cache import show
from mt.cache.catalog import OMITTED, Catalog, Entry, read_entry
from mt.errors import DamagedError, InputError, LockedError
from mt.system import files
from mt.terminal import options, progress
from mt.terminal.progress import counted

P = ParamSpec("P")


@dataclass(frozen=True)
class Selection:
    """The feature files that a command is about.

    entries: those that were named, or all.  filtered: whether any were named.  hidden: the number of superseded,
    limited and random-weight files that match as well.
    """

    catalog: Catalog
    entries: list[Entry]
    filtered: bool
    hidden: int = 0


def selection(command: Callable[Concatenate[Selection, P], None]) -> Callable[..., None]:
    """Add the options that choose files, and pass the chosen ones on as a `Selection`.

    Superseded, limited and random-weight files are chosen by path, or with --everything.
    """
    widened = click.option(
        "--everything", "--all", "everything", is_flag=True, help=f"Also take {', '.join(OMITTED)} files."
    )
    return widened(whole_selection(command))


def whole_selection(command: Callable[Concatenate[Selection, P], None]) -> Callable[..., None]:
    """Add the same options without --everything: superseded, limited and random-weight files are always included."""

    @functools.wraps(command)
    def with_selection(
        paths: tuple[str, ...],
        datasets: tuple[str, ...],
        models: tuple[str, ...],
        splits: tuple[str, ...],
        cache_dir: str | None,
        everything: bool = True,
        *args: P.args,
        **others: P.kwargs,
    ) -> None:
        catalog = Catalog(files.cache_dir(cache_dir))
        if paths:
            found = entries = [_entry(Path(path)) for path in paths]
        else:
            found = catalog.entries(datasets=datasets, models=models, splits=splits, everything=True)
            entries = [entry for entry in found if everything or not set(entry.flags) & set(OMITTED)]
        if not found and (datasets or models or splits):
            named = ", ".join([*datasets, *models, *splits])
            raise InputError(f"No feature file for {named} in {catalog.cache_dir}. See: mt cache list")
        filtered = bool(paths or datasets or models or splits)
        hidden = len(found) - len(entries)
        if hidden:
            progress.note(f"{hidden} superseded, limited or random-weight files not taken. Take them: --everything")
        command(Selection(catalog, entries, filtered, hidden), *args, **others)

    chosen: Callable[..., None] = with_selection
    for option in (
        options.cache_dir,
        click.option("--split", "splits", multiple=True, metavar="NAME", help="A split (repeatable)."),
        options.models,
        options.datasets,
        click.argument("paths", nargs=-1, metavar="[FILE]..."),
    ):
        chosen = option(chosen)
    return chosen


def _entry(path: Path) -> Entry:
    partial = path.with_suffix(".partial")
    if not path.exists() and not partial.exists():
        raise InputError(f"No feature file {path}. See: mt cache list")
    return read_entry(path if path.exists() else partial)


@click.group(epilog="Example: mt cache list --dataset pcam")
def cache() -> None:
    """List, verify, export and clean the feature files."""


@cache.command("list", epilog="Example: mt cache list --dataset pcam --everything")
@selection
@options.as_json
def list_(selected: Selection, as_json: bool) -> None:
    """List the feature files, by dataset, split and model.

    Superseded, limited and random-weight files are listed only with --everything.  mt probe and mt fuse also use them
    only with it.
    """
    if as_json:
        show.json_lines(map(show.facts, selected.entries))
    elif selected.entries:
        show.table(selected.entries)
    else:
        progress.note(f"No feature files in {selected.catalog.cache_dir}. Make some: mt featurize")


@cache.command(epilog="Example: mt cache info --model dino --split test")
@selection
@options.as_json
def info(selected: Selection, as_json: bool) -> None:
    """Show all that files say of themselves: counts, classes, fingerprints, settings, warnings."""
    if as_json:
        show.json_lines(show.details(entry) for entry in selected.entries)
        return
    if not selected.entries:
        progress.note(f"No feature files in {selected.catalog.cache_dir}. Make some: mt featurize")
    for entry in selected.entries:
        show.info(entry)


@cache.command(epilog="Example: mt cache verify --dataset pcam")
@selection
@options.as_json
@click.pass_context
def verify(context: click.Context, selected: Selection, as_json: bool) -> None:
    """Check every byte of files against their checksums; name damaged rows; exit with status 1 if there are any.

    Incomplete files are checked as far as they go.
    """
    from mt.cache.feature_file.verify import verify_file

    blocks = sum(entry.n_blocks for entry in selected.entries)
    with progress.bar("verifying", blocks, unit="blocks") as advance:
        reports = []
        for entry in selected.entries:
            reports.append(verify_file(entry.path, advance))
            if not as_json:
                show.report(reports[-1])
    if as_json:
        show.json_lines(map(show.report_facts, reports))
    damaged = sum(bool(report.problem) for report in reports)
    progress.note(f"{counted(len(reports), 'file')} verified, {damaged} damaged.")
    context.exit(1 if damaged else 0)


@cache.command(epilog="Example: mt cache remove --model dino --dataset pcam")
@whole_selection
@click.option("--yes", is_flag=True, help="Do not ask.")
@options.as_json
def remove(selected: Selection, yes: bool, as_json: bool) -> None:
    """Remove files, named by path or by --dataset, --model and --split."""
    if not selected.filtered:
        raise InputError("Say what to remove: files, or --dataset, --model, --split. See: mt cache remove --help")
    for entry in selected.entries:
        if "damaged" in entry.flags and selected.catalog.cache_dir not in entry.path.absolute().parents:
            raise DamagedError(f"{entry.problem} It is not in {selected.catalog.cache_dir}, so it is not removed.")
    if not yes:
        if not as_json:
            show.paths((entry.path, "") for entry in selected.entries)
        click.confirm(
            f"Remove {counted(len(selected.entries), 'file')} ({show.size(selected.entries)})?", abort=True, err=True
        )
    facts = [show.facts(entry) for entry in selected.entries]
    gone = _remove(selected.catalog, [entry.path for entry in selected.entries])
    if as_json:
        pairs = zip(facts, selected.entries, strict=True)
        show.json_lines(one | {"removed": entry.path in gone} for one, entry in pairs)


@cache.command(epilog="Example: mt cache prune --dry-run")
@options.cache_dir
@click.option("--dry-run", is_flag=True, help="Print what would be removed, and remove nothing.")
@options.as_json
def prune(cache_dir: str | None, dry_run: bool, as_json: bool) -> None:
    """Remove superseded, limited and random-weight files, and what killed runs left behind."""
    from mt.cache.cleaning import prunable

    catalog = Catalog(files.cache_dir(cache_dir))
    found = prunable(catalog)
    if not as_json:
        show.paths(found)
    if dry_run:
        progress.note(f"{counted(len(found), 'file')} would be removed.")
    gone = set() if dry_run else _remove(catalog, [path for path, _ in found])
    if as_json:
        show.json_lines({"path": str(path), "reason": reason, "removed": path in gone} for path, reason in found)


@cache.command(epilog="Example: mt cache merge --dataset pcam --model dino")
@whole_selection
@click.option("--allow-mixed", is_flag=True, help="Join shards of different devices or versions; the file records it.")
@options.as_json
@click.pass_context
def merge(context: click.Context, selected: Selection, allow_mixed: bool, as_json: bool) -> None:
    """Join the shards of mt featurize --shard into the file that one run would have made, and remove them.

    Where a shard is missing or incomplete, its command is printed, and the exit status is 1.
    """
    from mt.cache.feature_file.format import is_shard
    from mt.cache.merging import merge as join
    from mt.cache.merging import shard_sets

    damaged = [entry for entry in selected.entries if "damaged" in entry.flags and is_shard(entry.path)]
    found = shard_sets(entry.path for entry in selected.entries if "damaged" not in entry.flags)
    for entry in damaged:
        progress.note(entry.problem)
    if not (found or damaged):
        progress.note(f"No shards in {selected.catalog.cache_dir}. Make them: mt featurize --shard 1/8")
    with progress.bar("merging", sum(entry.n_blocks for entry in selected.entries), unit="blocks") as advance:
        unfinished = False
        for one in sorted(found, key=lambda one: bool(one.lacking())):  # a file answers for other parts of it, too
            lines = one.lacking()
            for line in lines:
                progress.note(f"{one.whole.name}: {line}")
            unfinished = unfinished or bool(lines)
            if not lines:
                path = join(one, allow_mixed=allow_mixed, advance=advance)
                facts = {"path": str(path), "shards": one.of}
                click.echo(json.dumps(facts) if as_json else f"{path}  ({one.of} shards)")
    context.exit(1 if unfinished or damaged else 0)


def _remove(catalog: Catalog, paths: list[Path]) -> set[Path]:
    """Remove files but those that are being written, say how much that frees, and return those that are gone."""
    from mt.cache.cleaning import remove_file
    from mt.system.files import megabytes

    freed, gone = 0, set()
    for path in paths:
        try:
            freed += remove_file(path, catalog.cache_dir)
            gone.add(path)
        except LockedError as error:
            progress.note(str(error))
    progress.note(f"{counted(len(gone), 'file')} removed, {megabytes(freed)} freed.")
    return gone


@cache.command(
    epilog="Example: mt cache export --model dino --dataset pcam --split train --format parquet --out pcam.parquet"
)
@selection
@click.option(
    "--format",
    "form",
    type=click.Choice(["npy", "parquet", "csv"]),
    default="npy",
    show_default=True,
    help="npy: the matrix, with a csv of ids and labels beside it. parquet, csv: everything in one table.",
)
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    required=True,
    help="The file to write; with several feature files, a folder.",
)
@options.as_json
def export(selected: Selection, form: str, out: Path, as_json: bool) -> None:
    """Write features with ids and labels for other programs; skipped rows are omitted.

    Every block is verified on the way.
    """
    from mt.cache.exporting import export as write

    usable = selected.entries if selected.filtered else [entry for entry in selected.entries if entry.complete]
    if not usable:
        raise InputError(f"No complete feature files in {selected.catalog.cache_dir}. Make some: mt featurize")
    if len(usable) > 1 and out.suffix == f".{form}" and not out.is_dir():
        raise InputError(
            f"--out {out} names one {form} file, and {len(usable)} feature files match. Name a folder, or one feature "
            "file: --dataset, --model, --split. See: mt cache list"
        )
    with progress.bar("exporting", len(usable), unit="files") as advance:
        for entry in usable:
            target = out if len(usable) == 1 and not out.is_dir() else out / _export_name(entry, form)
            features = entry.open(verify=True)
            for path in write(features, target, form):
                line = {"path": str(path), "source": str(entry.path), "rows": features.n_ok, "dim": features.dim}
                click.echo(json.dumps(line) if as_json else str(path))
            if features.n_skipped:
                progress.note(
                    f"{counted(features.n_skipped, 'row')} without an embedding omitted: mt cache info '{entry.path}'"
                )
            advance(1)


def _export_name(entry: Entry, form: str) -> str:
    return f"{entry.path.parent.parent.name}-{entry.path.parent.name}-{entry.path.stem}.{form}"
