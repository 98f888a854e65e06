"""One writer per feature file: a second one fails or waits, and a dead one's lock blocks nobody."""

from __future__ import annotations

import errno
import fcntl
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from mt.cache import open_features
from mt.errors import CacheError, LockedError
from tests.cache import samples

HOLD = """
import sys
from pathlib import Path
from tests.cache import samples
writer = samples.open_writer(Path(sys.argv[1]))
print(writer.n_rows, flush=True)
sys.stdin.read()
"""


class TestLock:
    def test_a_second_writer_fails_at_once_naming_the_first(self, path: Path) -> None:
        with _holder(path) as other:
            with pytest.raises(LockedError, match=f"is being written by process {other.pid} on "):
                samples.open_writer(path)
            with pytest.raises(LockedError, match=f"process {other.pid}"):
                samples.open_writer(path, wait=0.1)

    @pytest.mark.parametrize("timeout", [0.0, 0.05, -1.0])
    def test_a_second_writer_in_the_same_process_fails_too(self, path: Path, timeout: float) -> None:
        with samples.open_writer(path), pytest.raises(LockedError, match=f"process {os.getpid()} on "):
            samples.open_writer(path, wait=timeout)

    def test_a_second_writer_waits_if_asked(self, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        with _holder(path) as other:

            def let_go(seconds: float) -> None:  # the second was refused, and waits before it asks again
                assert other.stdin is not None
                other.stdin.close()
                other.wait()

            monkeypatch.setattr(time, "sleep", let_go)
            with samples.open_writer(path, wait=60) as writer:
                assert writer.missing == [0, 1, 2]
            assert other.returncode == 0

    def test_a_lock_of_a_killed_process_does_not_block(self, path: Path, reference: bytes) -> None:
        with _holder(path) as other:
            other.kill()
            other.wait()
            assert (path.parent / f"{path.name}.lock").exists()
            samples.write(path)
        assert path.read_bytes() == reference

    def test_a_reader_needs_no_lock(self, complete: Path) -> None:
        with samples.open_writer(complete, overwrite=True):
            assert open_features(complete, verify=True).n_rows == samples.N

    @pytest.mark.parametrize("code", [errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP])
    def test_a_folder_without_locks_is_a_clear_error(
        self, path: Path, monkeypatch: pytest.MonkeyPatch, code: int
    ) -> None:
        def refuse(descriptor: int, operation: int) -> None:
            raise OSError(code, os.strerror(code))

        monkeypatch.setattr(fcntl, "flock", refuse)
        with pytest.raises(CacheError, match=r"cannot be locked .* Choose a --cache-dir"):
            samples.open_writer(path)

    def test_the_lock_is_let_go_when_opening_fails(self, complete: Path) -> None:
        for _ in range(2):
            with pytest.raises(CacheError, match="--overwrite"):
                samples.open_writer(complete, dim=3)
        samples.write(complete, overwrite=True)


def _holder(path: Path) -> subprocess.Popen[bytes]:
    """Start a process that holds the writer of a path until its input ends."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=Path(__file__).parents[2],
    )
    assert process.stdout is not None
    assert process.stdout.readline() == b"11\n"
    return process
