"""Verification: every byte of a feature file against what was written."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from mt.cache.feature_file import format
from mt.cache.feature_file.read import Damage, find_damage, in_words
from mt.errors import CacheError


@dataclass(frozen=True)
class Verification:
    """What verification found.  `problem` says in words what is wrong, and is empty for an undamaged file.

    blocks: the number of blocks in the whole file.  checked: the number that are written and were checked.
    """

    path: Path
    blocks: int
    checked: int
    damages: tuple[Damage, ...]
    problem: str


def verify_file(path: Path, advance: Callable[[int], object] = int) -> Verification:
    """Check the user block, the manifest, the seal and every block's checksum, by plain reads.

    HDF5 reads ids only after its own structure has passed the check.  Of a partial file the written blocks are checked.
    advance: called with 1 for every block that is checked.  A damaged file raises nothing: it is in the result.
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
