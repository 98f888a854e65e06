"""`mt cache merge`: the shards of a feature file become the file that one run would have made, byte for byte."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np

from mt.cache.cleaning import remove_file
from mt.cache.feature_file import format
from mt.cache.feature_file.lock import acquire
from mt.cache.feature_file.read import Summary, in_cache, is_complete, partial_rows, peek
from mt.cache.feature_file.resume import MIXED, differences, with_warning
from mt.cache.feature_file.rewrite import joined
from mt.cache.feature_file.rows import hash_of
from mt.cache.feature_file.shards import KEY, OWN, Shard
from mt.cache.feature_file.verify import verify_file
from mt.cache.feature_file.write import temporary_path
from mt.cache.names import JSON
from mt.errors import CacheError, DamagedError
from mt.system import files


@dataclass(frozen=True)
class ShardSet:
    """The shards of one feature file that are there, by number; `whole` is the file's path."""

    whole: Path
    of: int
    shards: dict[int, Path]

    def answered(self) -> bool:
        """Say whether the whole file exists and is newer than each shard: a merge was killed before it removed them."""
        newest = max(path.stat().st_mtime_ns for path in self.shards.values())
        return is_complete(self.whole) and self.whole.stat().st_mtime_ns >= newest

    def lacking(self) -> list[str]:
        """Return what is missing before they can be merged: one line per shard, with its command."""
        if self.answered():
            return []
        summaries = {number: peek(path) for number, path in self.shards.items()}
        one = next(iter(summaries.values()))
        about = one.manifest[KEY]
        n_blocks = -(-about["n_rows"] // one.block_rows)
        command = (
            f"{str(about['command']).rpartition(' --shard ')[0]} --batch-size {one.manifest['compute']['batch_size']}"
        )
        command = in_cache(command + " --overwrite" * is_complete(self.whole), self.whole)
        lines = []
        for number in range(1, self.of + 1):
            shard, there = Shard(number, self.of), summaries.get(number)
            if there is None and shard.blocks(n_blocks):
                lines.append(f"shard {shard} is not there. Make it: {command} --shard {shard}")
            elif there is not None and not there.complete:
                done = f"{min(there.n_blocks_done * there.block_rows, there.n_rows)} of {there.n_rows} rows"
                lines.append(f"shard {shard} has {done}. Finish it: {command} --shard {shard}")
        return lines


def shard_sets(paths: Iterable[Path]) -> list[ShardSet]:
    """Return the shards among these paths, by the file that they are parts of, and by their number of parts."""
    found: dict[tuple[Path, int], dict[int, Path]] = {}
    for path in paths:
        if format.is_shard(path):
            about = peek(path).manifest[KEY]
            found.setdefault((format.whole_path(path), about["of"]), {})[about["number"]] = path
    return [ShardSet(whole, of, dict(sorted(shards.items()))) for (whole, of), shards in sorted(found.items())]


def merge(found: ShardSet, *, allow_mixed: bool = False, advance: Callable[[int], object] = int) -> Path:
    """Write the whole file of complete shards, verify it, and remove them; return its path.

    If the process is killed, all shards or the whole file exist, and the same call finishes the work.
    allow_mixed: join shards of different devices or versions; the file records it.  advance: called with 1 per block.

    Raises:
        CacheError: shards differ in rows, settings or versions; the message names them.
        DamagedError: a shard's bytes disagree with their checksums.
        LockedError: a shard is being written.
    """
    parts = list(found.shards.values())
    try:
        with ExitStack() as locks:
            for path in (found.whole, *parts):
                locks.callback(acquire(path, 0.0).release)
            if not found.answered():
                _write(found.whole, parts, allow_mixed, advance)
        for path in parts:
            remove_file(path, found.whole.parents[2])
    except OSError as error:
        raise files.explained(error, found.whole) from error
    return found.whole


def _write(whole: Path, parts: Sequence[Path], allow_mixed: bool, advance: Callable[[int], object]) -> None:
    """Join the shards under a temporary name, verify what is there, and give it its final name."""
    summaries = [peek(path) for path in parts]
    manifest = _manifest(parts, summaries, allow_mixed)
    arrays = _joined([partial_rows(path) for path in parts])
    if hash_of(arrays) != summaries[0].manifest[KEY]["rows"]:
        raise CacheError(f"The shards of {whole} do not hold the rows that they say. Make them again with --overwrite.")
    temporary = temporary_path(whole)
    files.remove(temporary)
    try:
        joined(parts, arrays, manifest, temporary, advance)
        if problem := verify_file(temporary).problem:
            raise DamagedError(
                f"{whole} was not written as its shards are: {problem}. Look at the disk, and merge again."
            )
        files.rename(temporary, whole)
    except BaseException:
        files.remove(temporary)
        raise


def _manifest(parts: Sequence[Path], summaries: Sequence[Summary], allow_mixed: bool) -> dict[str, JSON]:
    """Return the whole file's manifest.  Raises CacheError where shards differ in it, naming what differs."""
    first, computes = summaries[0].manifest, list[JSON]()
    for path, summary in zip(parts, summaries, strict=True):
        found = list(differences(_same(summaries[0], allow_mixed), _same(summary, allow_mixed)))
        if found:
            raise CacheError(
                f"{path.name} differs from {parts[0].name} ({'; '.join(found[:3])}). Remove one of them "
                "(mt cache remove) and make it again, or, if only device or versions differ, mix knowingly: "
                "mt cache merge --allow-mixed"
            )
        here = [summary.manifest["compute"], *summary.manifest.get(MIXED, [])]
        computes += [one for one in here if one not in computes]
    manifest = {name: one for name, one in first.items() if name not in OWN}
    if len(computes) == 1:
        return manifest
    return manifest | {MIXED: computes[1:], "warnings": with_warning(manifest["warnings"])}


def _same(summary: Summary, allow_mixed: bool) -> dict[str, JSON]:
    """Return what all shards of a file have in common; with `allow_mixed`, without device, versions, batch, threads."""
    manifest = summary.manifest
    compute = {f"compute {name}": one for name, one in manifest["compute"].items()}  # batch_size and threads, too
    about = {name: manifest[KEY][name] for name in ("of", "n_rows", "rows")}
    mixed = {"compute", MIXED, "warnings"} if allow_mixed else {"compute"}
    return {
        **{name: one for name, one in manifest.items() if name not in {*OWN, *mixed}},
        **about,
        **({} if allow_mixed else compute),
        "dim": summary.dim,
        "dtype": summary.dtype,
        "block_rows": summary.block_rows,
    }


def _joined(stored: Sequence[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """Return the arrays of all rows: each as wide, and of the type, that a file of all of them has."""
    return {name: _one([each[name] for each in stored]) for name in stored[0]}


def _one(arrays: Sequence[np.ndarray]) -> np.ndarray:
    texts = [array for array in arrays if array.dtype.kind == "S"]
    if not texts:
        return np.concatenate(arrays)  # integers and floats become floats
    width = max(array.dtype.itemsize for array in texts)
    same = [array if array.dtype.kind == "S" else np.zeros(len(array), f"S{width}") for array in arrays]
    return np.concatenate(same).astype(h5py.string_dtype("utf-8", width))
