"""Write the sample file again and again, killed with SIGKILL before its 1st, 2nd, 3rd ... change of the disk.

    python -m tests.cache.kill_driver FOLDER whole|torn SYNC_EVERY

Each try is a process of its own (forked, since importing numpy 150 times would take minutes) in `FOLDER/<k>`.
Stops at the first try that ends by itself, and prints how many were killed.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import h5py  # noqa: F401  (imported once, before forking)

from mt.cache.feature_file import write
from mt.system import files
from tests.cache import samples
from tests.cache.operations import Killer


def main(folder: Path, mode: str) -> None:
    k = 1
    while _killed(folder / str(k) / "moles" / "dino-ffffffffffff.h5", k, torn=mode == "torn"):
        k += 1
    print(k - 1)


def _killed(path: Path, k: int, *, torn: bool) -> bool:
    """Run one try; return whether it was killed."""
    path.parent.parent.mkdir()
    child = os.fork()
    if child == 0:
        vars(files)["os"] = Killer(k, torn=torn)
        samples.write(path)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL:
        return True
    if status != 0:
        raise SystemExit(f"try {k} failed with {status}")
    return False


if __name__ == "__main__":
    vars(write)["SYNC_EVERY"] = float(sys.argv[3])
    main(Path(sys.argv[1]), sys.argv[2])
