"""One writer per feature file: a lock that the system drops when its holder dies."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import socket
from pathlib import Path
from typing import TYPE_CHECKING

from mt.errors import CacheError, LockedError

if TYPE_CHECKING:
    from filelock import BaseFileLock

_NO_LOCKS = {errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP, errno.EINVAL, errno.EIO}


def lock_path(path: Path) -> Path:
    """Return the lock's file, beside the feature file; it stays there, and means nothing, when the lock is free."""
    return path.with_name(path.name + ".lock")


def acquire(path: Path, timeout: float) -> BaseFileLock:
    """Take the lock of a feature file, waiting up to `timeout` seconds (0: not at all, negative: forever).

    Raises LockedError, naming the holder, CacheError where the folder cannot lock, and OSError where the lock's
    file cannot be created.
    """
    from filelock import FileLock, Timeout

    where = lock_path(path)
    lock = FileLock(where, thread_local=False, fallback_to_soft=False)
    try:
        lock.acquire(timeout=timeout)
    except Timeout:
        raise _locked(path, where) from None
    except (OSError, NotImplementedError) as error:
        if isinstance(error, OSError) and error.errno not in _NO_LOCKS:
            raise
        why = getattr(error, "strerror", None) or error
        raise CacheError(
            f"Files in {where.parent} cannot be locked ({why}), so two runs could overwrite each other. "
            "Choose a --cache-dir on another disk: some network folders have no locks."
        ) from error
    except RuntimeError:  # this very thread holds it, and would wait for itself
        raise _locked(path, where) from None
    _sign(where)
    return lock


def _locked(path: Path, where: Path) -> LockedError:
    return LockedError(
        f"{path.name} is being written by {_holder(where)}. Wait for it to end and run the same command again."
    )


def _sign(where: Path) -> None:
    """Say in the lock's file who holds it: a courtesy, which a full disk may refuse."""
    with contextlib.suppress(OSError):
        where.write_text(json.dumps({"host": socket.gethostname(), "pid": os.getpid()}) + "\n", encoding="utf-8")


def _holder(where: Path) -> str:
    """Return who wrote the lock's file last: the holder, while the lock is held."""
    try:
        holder = json.loads(where.read_text(encoding="utf-8"))
        return f"process {int(holder['pid'])} on {holder['host']}"
    except (OSError, ValueError, KeyError, TypeError):
        return "another process"
