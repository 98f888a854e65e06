"""A full disk, a file size limit and a read-only folder end in one clear line; nothing is lost or left unfinished."""

from __future__ import annotations

import errno
import math
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from mt.cache import FeatureWriter, is_complete, open_features
from mt.cache.feature_file import write
from mt.errors import CacheError, NoSpaceError
from mt.system import files
from tests.cache import samples

DIM = 2048
WIDE = 400  # rows: 3.3 MB of embeddings


def mount(folder: Path, options: str) -> None:
    if os.geteuid() != 0 or sys.platform != "linux":
        pytest.skip("mounting a small tmpfs needs root, on Linux")
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)], capture_output=True, text=True, check=False
    )
    if done.returncode:
        pytest.skip(f"no tmpfs can be mounted here: {done.stderr.strip()}")


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 8 MB."""
    folder = tmp_path / "small"
    folder.mkdir()
    mount(folder, "size=8m")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def open_wide(path: Path, rows: int = WIDE) -> FeatureWriter:
    return samples.open_writer(path, rows=samples.rows(rows), dim=DIM, block_rows=64)


def fill(writer: FeatureWriter) -> Path:
    import numpy as np

    values = samples.embeddings(writer.n_rows, DIM)
    for block in list(writer.missing):
        part = values[block * 64 : (block + 1) * 64]
        writer.write_block(block, part, np.ones(len(part), "u1"))
    return writer.finish()


def file_names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.rglob("*") if path.is_file() and path.suffix != ".lock")


def test_a_full_disk_shows_before_the_first_row(small_disk: Path) -> None:
    first, second, third = (small_disk / "moles" / f"{name}-0.h5" for name in "abc")
    with open_wide(first) as writer:
        fill(writer)
    with open_wide(second) as writer:  # reserved, not filled
        with pytest.raises(
            NoSpaceError, match=r"^c-0\.h5 needs 3\.\d MB and .* has [\d.]+ MB free\. Free some space .*again\.$"
        ):
            open_wide(third)
        assert file_names(small_disk) == ["a-0.h5", "b-0.partial"]
        writer.discard()  # what a run does with its other models' files
    assert file_names(small_disk) == ["a-0.h5"]
    assert open_features(first, verify=True).n_rows == WIDE
    first.unlink()
    with open_wide(third) as writer:
        fill(writer)
    assert is_complete(third)


def test_reserved_space_is_there_when_the_disk_fills_up_later(small_disk: Path) -> None:
    path = small_disk / "moles" / "a-0.h5"
    with open_wide(path) as writer:
        with pytest.raises(OSError, match="No space"):
            (small_disk / "other").write_bytes(bytes(16 << 20))
        fill(writer)
    assert open_features(path, verify=True).n_ok == WIDE


LIMITED = """
import resource, sys
from pathlib import Path
from mt.errors import NoSpaceError
from tests.cache.test_full_disk import open_wide
resource.setrlimit(resource.RLIMIT_FSIZE, (2 << 20, resource.RLIM_INFINITY))
try:
    open_wide(Path(sys.argv[1]))
except NoSpaceError as error:
    print(error)
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
with open_wide(Path(sys.argv[1])) as writer:
    print(writer.created)
