"""Every single flipped bit, and every lost or added byte, is found before HDF5 is asked to parse the file."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mt.cache import FeatureWriter, is_complete, open_features, verify_file
from mt.cache.feature_file.format import DIGEST, READ, USER_BLOCK, FileLayout, read_layout
from mt.errors import CacheError, DamagedError, NotAFeatureFileError
from tests.cache import samples


@pytest.fixture(scope="module")
def victim(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, bytes, FileLayout]:
    path = samples.write(tmp_path_factory.mktemp("victim") / "dino-ffffffffffff.h5")
    descriptor = os.open(path, os.O_RDONLY)
    layout = read_layout(descriptor, path)
    os.close(descriptor)
    return path, path.read_bytes(), layout


def parts(layout: FileLayout, content: bytes) -> dict[str, tuple[int, int]]:
    """Return the byte ranges from which Hypothesis chooses: the whole file, and each part that means something."""
    labels, ids = content.index(bytes([0] * 8 + [1] + [0] * 7)), content.index("bild-é0".encode())
    names = content.index(b'"class_names"')
    return {
        "anywhere": (0, len(content)),
        "user block": (0, USER_BLOCK),
        "HDF5 superblock": (USER_BLOCK, USER_BLOCK + 48),
        "manifest": (layout.manifest, layout.manifest + layout.manifest_size),
        "class names": (names, names + 40),
        "labels": (labels, labels + 8 * samples.N),
        "ids": (ids, ids + 12 * samples.N),
        "status": (layout.status, layout.status + layout.n_rows),
        "blocks": (layout.blocks, layout.blocks + layout.n_blocks * DIGEST),
        "embeddings": (layout.embeddings, layout.embeddings + layout.n_rows * layout.row_bytes),
    }


def forbidden(*_: Any, **__: Any) -> None:
    raise AssertionError("HDF5 was asked to parse a file with damaged structure")


@settings(deadline=None, max_examples=600)
@given(data=st.data())
def test_every_flipped_bit_is_found(victim: tuple[Path, bytes, FileLayout], data: st.DataObject) -> None:
    path, content, layout = victim
    part = data.draw(st.sampled_from(sorted(parts(layout, content))))
    start, stop = parts(layout, content)[part]
    at, bit = data.draw(st.integers(start, stop - 1)), data.draw(st.integers(0, 7))
    _check_flip(path, content, layout, at, bit)


def test_a_flipped_bit_in_each_byte_outside_the_embeddings_is_found(victim: tuple[Path, bytes, FileLayout]) -> None:
    path, content, layout = victim
    for at in range(0, layout.embeddings, 3):
        _check_flip(path, content, layout, at, at % 8)


def _check_flip(path: Path, content: bytes, layout: FileLayout, at: int, bit: int) -> None:
    flipped = bytearray(content)
    flipped[at] ^= 1 << bit
    _overwrite(path, bytes(flipped))
    inside = [span for span in layout.mutable() if span[0] <= at < span[1]]
    with pytest.MonkeyPatch.context() as patch:
        if not inside:
            patch.setattr(h5py, "File", forbidden)
        assert verify_file(path).problem
        with pytest.raises(CacheError):
            open_features(path, verify=True)


def _overwrite(path: Path, content: bytes) -> None:
    path.unlink(missing_ok=True)  # a new inode: earlier readers have the old one mapped
    path.write_bytes(content)


def test_the_damaged_rows_are_named(complete: Path) -> None:
    layout = _layout(complete)
    content = bytearray(complete.read_bytes())
    content[layout.embeddings + 9 * layout.row_bytes] ^= 1
    _overwrite(complete, bytes(content))
    (damage,) = open_features(complete).verify()
    assert (damage.block, damage.start, damage.stop) == (2, 8, 11)
    assert damage.ids == ("bild-é8.png", "bild-é9.png", "bild-é10.png")
    with pytest.raises(DamagedError, match=r"rows 8 to 10 \(block 2\): bild-é8\.png, bild-é9\.png"):
        open_features(complete, verify=True)


@pytest.mark.parametrize("lost", [1, 511, 512, 4096, 10**6])
def test_truncation_is_found(complete: Path, lost: int) -> None:
    content = complete.read_bytes()
    _overwrite(complete, content[: max(0, len(content) - lost)])
    with pytest.raises((DamagedError, NotAFeatureFileError)):
        open_features(complete)
    assert not is_complete(complete)


def test_appended_bytes_are_found(complete: Path) -> None:
    _overwrite(complete, complete.read_bytes() + b"\0")
    with pytest.raises(DamagedError, match="bytes and should hold"):
        open_features(complete)


def test_checksums_that_are_gone_are_damage_and_no_work_left_to_do(complete: Path) -> None:
    """A lost sector of zeros: under its final name a file was complete, so no run is sent to finish it."""
    layout = _layout(complete)
    content = bytearray(complete.read_bytes())
    content[layout.blocks + DIGEST : layout.blocks + 2 * DIGEST] = bytes(DIGEST)
    _overwrite(complete, bytes(content))
    lost = r"1 of its 3 blocks have lost their checksum\. Make it again with mt featurize --overwrite"
    with pytest.raises(DamagedError, match=lost):
        open_features(complete)
    with pytest.raises(DamagedError, match=lost):
        FeatureWriter.open(complete, samples.rows(), samples.manifest(), dim=samples.DIM, block_rows=samples.BLOCK)
    assert "lost their checksum" in verify_file(complete).problem
    assert not is_complete(complete)


def test_swapped_blocks_are_found(complete: Path) -> None:
    """A block's checksum depends on its number: two blocks that trade places with their checksums are damage."""
    layout = _layout(complete)
    content = bytearray(complete.read_bytes())
    for base, size in ((layout.embeddings, 4 * layout.row_bytes), (layout.status, 4), (layout.blocks, DIGEST)):
        first, second = slice(base, base + size), slice(base + size, base + 2 * size)
        content[first], content[second] = content[second], content[first]
    _overwrite(complete, bytes(content))
    assert [damage.block for damage in open_features(complete).verify()] == [0, 1]


