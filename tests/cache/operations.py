"""Stand-ins for `os` in `mt.system.files`: one kills the process before an operation, one records them all."""

from __future__ import annotations

import os
import signal
import stat
from dataclasses import dataclass, field
from typing import Any

CHANGES = ("open", "mkdir", "posix_fallocate", "ftruncate", "pwrite", "fdatasync", "fsync", "rename", "unlink")


class Killer:
    """`os`, until the k-th operation that changes a file: the process dies before it, or half-way through a write."""

    def __init__(self, k: int, *, torn: bool) -> None:
        self.left = k
        self.torn = torn

    def __getattr__(self, name: str) -> Any:
        real = getattr(os, name)
        if name not in CHANGES:
            return real

        def operation(*arguments: Any) -> Any:
            self.left -= 1
            if self.left == 0:
                if self.torn and name == "pwrite":
                    descriptor, data, offset = arguments
                    os.pwrite(descriptor, data[: len(data) // 2], offset)
                os.kill(os.getpid(), signal.SIGKILL)
            return real(*arguments)

        return operation


@dataclass(frozen=True)
class Operation:
    """One change: of a file's bytes (by inode) or of a name."""

    kind: str  # create, write, resize, sync, rename, unlink, sync_folder
    inode: int = 0
    offset: int = 0
    data: bytes = b""
    source: str = ""
    target: str = ""


@dataclass
class Recorder:
    """`os`, noting every change."""

    trace: list[Operation] = field(default_factory=list)

    def __getattr__(self, name: str) -> Any:
        return getattr(os, name)

    def open(self, path: Any, flags: int, *mode: int) -> int:
        descriptor = os.open(path, flags, *mode)
        if flags & os.O_CREAT:
            self.trace.append(Operation("create", inode=os.fstat(descriptor).st_ino, target=str(path)))
        return descriptor

    def posix_fallocate(self, descriptor: int, offset: int, size: int) -> None:
        os.posix_fallocate(descriptor, offset, size)
        self._note("resize", descriptor, offset=os.fstat(descriptor).st_size)

    def ftruncate(self, descriptor: int, size: int) -> None:
        os.ftruncate(descriptor, size)
        self._note("resize", descriptor, offset=size)

    def pwrite(self, descriptor: int, data: Any, offset: int) -> int:
        written = os.pwrite(descriptor, data, offset)
        self._note("write", descriptor, offset=offset, data=bytes(data[:written]))
        return written

    def fdatasync(self, descriptor: int) -> None:
        os.fdatasync(descriptor)
        self._note("sync", descriptor)

    def fsync(self, descriptor: int) -> None:
        os.fsync(descriptor)
        self._note("sync_folder" if stat.S_ISDIR(os.fstat(descriptor).st_mode) else "sync", descriptor)

    def rename(self, source: Any, target: Any) -> None:
        os.rename(source, target)
        self.trace.append(Operation("rename", source=str(source), target=str(target)))

    def unlink(self, path: Any) -> None:
        os.unlink(path)
        self.trace.append(Operation("unlink", target=str(path)))

    def _note(self, kind: str, descriptor: int, *, offset: int = 0, data: bytes = b"") -> None:
        self.trace.append(Operation(kind, os.fstat(descriptor).st_ino, offset, data))
