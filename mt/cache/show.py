"""Feature files as text: tables for people, JSON for machines."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from mt.cache.catalog import Entry
from mt.cache.feature_file.read import status_counts
from mt.errors import CacheError
from mt.system.files import megabytes
from mt.terminal import tables
from mt.types import MISSING

if TYPE_CHECKING:
    from mt.cache.feature_file.verify import Verification


NO_LABEL = "(no label)"  # beside the classes: rows that lack their one label


def json_lines(objects: Iterable[dict[str, Any]]) -> None:
    """Print one JSON object per line."""
    for one in objects:
        click.echo(json.dumps(one))


def facts(entry: Entry) -> dict[str, Any]:
    """Return an entry as one JSON object."""
    return {
        "path": str(entry.path),
        "dataset": entry.dataset,
        "split": entry.split,
        "model": entry.backbone,
        "rows": entry.n_rows,
        "skipped": entry.n_skipped,
        "dim": entry.dim,
        "bytes": entry.bytes,
        "complete": entry.complete,
        "flags": list(entry.flags),
        "fingerprints": entry.fingerprints,
        "problem": entry.problem,
    }


def details(entry: Entry) -> dict[str, Any]:
    """Return all that a file says of itself, its class counts included where it is complete."""
    found = facts(entry) | {"manifest": entry.manifest}
    if "damaged" in entry.flags:
        return found
    found["status"] = status_counts(entry.path)
    if entry.complete:
        try:
            found |= _counts(entry)
        except CacheError as error:
            found["problem"] = str(error)
    return found


def _counts(entry: Entry) -> dict[str, Any]:
    """Return rows per class, groups, and metadata columns."""
    features = entry.open()
    labels = features.labels
    names = features.class_names
    if labels.ndim == 2:
        classes = dict(zip(names, (labels == 1).sum(axis=0, dtype=int).tolist(), strict=True))
    else:
        counted = Counter(labels.tolist())
        classes = {name: counted[number] for number, name in enumerate(names)}
        if counted[MISSING]:
            classes[NO_LABEL] = counted[MISSING]
    groups = features.groups
    return {
        "classes": classes,
        "groups": None if groups is None else len(set(groups)),
        "columns": sorted(features.columns),
    }


def table(entries: Sequence[Entry]) -> None:
    """Print a table, as wide as the terminal or, into a pipe, as its contents."""
    rows = []
    for entry in entries:
        state = [*entry.flags, *([f"{entry.n_skipped} skipped"] if entry.n_skipped else [])]
        rows.append(
            (
                entry.dataset,
                entry.split,
                entry.backbone,
                f"{entry.n_rows:,}",
                str(entry.dim),
                megabytes(entry.bytes),
                ", ".join(state) or "complete",
            )
        )
    headings = ("dataset", "split", "model", "rows", "dim", "size", "state")
    tables.print_table(headings, rows, numbers=headings[3:6])


def info(entry: Entry) -> None:
    """Print what a file says of itself, one fact per line."""
    found = details(entry)
    manifest = entry.manifest
    lines: dict[str, Any] = {
        "file": entry.path,
        "problem": found["problem"],
        "state": ", ".join(entry.flags) or "complete",
        "dataset": entry.dataset,
        "split": entry.split,
        "location": manifest.get("location"),
        "model": entry.backbone,
        "imported from": _imported(manifest),
        "rows": _pairs(found.get("status", {})),
        "dim": f"{entry.dim}, {megabytes(entry.bytes)}",
        "task": manifest.get("task"),
        "metric": manifest.get("metric"),
        "classes": _pairs(found.get("classes", {})),
        "groups": found.get("groups"),
        "grouping": manifest.get("grouping"),
        "columns": ", ".join(found.get("columns", [])),
        "licence": manifest.get("licence"),
        "limit": manifest.get("limit"),
        "fingerprints": _pairs(entry.fingerprints),
        "compute": _pairs(manifest.get("compute", {})),
        "also computed on": manifest.get("mixed_compute"),
        "command": manifest.get("command"),
        "warnings": "; ".join(manifest.get("warnings", [])),
    }
    for name, value in lines.items():
        if value not in (None, "", [], {}):
            click.echo(f"{name + ':':<18}{value}")
    click.echo()


def _imported(manifest: dict[str, Any]) -> str:
    """Return the names and hashes of the files that embeddings were imported from, the first few of many."""
    files = (manifest.get("inputs", {}).get("backbone") or {}).get("files", [])
    shown = ", ".join(f"{one['name']} (sha256 {one['sha256'][:12]})" for one in files[:3])
    return shown + (f", ... {len(files):,} files" if len(files) > 3 else "")


def _pairs(values: dict[str, Any]) -> str:
    return ", ".join(_pairs(value) if isinstance(value, dict) else f"{name} {value}" for name, value in values.items())


def report(found: Verification) -> None:
    """Print what verification found in one file: a line, and one for each damaged block."""
    if found.problem and not found.damages:
        click.echo(f"damaged  {found.path}  {found.problem}")
        return
    part = "" if found.checked == found.blocks else f"  ({found.checked} of {found.blocks} blocks are there)"
    click.echo(f"{'damaged' if found.damages else 'ok':<7}  {found.path}{part}")
    for damage in found.damages:
        click.echo(f"         {damage}")


def report_facts(found: Verification) -> dict[str, Any]:
    """Return what verification found in one file as one JSON object; a damaged block lists all its ids."""
    return {
        "path": str(found.path),
        "ok": not found.problem,
        "blocks": found.blocks,
        "checked": found.checked,
        "problem": found.problem,
        "damaged": [
            {"block": one.block, "start": one.start, "stop": one.stop, "ids": list(one.ids)} for one in found.damages
        ],
    }


def paths(found: Iterable[tuple[Path, str]]) -> None:
    """Print paths, each with a reason where there is one."""
    for path, reason in found:
        click.echo(f"{path}  ({reason})" if reason else str(path))


def size(entries: Iterable[Entry]) -> str:
    """Return how much the files hold together, for people."""
    return megabytes(sum(entry.bytes for entry in entries))
