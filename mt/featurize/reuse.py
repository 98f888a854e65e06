"""Compute each image once per network: rows whose embeddings the cache holds are copied into a new file."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from mt.cache.catalog import cache_of
from mt.cache.feature_file.resume import MIXED
from mt.cache.feature_file.write import Existing, partial_path
from mt.cache.known_rows import COPIED, KnownRows, Pace, SameBits, WantedRows, find_known, nothing_known, recorded
from mt.featurize.embed import AUTO_BATCH_SIZE, Embedder
from mt.featurize.plan import Target
from mt.featurize.request import Compute
from mt.terminal import progress
from mt.terminal.progress import counted
from mt.types import Array

NAMED = 2  # files that the note on copied embeddings names
MIXED_ROWS = "Rows were copied from files of other devices, versions or batch sizes (--allow-mixed)."


@dataclass(frozen=True)
class Reuse:
    """What a new file copies from others; its manifest says so, and the other rows are computed in the same way.

    content: the content hash of each row's image, (n, 16) bytes; None if the dataset has none.
    """

    manifest: dict[str, Any]
    content: Array | None
    known: KnownRows


def planned(
    target: Target,
    manifest: dict[str, Any],
    content: Array | None,
    compute: Compute,
    embedder: Embedder | None,
    *,
    rows: int,
) -> Reuse:
    """Return what a new file can copy; nothing with `--overwrite`, nor for a partial file, which is resumed."""
    nothing = Reuse(manifest, content, nothing_known(rows, target.dim))
    resumes = partial_path(target.path).exists() and not compute.overwrite
    if content is None or compute.overwrite or resumes or target.complete:
        return nothing
    known, (batch_size, threads) = find_known(
        _wanted(target, manifest, content, compute),
        cache_of(target.path),
        same_bits=same_bits(embedder),
        any_pace=compute.batch_size is None,
        any_compute=compute.allow_mixed,
    )
    if not len(known):
        return nothing
    manifest = manifest | {COPIED: known.described(cache_of(target.path))}
    if compute.allow_mixed:
        return Reuse(_marked(manifest, known), content, known)
    return Reuse(
        manifest | {"compute": {**manifest["compute"], "batch_size": batch_size, "threads": threads}}, content, known
    )


def as_other_shards(planned: Reuse, target: Target, compute: Compute, existing: Existing) -> Reuse:
    """Return the same for a shard as for the file's shards that exist: batch size, threads and copied rows.

    Raises CacheError where `mt cache merge` would refuse them.
    """
    assert target.shard is not None
    manifest = target.shard.agreed(
        target.path, planned.manifest, COPIED, batch_size=compute.batch_size, existing=existing
    )
    if manifest.get(COPIED) == planned.manifest.get(COPIED) or planned.content is None:
        return replace(planned, manifest=manifest)
    known = recorded(
        _wanted(target, manifest, planned.content, compute), manifest.get(COPIED), target.path, cache_of(target.path)
    )
    return Reuse(manifest, planned.content, known)


def settled(reuse: Reuse, target: Target, manifest: dict[str, Any], compute: Compute, *, created: bool) -> Reuse:
    """Return what an opened file copies, by its manifest; a resumed file keeps the sources it was begun with."""
    if created or reuse.content is None:
        return reuse
    known = recorded(
        _wanted(target, manifest, reuse.content, compute),
        manifest.get(COPIED),
        partial_path(target.path),
        cache_of(target.path),
    )
    return replace(reuse, manifest=manifest, known=known)


def say(known: KnownRows) -> None:
    """Print the number of embeddings that are copied, and from which files."""
    if not len(known):
        return
    counts = known.counts()
    several = len(counts) > 1
    names = [f"{path}{f' ({count:,})' if several else ''}" for path, count in counts[:NAMED]]
    more = f" and {counted(len(counts) - NAMED, 'more file')}" if len(counts) > NAMED else ""
    progress.note(f"{len(known):,} of {len(known.mask):,} embeddings copied from {', '.join(names)}{more}")


def same_bits(embedder: Embedder | None) -> SameBits:
    """Return a function that says whether a CPU gives each image the same bits at two batch sizes: it embeds noise.

    Only automatic sizes are tried; larger ones may not fit in memory.  embedder: None if no backbone computes in this
    process.
    """
    known: dict[Pace, bytes | None] = {}

    def bits(pace: Pace) -> bytes | None:
        if pace not in known:
            known[pace] = None if embedder is None else embedder.bits(*pace)
        return known[pace]

    def same(one: Pace, other: Pace) -> bool:
        if one == other:
            return True
        if (
            embedder is None
            or embedder.device.type != "cpu"
            or one[1] != other[1]
            or max(one[0], other[0]) > AUTO_BATCH_SIZE["cpu"]
        ):
            return False
        return bits(one) is not None and bits(one) == bits(other)

    return same


def _wanted(target: Target, manifest: dict[str, Any], content: Array, compute: Compute) -> WantedRows:
    return WantedRows(
        target.model,
        target.fingerprints["backbone"],
        target.dim,
        compute.dtype,
        manifest.get("decoding", {}),
        manifest["compute"],
        content,
    )


def _marked(manifest: dict[str, Any], known: KnownRows) -> dict[str, Any]:
    """Return a manifest that lists the other devices, versions or batch sizes of copied rows, if there are any."""
    found = [one for features in known.files for one in _computes(features.manifest)]
    other = [one for place, one in enumerate(found) if one != manifest["compute"] and one not in found[:place]]
    if not other:
        return manifest
    return manifest | {MIXED: other, "warnings": [*manifest["warnings"], MIXED_ROWS]}


def _computes(manifest: dict[str, Any]) -> list[Any]:
    return [manifest["compute"], *manifest.get(MIXED, [])]