def _layout(path: Path) -> FileLayout:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        return read_layout(descriptor, path)
    finally:
        os.close(descriptor)


@settings(deadline=None, max_examples=200)
@given(numbers=st.lists(st.integers(0, 2**64 - 1) | st.integers(0, 20_000), min_size=9, max_size=9))
def test_a_user_block_that_lies_is_refused_without_reading_outside_the_file(
    victim: tuple[Path, bytes, FileLayout], numbers: list[int]
) -> None:
    path, content, layout = victim
    names = ["file_size", "n_rows", "dim", "block_rows", "embeddings", "status", "blocks", "manifest", "manifest_size"]
    lies: dict[str, Any] = dict(zip(names, numbers, strict=True))
    lying = replace(layout, dtype="float32", **lies)
    _overwrite(path, lying.pack() + content[USER_BLOCK:])
    with pytest.raises(CacheError):
        open_features(path)


@pytest.mark.parametrize(
    ("lie", "message"),
    [
        ({"embeddings": 2**63}, "outside it or on one another"),
        ({"status": 0}, "outside it or on one another"),
        ({"n_rows": 2**40}, "outside it or on one another"),
        ({"dim": 2**64 - 1}, "outside it or on one another"),
        ({"manifest_size": 2**62}, "outside it or on one another"),
        ({"n_rows": 0}, "has no rows"),
        ({"block_rows": 0}, "has no rows"),
        ({"file_size": 7}, "should hold 7"),
    ],
)
def test_each_lie_of_a_user_block_is_told(
    victim: tuple[Path, bytes, FileLayout], lie: dict[str, Any], message: str
) -> None:
    path, content, layout = victim
    _overwrite(path, replace(layout, **lie).pack() + content[USER_BLOCK:])
    with pytest.raises(DamagedError, match=message):
        open_features(path)


class TestOtherFiles:
    def test_an_hdf5_file_of_someone_else(self, tmp_path: Path) -> None:
        with h5py.File(tmp_path / "x.h5", "w") as file:
            file["x"] = [1, 2, 3]
        with pytest.raises(NotAFeatureFileError, match="an HDF5 file, but not one of mt's"):
            open_features(tmp_path / "x.h5")

    @pytest.mark.parametrize("content", [b"", b"hello", bytes(5000)])
    def test_a_file_that_is_no_hdf5(self, tmp_path: Path, content: bytes) -> None:
        (tmp_path / "x.h5").write_bytes(content)
        with pytest.raises(NotAFeatureFileError, match="is not a feature file"):
            open_features(tmp_path / "x.h5")

    def test_a_folder(self, tmp_path: Path) -> None:
        with pytest.raises(CacheError, match="is a folder"):
            open_features(tmp_path)

    def test_a_newer_format_version(self, complete: Path) -> None:
        newer = replace(_layout(complete), version=max(READ) + 1).pack()
        _overwrite(complete, newer + complete.read_bytes()[USER_BLOCK:])
        with pytest.raises(NotAFeatureFileError, match=r"format version 4; this mt reads up to version 3\. Update"):
            open_features(complete)
