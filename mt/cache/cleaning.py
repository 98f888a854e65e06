"""Removing feature files: those that are named, and those that no command reads by default."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from mt.cache.catalog import OMITTED, SUFFIXES, Catalog
from mt.cache.feature_file.format import FINAL, SHARD, is_shard
from mt.cache.feature_file.lock import acquire, lock_path
from mt.errors import LockedError
from mt.system import files


def prunable(catalog: Catalog) -> list[tuple[Path, str]]:
    """Return what may go, each with the reason: superseded, limited and random-weight files, and leftovers.

    Leftovers are temporary files of killed runs and locks whose file is gone.  Incomplete files stay, since they
    can be resumed; damaged ones stay, since a person should see them.
    """
    flagged = [
        (entry.path, ", ".join(flag for flag in entry.flags if flag in OMITTED))
        for entry in catalog.entries(everything=True)
        if set(entry.flags) & set(OMITTED)
    ]
    return flagged + [(path, "leftover") for path in _leftovers(catalog.cache_dir)]


def remove_file(path: Path, cache_dir: Path) -> int:
    """Remove one file, its lock, and the folders that this leaves empty; return the bytes that it had.

    Raises LockedError while another process writes it.
    """
    final = _final(path)
    try:
        lock = acquire(final, 0.0)
        try:
            size = path.stat().st_size if path.exists() else 0
            files.remove(path)
            if not any(final.with_suffix(suffix).exists() for suffix in SUFFIXES):
                files.remove(lock_path(final))
        finally:
            lock.release()
    except OSError as error:
        raise files.explained(error, path) from error
    for folder in (path.parent, path.parent.parent):
        if cache_dir in folder.parents:
            with contextlib.suppress(OSError):  # not empty
                folder.rmdir()
    return size


def _final(path: Path) -> Path:
    """Return the feature file, or the shard, that a partial file, a temporary one or a lock belongs to."""
    if path.suffix == ".lock":
        return path.with_suffix("")
    return path.with_suffix(SHARD if is_shard(path) else FINAL)


def _leftovers(cache_dir: Path) -> Iterator[Path]:
    """Yield temporary files, and locks without a file, that no process holds."""
    for folder in sorted(one for one in cache_dir.glob("*/*") if one.is_dir()):
        names = {
            name for name in os.listdir(folder) if name.endswith((*SUFFIXES, ".tmp", f"{FINAL}.lock", f"{SHARD}.lock"))
        }
        for name in sorted(names):
            final = _final(folder / name)
            alone = name.endswith(".lock") and not {final.name, final.with_suffix(".partial").name} & names
            if (alone or name.endswith(".tmp")) and _is_free(final):
                yield folder / name


def _is_free(final: Path) -> bool:
    """Say whether no process is writing a file."""
    if not lock_path(final).exists():
        return True
    try:
        acquire(final, 0.0).release()
    except LockedError:
        return False
    return True
