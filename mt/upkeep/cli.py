"""`mt cache upgrade` and `mt cache forget`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from mt.cache import show
from mt.cache.cli import Selection, whole_selection
from mt.errors import InputError, MtError
from mt.system import files
from mt.terminal import options, progress
from mt.terminal.progress import counted

LEFT = (
    "Forgotten. Remove the images, too: mt featurize embeds every image it finds. Exports, saved models and "
    "copies of reports are not changed: make them again."
)


@click.command(epilog="Example: mt cache upgrade --dataset pcam --data-dir /data/pcam")
@whole_selection
@options.data_dir
@options.as_json
@click.pass_context
def upgrade(context: click.Context, selected: Selection, data_dir: str | None, as_json: bool) -> None:
    """Add content hashes to older feature files, so that other splits and folders can use their embeddings.

    The images are hashed, not embedded, and compared with those that the file was made from.  Embeddings and
    fingerprints stay as they are.  Exit status 1 if a file could not be upgraded.
    """
    from mt.cache.content import ContentIndex
    from mt.upkeep.upgrade import DONE, Upgrade

    upgraded = Upgrade(ContentIndex(), Path(data_dir) if data_dir else None)
    outcomes: list[tuple[Path, str, bool]] = []
    for entry in selected.entries:
        if entry.complete:
            try:
                outcomes.append((entry.path, upgraded(entry), True))
            except MtError as error:
                outcomes.append((entry.path, str(error), False))
    if as_json:
        show.json_lines({"path": str(path), "outcome": said, "ok": ok} for path, said, ok in outcomes)
    else:
        for path, said, ok in outcomes:
            if ok:
                click.echo(f"{said}: {path}")
            else:
                progress.note(said)
    failed = sum(not ok for _, _, ok in outcomes)
    progress.note(f"{counted(sum(said == DONE for _, said, _ in outcomes), 'file')} upgraded, {failed} could not be.")
    context.exit(1 if failed else 0)


@click.command(epilog="Example: mt cache forget --group patient-0042")
@click.option("--id", "ids", multiple=True, metavar="ID", help="Forget the row of this id (repeatable).")
@click.option("--group", "groups", multiple=True, metavar="GROUP", help="Forget all rows of this group (repeatable).")
@options.datasets
@options.cache_dir
@options.scores
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.option("--dry-run", is_flag=True, help="Print what would be removed, and remove nothing.")
@options.as_json
def forget(
    ids: tuple[str, ...],
    groups: tuple[str, ...],
    datasets: tuple[str, ...],
    cache_dir: str | None,
    scores: str | None,
    yes: bool,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Remove a person: rows of feature files, predictions, scores and report pages made with them, remembered hashes.

    Scores fitted or tested with these rows are removed, not marked; mt probe computes them again from the other rows.
    Images, exports and saved models stay: remove them, or make them again.
    """
    from mt.cache.catalog import Catalog
    from mt.cache.content import ContentIndex
    from mt.results.store import ScoreStore
    from mt.upkeep.forgetting import Person, damaged, traces
    from mt.upkeep.forgetting import forget as remove

    if not ids and not groups:
        raise InputError("Say who is to be forgotten: --id ID or --group GROUP. See: mt cache forget --help")
    cache = files.cache_dir(cache_dir)
    catalog = Catalog(cache)
    with ScoreStore(files.scores_path(scores, cache)) as store:
        found = traces(Person.named(ids, groups, cache), catalog, store, datasets)
        for entry in damaged(catalog, datasets):
            progress.note(f"Warning: {entry.path} is damaged: its patients are unknown. Remove it: mt cache remove")
        reports = [(page, paths) for page in found.pages if (paths := page.removable()[0])]
        facts: list[dict[str, Any]] = [
            *({"path": str(path), "rows": int(rows.sum()), "of": len(rows)} for path, rows in found.files.items()),
            *({"path": str(path), "partial": True} for path in found.partial),
            *({"path": str(path), "report": True, "again": page.command} for page, paths in reports for path in paths),
            {"predictions": len(found.fits), "scores": found.n_scores},
        ]
        if not found:
            raise InputError(
                f"Nothing in {cache} is of {', '.join([*ids, *groups])}. Names are whole ids or groups: mt cache export"
            )
        if not as_json:
            for path, rows in found.files.items():
                click.echo(f"{int(rows.sum())} of {len(rows)} rows: {path}")
            for path in found.partial:
                click.echo(f"unfinished file, removed whole: {path}")
            for page, paths in reports:
                click.echo(f"report of {counted(len(paths), 'file')}: {page.page}. Draw it again: {page.command}")
            click.echo(
                f"{counted(len(found.fits), 'prediction')} and {counted(found.n_scores, 'score')} made with these rows"
            )
        for path in (path for page in found.pages for path in page.removable()[1]):
            progress.note(f"Warning: {path} was changed since mt wrote it, so it stays. Check whom it shows.")
        if not dry_run:
            if not yes:
                click.confirm("Remove all this?", abort=True, err=True)
            remove(found, catalog, store, ContentIndex())
    if as_json:
        show.json_lines(fact | {"removed": not dry_run} for fact in facts)
    else:
        progress.note("Nothing was removed (--dry-run)." if dry_run else LEFT)
