"""`mt cache forget`: a person whose consent is withdrawn leaves feature files, scores, predictions and hashes.

A feature file is replaced by one without the person's rows, under another fingerprint; a partial one is removed.
Scores and predictions that were fitted or tested on these rows are removed; they can be computed again from the others.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from mt.cache.catalog import Catalog, Entry, cache_of, feature_path
from mt.cache.cleaning import remove_file
from mt.cache.content import ContentIndex
from mt.cache.feature_file.lock import acquire
from mt.cache.feature_file.read import FeatureFile, decoded, open_features, partial_rows
from mt.cache.feature_file.rewrite import without_rows
from mt.cache.feature_file.rows import COLUMNS, CONTENT, hash_of
from mt.cache.feature_file.write import temporary_path
from mt.cache.names import digest
from mt.cache.salt import hashed, known_salt
from mt.results.report_pages import ReportPage, registered
from mt.results.report_pages import remove as remove_page
from mt.results.store import ScoreStore
from mt.system import files
from mt.types import LabelledRows

FORGOTTEN = "forgotten"  # in a manifest: how many rows were removed
_PERSONS = ("groups", f"{COLUMNS}patient")  # arrays that name a person


@dataclass(frozen=True)
class Person:
    """Who is to be forgotten: rows by id, or all rows of a group; names and the hashes that stand for them."""

    ids: frozenset[str]
    groups: frozenset[str]

    @classmethod
    def named(cls, ids: Sequence[str], groups: Sequence[str], cache_dir: Path) -> Person:
        salt = known_salt(cache_dir)
        hashes = (
            {}
            if salt is None
            else {
                "ids": [hashed(f"id:{one}", salt) for one in ids],
                "groups": [hashed(f"{kind}:{one}", salt) for one in groups for kind in ("group", "patient")],
            }
        )
        return cls(frozenset([*ids, *hashes.get("ids", ())]), frozenset([*groups, *hashes.get("groups", ())]))

    def is_in(self, rows: LabelledRows[Any]) -> bool:
        """Say whether rows that a score was made from are the person's."""
        named = [*(rows.groups if rows.groups is not None else ()), *rows.columns.get("patient", ())]
        return not self.ids.isdisjoint(rows.ids) or not self.groups.isdisjoint(map(str, named))

    def rows(self, arrays: dict[str, np.ndarray]) -> np.ndarray:
        """Return (n,) bool, which of a file's rows are the person's."""
        found = np.isin(np.array(decoded(arrays["ids"]), dtype=object), list(self.ids))
        for name in _PERSONS:
            if name in arrays and self.groups:
                values = [str(value) for value in decoded(arrays[name])]
                found |= np.isin(np.array(values, dtype=object), list(self.groups))
        return found


@dataclass(frozen=True)
class Traces:
    """Where a person is: rows by complete file, partial files, predictions and scores, and the images' hashes."""

    files: dict[Path, np.ndarray] = field(default_factory=dict)
    partial: tuple[Path, ...] = ()
    cases: frozenset[str] = frozenset()
    fits: frozenset[str] = frozenset()
    n_scores: int = 0
    pages: tuple[ReportPage, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.files or self.partial or self.cases)


def traces(person: Person, catalog: Catalog, store: ScoreStore, datasets: Collection[str] = ()) -> Traces:
    """Return where the cache and the score database hold a person, changing nothing.

    Raises:
        CacheError: a file is damaged, so that it is not known what it holds.
    """
    found: dict[Path, np.ndarray] = {}
    partial = []
    names = set(datasets)
    for entry in catalog.entries(datasets=datasets, everything=True):
        names |= {entry.dataset} if datasets else set()
        if entry.complete:
            rows = person.rows(open_features(entry.path).stored)
            if rows.any():
                found[entry.path] = rows
        elif "damaged" not in entry.flags and person.rows(partial_rows(entry.path)).any():
            partial.append(entry.path)
    cases = store.cases_where(person.is_in)
    fits = store.fits_on(cases, names)
    if names and not fits:  # a set of rows does not state its dataset
        cases = set()
    return Traces(
        found,
        tuple(partial),
        frozenset(cases),
        frozenset(fits),
        len(store.scores_of(fits)),
        tuple(registered(store, fits)),
    )


def forget(found: Traces, catalog: Catalog, store: ScoreStore, index: ContentIndex) -> None:
    """Remove all that was found, reports and scores first; after an interruption the same call finishes the work."""
    for page in found.pages:
        remove_page(page)
    store.forget(found.fits, found.cases)
    for path, rows in found.files.items():
        features = open_features(path)
        _forget_hashes(features, rows, index)
        _replace(features, rows, catalog.cache_dir)
    for path in found.partial:
        remove_file(path, catalog.cache_dir)


def damaged(catalog: Catalog, datasets: Collection[str] = ()) -> list[Entry]:
    """Return the files whose patients are not known."""
    return [entry for entry in catalog.entries(datasets=datasets, everything=True) if "damaged" in entry.flags]


def _replace(features: FeatureFile, rows: np.ndarray, cache_dir: Path) -> None:
    """Write the file without the rows under its own name, then remove the old one."""
    path = features.path
    if not rows.all():
        keep = ~rows
        kept = {name: np.ascontiguousarray(array[keep]) for name, array in features.stored.items()}
        manifest = _manifest_without(features, hash_of(kept), int(rows.sum()))
        target = feature_path(
            cache_of(path.absolute()),
            features.bare_dataset,
            features.split,
            features.backbone,
            manifest["fingerprints"]["file"],
        )
        try:
            lock = acquire(target, 0.0)
            try:
                files.remove(temporary_path(target))
                without_rows(features, keep, temporary_path(target), manifest)
                files.rename(temporary_path(target), target)
            finally:
                lock.release()
        except OSError as error:
            raise files.explained(error, target) from error
    remove_file(path, cache_dir)


def _manifest_without(features: FeatureFile, rows: str, count: int) -> dict[str, Any]:
    """Return the manifest of the file without the rows: same backbone and dataset, new split and file fingerprints."""
    manifest = dict(features.manifest)
    prints = {name: one for name, one in features.fingerprints.items() if name != "file"}
    prints["split"] = digest({"split": prints["split"], "rows": rows})
    return manifest | {
        "fingerprints": {**prints, "file": digest(prints)},
        FORGOTTEN: int(manifest.get(FORGOTTEN, 0)) + count,
    }


def _forget_hashes(features: FeatureFile, rows: np.ndarray, index: ContentIndex) -> None:
    content = features.stored.get(CONTENT)
    location = features.manifest.get("location")
    ids = np.array(decoded(features.stored["ids"]), dtype=object)[rows]
    index.forget(
        prefixes=[] if content is None else [one.tobytes().hex() for one in content[rows]],
        paths=[str(Path(location) / one) for one in ids] if location else [],
    )
