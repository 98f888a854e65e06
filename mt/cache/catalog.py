"""The catalog of a cache folder: its files, read from the files themselves, and which of them a command takes."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from mt.cache.feature_file.format import FINAL, SHARD, UNLABELLED
from mt.cache.feature_file.read import peek
from mt.cache.names import (
    JSON,
    Variant,
    bare_name,
    has_settings,
    is_exactly,
    is_named,
    slug,
    taken,
    typed,
    with_settings,
)
from mt.errors import CacheError
from mt.system import files

if TYPE_CHECKING:
    from mt.cache.feature_file.read import FeatureFile

OMITTED = ("superseded", "limited", "random")  # by default, and what `prune` removes
SUFFIXES = (FINAL, SHARD, ".partial")
_IMPORTED = " (imported"  # what follows a model's name where another program computed its embeddings


def feature_path(cache_dir: Path, dataset: str, split: str, backbone: str, fingerprint: str) -> Path:
    """Return where a feature file lives: always inside the cache folder, whatever the names hold."""
    return Path(cache_dir) / slug(dataset) / slug(split) / f"{slug(backbone)}-{fingerprint[:12]}.h5"


def imported_name(model: str, pool: str | None = None) -> str:
    """Return the name under which embeddings from elsewhere are shown: `uni (imported, mean)`."""
    return f"{model}{_IMPORTED}{f', {pool}' if pool else ''})"


def cache_of(path: Path) -> Path:
    """Return the cache folder that a path of `feature_path` is in."""
    return path.parents[2]


@dataclass(frozen=True)
class Entry:
    """One file of a cache folder, without its rows.

    flags: superseded (a newer file answers the same names), limited (`--limit`), random (random weights),
    incomplete, damaged; `shard 3/8` for a part of a file, which is never complete.  A damaged entry's names are those
    of its folders.  dataset: with its settings where they are not their default.
    """

    path: Path
    dataset: str
    split: str
    backbone: str
    fingerprints: dict[str, str]
    n_rows: int
    n_skipped: int
    n_blocks: int
    dim: int
    bytes: int
    complete: bool
    flags: tuple[str, ...]
    modified: float
    manifest: dict[str, JSON]
    problem: str = ""

    @property
    def has_unlabelled(self) -> bool:
        """Whether some of its rows lack their one label."""
        return bool(self.manifest.get("format_version") == UNLABELLED)

    def open(self, *, verify: bool = False) -> FeatureFile:
        """Open the file for reading."""
        from mt.cache.feature_file.read import open_features

        return open_features(self.path, verify=verify)


def read_entry(path: Path) -> Entry:
    """Return the entry of one file; one that cannot be read is flagged damaged and says why."""
    try:
        stat = path.stat()
        size, modified = stat.st_size, stat.st_mtime
    except OSError:
        size, modified = 0, 0.0
    try:
        summary = peek(path)
        manifest = summary.manifest
        flags = (
            *(["limited"] if manifest.get("limit") is not None else []),
            *(["random"] if manifest.get("random_weights") else []),
            *([f"shard {shard['number']}/{shard['of']}"] if (shard := manifest.get("shard")) else []),
            *([] if summary.complete else ["incomplete"]),
        )
        dataset = with_settings(str(manifest["dataset"]), manifest.get("settings", {}))
        return Entry(
            path,
            dataset,
            str(manifest["split"]),
            str(manifest["backbone"]),
            dict(manifest["fingerprints"]),
            summary.n_rows,
            summary.n_skipped,
            summary.n_blocks,
            summary.dim,
            size,
            summary.complete and not shard,
            flags,
            modified,
            manifest,
        )
    except (CacheError, OSError, KeyError, TypeError, ValueError) as error:
        names = path.parent.parent.name, path.parent.name, path.stem.rpartition("-")[0] or path.stem
        return Entry(path, *names, {}, 0, 0, 0, 0, size, False, ("damaged",), modified, {}, str(error))


class Catalog:
    """The feature files of a cache folder, or only some of them.  A folder that does not exist counts as empty.

    cache_dir: the folder; None: `MT_CACHE_DIR`, else the user's own.  only: paths of the files to look at; other files
    of the folder supersede none of them.
    """

    def __init__(self, cache_dir: str | os.PathLike[str] | None = None, only: Collection[Path] | None = None) -> None:
        self.cache_dir = files.cache_dir(cache_dir)
        self._only = None if only is None else frozenset(only)

    def entries(
        self,
        *,
        datasets: Collection[str] = (),
        models: Collection[str] = (),
        splits: Collection[str] = (),
        everything: bool = False,
    ) -> list[Entry]:
        """Return the entries with these names, sorted by dataset, split and backbone; without names, all.

        Superseded, limited and random-weight files are omitted unless `everything` is true.  A file that cannot be
        read is returned with the flag "damaged"; nothing is raised for it.
        """
        return chosen(self._all(), datasets=datasets, models=models, splits=splits, everything=everything)

    def paths(self) -> Iterator[Path]:
        """Yield every file that is under a feature file's name, complete or partial."""
        for dataset in _inside(self.cache_dir):
            for split in _inside(dataset):
                yield from (file for file in _inside(split) if file.name.endswith(SUFFIXES))

    def _all(self) -> list[Entry]:
        entries = [read_entry(path) for path in self.paths() if self._only is None or path in self._only]
        complete: dict[tuple[JSON, ...], list[Entry]] = {}
        for entry in entries:
            if entry.complete:
                complete.setdefault(_asked(entry), []).append(entry)
        return [
            replace(entry, flags=("superseded", *entry.flags))
            if entry.manifest and any(_supersedes(other, entry) for other in complete.get(_asked(entry), ()))
            else entry
            for entry in entries
        ]


