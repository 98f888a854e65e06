"""A disk that forgets: what may be found after a power cut, given a trace of changes and syncs.

The rules are POSIX's with nothing added: a file's writes and size are durable after a sync of that file, in any
order and subset before it, each cut at any sector; names are durable after a sync of their folder, and before it
any subset of the changes may have happened, whatever the files' own state.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from tests.cache.operations import Operation

SECTOR = 512
EXHAUSTIVE = 4  # unsynced changes of which every combination is tried
SAMPLES = 12  # random combinations where there are more


@dataclass
class Disk:
    """What is durable, and what is not yet: bytes by inode, inodes by name."""

    files: dict[int, bytes] = field(default_factory=dict)
    names: dict[str, int] = field(default_factory=dict)
    writes: list[Operation] = field(default_factory=list)
    renames: list[Operation] = field(default_factory=list)

    @classmethod
    def of(cls, folder: Path) -> Disk:
        """Return the disk that holds a folder's files, all durable."""
        disk = cls()
        for path in folder.iterdir():
            inode = path.stat().st_ino
            disk.files[inode], disk.names[str(path)] = path.read_bytes(), inode
        return disk

    def take(self, operation: Operation) -> None:
        """Advance by one operation of the trace."""
        if operation.kind == "sync":
            for change in (one for one in self.writes if one.inode == operation.inode):
                self.files[change.inode] = _applied(self.files[change.inode], change)
            self.writes = [one for one in self.writes if one.inode != operation.inode]
        elif operation.kind == "sync_folder":
            for change in self.renames:
                _rename(self.names, change)
            self.renames = []
        elif operation.kind in ("rename", "unlink", "create"):
            if operation.kind == "create":
                self.files[operation.inode] = b""
            self.renames.append(operation)
        else:
            self.writes.append(operation)

    def crashes(self) -> Iterator[dict[str, bytes]]:
        """Yield every folder, as bytes by name, that a power cut may leave now."""
        for happened in _subsets(self.renames):
            names = dict(self.names)
            for change in happened:
                _rename(names, change)
            for kept in _kept(self.writes):
                files = dict(self.files)
                for change in kept:
                    files[change.inode] = _applied(files[change.inode], change)
                yield {name: files[inode] for name, inode in names.items()}


def _rename(names: dict[str, int], change: Operation) -> None:
    if change.kind == "create":
        names[change.target] = change.inode
    elif change.kind == "unlink":
        names.pop(change.target, None)
    elif change.source in names:
        names[change.target] = names.pop(change.source)


def _applied(content: bytes, change: Operation) -> bytes:
    if change.kind == "resize":
        return content[: change.offset].ljust(change.offset, b"\0")
    content = content.ljust(change.offset, b"\0")
    return content[: change.offset] + change.data + content[change.offset + len(change.data) :]


def _subsets(changes: list[Operation]) -> Iterator[tuple[Operation, ...]]:
    for size in range(len(changes) + 1):
        yield from itertools.combinations(changes, size)


def _kept(writes: list[Operation]) -> Iterator[list[Operation]]:
    """Yield what of the unsynced writes may have reached the disk, whole or in part."""
    fates = [[None, write, *_torn(write)] for write in writes]
    if len(writes) <= EXHAUSTIVE:
        chosen = itertools.product(*fates)
        yield from ([write for write in fate if write is not None] for fate in chosen)
        return
    generator = random.Random(len(writes))
    yield []
    yield list(writes)
    for lost in range(len(writes)):
        yield writes[:lost] + writes[lost + 1 :]
    for _ in range(SAMPLES):
        yield [write for write in map(generator.choice, fates) if write is not None]


def _torn(write: Operation) -> list[Operation]:
    """Return parts of a write that may be on the disk without the rest: its first and its last sectors."""
    first = SECTOR - write.offset % SECTOR
    cuts = range(first, len(write.data), SECTOR)
    middle = [cuts[len(cuts) // 2]] if cuts else []
    return [
        part
        for cut in middle
        for part in (
            Operation("write", write.inode, write.offset, write.data[:cut]),
            Operation("write", write.inode, write.offset + cut, write.data[cut:]),
        )
    ]