"""


def test_a_file_size_limit_is_named(path: Path) -> None:
    ran = subprocess.run(
        [sys.executable, "-c", LIMITED, str(path)],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    message, created = ran.stdout.splitlines()
    assert message.startswith("dino-ffffffffffff.h5 needs 3.")
    assert "a file may hold 2.1 MB here (ulimit -f)" in message
    assert created == "True"


@pytest.mark.parametrize("operation", ["write", "sync"])
def test_space_that_runs_out_in_the_middle_keeps_the_finished_blocks(
    path: Path, reference: bytes, monkeypatch: pytest.MonkeyPatch, operation: str
) -> None:
    """Copy-on-write file systems do not keep what they reserved."""
    monkeypatch.setattr(write, "SYNC_EVERY", 0.0)
    with samples.open_writer(path) as writer:
        samples.fill(writer, [0])
        monkeypatch.setattr(files, operation, _full)
        with pytest.raises(NoSpaceError, match="run the same command again"):
            samples.fill(writer, [1])
        monkeypatch.undo()
    with samples.open_writer(path) as writer:
        assert writer.missing == [1, 2]
        samples.fill(writer)
        writer.finish()
    assert path.read_bytes() == reference


@pytest.mark.parametrize("ends", [FeatureWriter.finish, FeatureWriter.close])
def test_blocks_whose_shared_sync_fails_are_missing_whatever_a_later_sync_says(
    path: Path, reference: bytes, monkeypatch: pytest.MonkeyPatch, ends: Callable[[FeatureWriter], object]
) -> None:
    """A system may report a failed write once, drop the rows, and let the next sync succeed."""
    monkeypatch.setattr(write, "SYNC_EVERY", math.inf)
    with samples.open_writer(path) as writer:
        samples.fill(writer)  # the first block is synced, the others wait
        with monkeypatch.context() as patch:
            patch.setattr(files, "sync", _full)
            with pytest.raises(NoSpaceError, match="run the same command again"):
                ends(writer)
        assert writer.missing == [1, 2]
    with samples.open_writer(path) as writer:  # the lock is free
        assert writer.missing == [1, 2]
        samples.fill(writer)
        writer.finish()
    assert path.read_bytes() == reference


def _full(*_: object) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_hdf5_running_out_of_space_leaves_nothing(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "write", _full)
    with pytest.raises(NoSpaceError):
        samples.open_writer(path)
    assert file_names(path.parent) == []


class TestWithoutFallocate:
    """macOS has no posix_fallocate, and some file systems refuse it."""

    @pytest.fixture(params=["missing", "refused"])
    def _no_fallocate(self, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
        if request.param == "missing":
            monkeypatch.delattr(os, "posix_fallocate", raising=False)
        else:
            refuse = OSError(errno.EOPNOTSUPP, "not supported")
            monkeypatch.setattr(os, "posix_fallocate", _raiser(refuse), raising=False)

    @pytest.mark.usefixtures("_no_fallocate")
    def test_the_bytes_are_the_same(self, path: Path, reference: bytes) -> None:
        assert samples.write(path).read_bytes() == reference

    @pytest.mark.usefixtures("_no_fallocate")
    def test_free_space_is_compared(self, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        import shutil
        from types import SimpleNamespace

        monkeypatch.setattr(shutil, "disk_usage", lambda folder: SimpleNamespace(free=1000))
        with pytest.raises(NoSpaceError, match=r"has 1\.0 kB free"):
            samples.open_writer(path)
        assert file_names(path.parent) == []


def _raiser(error: Exception) -> object:
    def raising(*_: object) -> None:
        raise error

    return raising


@pytest.fixture
def read_only(tmp_path: Path) -> Iterator[Path]:
    """A cache folder with a complete file, on a disk that is then made read-only."""
    folder = tmp_path / "shared"
    folder.mkdir()
    if os.geteuid() == 0:
        mount(folder, "size=2m")
        samples.write(folder / "moles" / "train" / "dino-ffffffffffff.h5")
        subprocess.run(["mount", "-o", "remount,ro", str(folder)], check=True)
        yield folder
        subprocess.run(["umount", "--lazy", str(folder)], check=True)
    else:
        samples.write(folder / "moles" / "train" / "dino-ffffffffffff.h5")
        for one in (folder, *folder.rglob("*")):
            one.chmod(0o555 if one.is_dir() else 0o444)
        yield folder
        for one in (folder, *folder.rglob("*")):
            one.chmod(0o755)


def test_a_read_only_folder_can_be_read_and_says_that_it_cannot_be_written(read_only: Path) -> None:
    path = read_only / "moles" / "train" / "dino-ffffffffffff.h5"
    assert is_complete(path)
    assert open_features(path, verify=True).n_rows == samples.N
    for target in (path, path.with_name("swav-0.h5"), read_only / "new" / "train" / "swav-0.h5"):
        with pytest.raises(CacheError, match=r"^Cannot write in .*choose another --cache-dir"):
            samples.open_writer(target, overwrite=True)