def _supersedes(other: Entry, entry: Entry) -> bool:
    """Say whether a file replaces another: it is newer, and does not lack groups that the other has."""
    loses_groups = bool(entry.manifest.get("grouping")) and not other.manifest.get("grouping")
    return other.modified > entry.modified and not loses_groups


def chosen(
    entries: Iterable[Entry],
    *,
    datasets: Collection[str] = (),
    models: Collection[str] = (),
    splits: Collection[str] = (),
    everything: bool = False,
) -> list[Entry]:
    """Return those of the entries that `Catalog.entries` returns for the same names."""
    found = [
        entry
        for entry in entries
        if (not datasets or _is_dataset(entry, datasets))
        and (not models or entry.backbone in models or entry.backbone.partition(_IMPORTED)[0] in models)
        and (not splits or entry.split in splits)
        and (everything or not set(entry.flags) & set(OMITTED))
    ]
    return sorted(found, key=lambda entry: (entry.dataset, entry.split, entry.backbone, str(entry.path)))


def _asked(entry: Entry) -> tuple[JSON, ...]:
    """Return what a person asked for by name: of several files with the same, the newest counts.

    A limited run never supersedes a full one, nor random weights real ones.
    """
    manifest = entry.manifest
    return (
        entry.dataset,
        manifest.get("location"),
        entry.split,
        entry.backbone,
        manifest.get("limit"),
        bool(manifest.get("random_weights")),
    )


def _is_dataset(entry: Entry, names: Collection[str]) -> bool:
    """Say whether an entry is of one of the datasets, named as it is shown or as it was asked for by its path."""
    location = entry.manifest.get("location")
    return any(is_named(entry.dataset, location, name) for name in names)


def _inside(folder: Path) -> list[Path]:
    """Return what is in a folder, hidden names omitted; nothing where it is not a folder or cannot be read."""
    try:
        return sorted(folder / name for name in os.listdir(folder) if not name.startswith("."))
    except OSError:
        return []


def settled(entries: Sequence[Entry], asked: Sequence[str] = ()) -> list[Entry]:
    """Return the entries of one variant per dataset: the one that `asked` names, else the newest that has groups.

    A choice that `asked` leaves open is said on stderr.

    Raises:
        InputError: several variants without groups, or equally new ones, so that no rule chooses one.
    """
    datasets: dict[tuple[str, str], dict[tuple[str, bool], list[Entry]]] = {}
    for entry in entries:
        place = str(entry.manifest.get("location")), bare_name(entry.dataset)
        datasets.setdefault(place, {}).setdefault((entry.dataset, _grouped(entry)), []).append(entry)
    kept: list[Entry] = []
    for variants in datasets.values():
        named: dict[str, list[list[Entry]]] = {}
        for (name, _), found in variants.items():
            if _is_asked(found[0], asked):
                named.setdefault(name, []).append(found)
        kept += [entry for some in list(named.values()) or [list(variants.values())] for entry in _best(some)]
    paths = {entry.path for entry in kept}
    return [entry for entry in entries if entry.path in paths]


def _grouped(entry: Entry) -> bool:
    return bool(entry.manifest.get("grouping"))


def _is_asked(entry: Entry, asked: Sequence[str]) -> bool:
    location = entry.manifest.get("location")
    return any(has_settings(name) and is_exactly(entry.dataset, location, name) for name in asked)


def _best(several: Iterable[list[Entry]]) -> list[Entry]:
    """Return the entries of the variant that is taken."""
    variants = {
        Variant(typed(entries[0].dataset), _grouped(entries[0]), (max(entry.modified for entry in entries),)): entries
        for entries in several
    }
    return variants[taken(list(variants), what="Features")]
