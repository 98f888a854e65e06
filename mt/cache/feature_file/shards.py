"""Shards: a feature file computed in parts, `--shard I/N`, each part in a file of its own until they are merged.

A shard holds consecutive blocks of the whole file: `NAME.IofN.shard`, a feature file of these rows alone.  Readers do
not take it for a feature file.  Its manifest is the whole file's, and under `shard` says which part it is.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import numpy as np

from mt.cache.feature_file.format import SHARD, whole_path
from mt.cache.feature_file.read import peek
from mt.cache.feature_file.resume import ADOPTED, MIXED, differences
from mt.cache.feature_file.rows import arrays_of, hash_of
from mt.cache.feature_file.write import Existing, FeatureWriter, partial_path
from mt.cache.names import JSON
from mt.errors import CacheError, InputError
from mt.types import LabelledRows

KEY = "shard"  # in the manifest of a shard
OWN = (KEY, "rows", "format", "format_version")  # what every shard's manifest says of itself


@dataclass(frozen=True)
class Shard:
    """Part `number`, counted from 1, of `of` parts."""

    number: int
    of: int

    @classmethod
    def parse(cls, text: str) -> Shard:
        """Read `I/N`.  Raises InputError."""
        found = re.fullmatch(r"(\d+)/(\d+)", text.strip())
        if not found:
            raise InputError(f"--shard takes I/N, part I of N: --shard 1/8; got '{text}'.")
        number, of = int(found[1]), int(found[2])
        if not 1 <= number <= of:
            raise InputError(
                f"--shard {text}: parts are numbered from 1 to {of}. In a Slurm array that begins at 0: "
                f"--shard $((SLURM_ARRAY_TASK_ID + 1))/{max(of, 1)}"
            )
        return cls(number, of)

    def __str__(self) -> str:
        return f"{self.number}/{self.of}"

    def blocks(self, n_blocks: int) -> range:
        """Return the blocks of this part: none where there are more parts than blocks."""
        return range((self.number - 1) * n_blocks // self.of, self.number * n_blocks // self.of)

    def path(self, whole: Path) -> Path:
        """Return the shard's file, beside the feature file that it is a part of."""
        return whole.with_name(f"{whole.stem}.{self.number}of{self.of}{SHARD}")

    def agreed(
        self, path: Path, manifest: dict[str, JSON], taken: str, *, batch_size: int | None, existing: Existing
    ) -> dict[str, JSON]:
        """Return the whole file's manifest with what the other parts settled, so that all of them can be merged.

        Batch size, threads and the field ``taken`` are those of the first part that exists.  batch_size: the one that
        was asked for.  Raises CacheError where a part differs in anything else; `existing` may allow it.
        """
        own, others = _there(path), list(self._others(path))
        if existing.overwrite and others and any(_differ(others[0][1], manifest, taken, mixed=False)):
            return manifest  # the other parts are to be made again, too
        for there, theirs in others:
            if own is not None and not existing.overwrite:
                ours = peek(own).manifest
                found = [] if existing.allow_mixed else list(differences(_pace(theirs), _pace(ours)))
            else:
                ours = manifest = _as(manifest, others[0][1], taken)
                asked = _pace(ours) if batch_size is None else _pace(ours) | {"batch": batch_size}
                found = list(differences(_pace(theirs), asked))
            found += _differ(theirs, ours, taken, mixed=existing.allow_mixed)
            if found:
                raise CacheError(
                    f"{path.name} would differ from {there.name} ({'; '.join(found[:3])}), and mt cache merge would "
                    "refuse them. Compute it as that part was computed, or make that part again, too (--overwrite); if "
                    "only device or versions differ, --allow-mixed mixes them."
                )
        return manifest

    def _others(self, path: Path) -> Iterator[tuple[Path, dict[str, JSON]]]:
        """Yield the other parts that exist, complete or not, with their manifests; damaged ones are omitted."""
        whole = whole_path(path)
        for number in range(1, self.of + 1):
            there = _there(Shard(number, self.of).path(whole)) if number != self.number else None
            if there is not None:
                try:
                    yield there, peek(there).manifest
                except CacheError:  # named by every command that reads it
                    continue

    def open(
        self,
        path: Path,
        rows: LabelledRows[None],
        manifest: dict[str, JSON],
        *,
        dim: int,
        dtype: str,
        block_rows: int,
        content: Sequence[bytes] | None = None,
        existing: Existing | None = None,
    ) -> ShardWriter | None:
        """Create this part's file `path` with the space of its rows reserved, or resume it; None where it has no rows.

        rows, manifest, content: of the whole file.  Raises as `FeatureWriter.open` does.
        """
        existing = existing or Existing()
        if not existing.overwrite:
            block_rows = _block_rows(path) or block_rows
        n_blocks = -(-len(rows) // block_rows)
        blocks = self.blocks(n_blocks)
        if not blocks:
            return None
        part = slice(blocks.start * block_rows, min(blocks.stop * block_rows, len(rows)))
        about = {
            "number": self.number,
            "of": self.of,
            "n_rows": len(rows),
            "rows": hash_of(arrays_of(rows, content)),
            "command": f"{manifest['command']} --shard {self}",
        }
        writer = FeatureWriter.open(
            path,
            rows.take(np.arange(part.start, part.stop)),
            {**manifest, KEY: about},
            dim=dim,
            dtype=dtype,
            block_rows=block_rows,
            content=None if content is None else content[part],
            existing=existing,
        )
        return ShardWriter(writer, part, len(rows))


class ShardWriter:
    """A writer of one shard that takes the block numbers of the whole file, as `FeatureWriter` does.

    path: the shard's file.  n_rows, block_rows: of the whole file.  rows: those of them that this shard holds.
    missing: the blocks of this shard that are still to be written.
    """

    def __init__(self, writer: FeatureWriter, rows: slice, n_rows: int) -> None:
        self._writer, self._first = writer, rows.start // writer.block_rows
        self.rows = rows
        self.path, self.created = writer.path, writer.created
        self.n_rows, self.block_rows = n_rows, writer.block_rows
        self.resumed_manifest = writer.resumed_manifest

    @property
    def missing(self) -> list[int]:
        return [self._first + block for block in self._writer.missing]

    def write_block(self, block: int, embeddings: np.ndarray, status: np.ndarray) -> None:
        """Write one whole block, by its number in the whole file."""
        self._writer.write_block(block - self._first, embeddings, status)

    def finish(self) -> Path:
        """Give the complete shard its final name, and return that name."""
        return self._writer.finish()

    def discard(self) -> None:
        """Remove the file if this writer created it, and release it."""
        self._writer.discard()

    def close(self) -> None:
        """Release the file and its lock; what is written stays and can be resumed."""
        self._writer.close()


BlockWriter: TypeAlias = FeatureWriter | ShardWriter


def _block_rows(path: Path) -> int | None:
    """Return the rows per block of a shard that an earlier run began; None where there is none."""
    there = _there(path)
    return None if there is None else peek(there).block_rows


def _there(path: Path) -> Path | None:
    """Return the file of a shard, complete or not; None where there is none."""
    return next((one for one in (path, partial_path(path)) if one.exists()), None)


def _pace(manifest: dict[str, JSON]) -> dict[str, JSON]:
    """Return batch size and threads by names that `differences` compares."""
    compute = manifest["compute"]
    return {"batch": compute["batch_size"], "threads of torch": compute["threads"]}


def _as(manifest: dict[str, JSON], other: dict[str, JSON], taken: str) -> dict[str, JSON]:
    """Return a manifest with another's batch size and threads, and its field `taken`, if it has one."""
    kept = {name: one for name, one in manifest.items() if name != taken}
    pace = {name: other["compute"][name] for name in ADOPTED}
    own = {taken: other[taken]} if taken in other else {}
    return {**kept, **own, "compute": {**manifest["compute"], **pace}}


def _differ(theirs: dict[str, JSON], ours: dict[str, JSON], taken: str, *, mixed: bool) -> Iterator[str]:
    """Yield in what two parts' manifests differ, beside batch size, threads and `taken`; mixed: and beside compute."""
    beside = {*OWN, taken, *(("compute", MIXED, "warnings") if mixed else ())}
    one, other = ({name: value for name, value in each.items() if name not in beside} for each in (theirs, ours))
    yield from differences(one, other)
