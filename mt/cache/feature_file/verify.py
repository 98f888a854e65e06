"""Verification: every byte of a feature file against what was written."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from mt.cache.feature_file import format
from mt.cache.feature_file.arrays import row_ids
from mt.errors import CacheError

NAMED = 10  # rows that a message names


@dataclass(frozen=True)
class Damage:
    """A block whose bytes are not those that were written: rows `start` up to `stop`, and their ids."""

    block: int
    start: int
    stop: int
    ids: tuple[str, ...]

    def __str__(self) -> str:
        more = ", ..." if len(self.ids) > NAMED else ""
        named = ", ".join(self.ids[:NAMED])
        return f"rows {self.start} to {self.stop - 1} (block {self.block}): {named}{more}"


@dataclass(frozen=True)
class Verification:
    """What verification found.  `problem` says in words what is wrong, and is empty for a sound file.

    blocks: how many the file has.  checked: how many of them are there and were checked.
    """

    path: Path
    blocks: int
    checked: int
    damages: tuple[Damage, ...]
    problem: str


def verify_file(path: Path, advance: Callable[[int], object] = int) -> Verification:
    """Check the user block, the manifest, the seal and every block's checksum, by plain reads.

    HDF5 is asked for ids only once all of its own structure is known to be sound.  A partial file is checked as far
    as it goes.  advance: called with 1 for every block that is checked.
    """
    try:
        descriptor = format.open_for_reading(path)
    except CacheError as error:
        return Verification(path, 0, 0, (), str(error))
    try:
        layout = format.read_layout(descriptor, path)
        format.read_manifest(descriptor, layout, path)
        format.check_seal(descriptor, layout, path)
        checked = format.count_done(descriptor, layout, path)
        damages = find_damage(descriptor, layout, advance)
    except CacheError as error:
        return Verification(path, 0, 0, (), str(error))
    finally:
        os.close(descriptor)
    return Verification(path, layout.n_blocks, checked, tuple(damages), in_words(damages) if damages else "")


def find_damage(descriptor: int, layout: format.FileLayout, advance: Callable[[int], object] = int) -> list[Damage]:
    """Return the blocks whose bytes disagree with their checksums, of a file whose seal has been checked."""
    there = format.present(format.read_digests(descriptor, layout))
    wrong = list(format.wrong_blocks(descriptor, layout, there, advance))
    ids = row_ids(descriptor, layout) if wrong else []
    return [Damage(block, *layout.rows(block), tuple(ids[slice(*layout.rows(block))])) for block in wrong]


def in_words(damages: Sequence[Damage]) -> str:
    """Return which rows are damaged, in one sentence."""
    more = f"; and {len(damages) - 3} more blocks" if len(damages) > 3 else ""
    return f"checksums disagree in {len(damages)} blocks: {'; '.join(map(str, damages[:3]))}{more}"
