"""Where things lie in a feature file, and the hashes over them: plain reads, no HDF5, no numpy.

docs/cache-format.md is the description for people; `FileLayout` is the same for the machine.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import struct
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from typing import TYPE_CHECKING

from mt.cache.names import JSON
from mt.errors import CacheError, DamagedError, NotAFeatureFileError
from mt.system import files
from mt.system.device import cores

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

MAGIC = b"\x89MTF\r\n\x1a\n"
VERSION = 2
UNLABELLED = 3  # the version of files in which a row lacks its one label, which readers of version 2 would misread
READ = (1, VERSION, UNLABELLED)  # versions that this mt reads; 1 has no content hashes
USER_BLOCK = 512
FINAL = ".h5"  # the suffix of complete files
SHARD = ".shard"  # and of complete parts of one
DIGEST = 32  # bytes of a sha256
_OWN_DIGEST_AT = USER_BLOCK - DIGEST
_FIELDS = struct.Struct("<8s2I10Q32s32s")
_DTYPES = {1: ("float32", 4), 2: ("float16", 2)}
_DTYPE_CODES = {name: code for code, (name, _) in _DTYPES.items()}
_CHUNK = 1 << 18  # bytes read at a time
_HDF5_SIGNATURE = b"\x89HDF\r\n\x1a\n"


class Status(IntEnum):
    """The state of a row, one byte each.  The numbers are part of the file format and never change meaning."""

    MISSING = 0  # not computed yet
    OK = 1
    UNREADABLE = 2  # the image file exists but cannot be decoded
    EMPTY = 3  # a file of zero bytes
    TRUNCATED = 4  # the image file ends early
    TOO_LARGE = 5  # more pixels than a decoder should be trusted with
    ABSENT = 6  # the dataset lists the image, the file is not there


@dataclass(frozen=True)
class FileLayout:
    """The fields of the user block: sizes in rows and bytes, offsets from the start of the file."""

    file_size: int
    n_rows: int
    dim: int
    dtype: str
    block_rows: int
    embeddings: int
    status: int
    blocks: int
    manifest: int
    manifest_size: int
    manifest_sha256: bytes = bytes(DIGEST)
    seal: bytes = bytes(DIGEST)
    version: int = VERSION

    @property
    def row_bytes(self) -> int:
        return self.dim * _DTYPES[_DTYPE_CODES[self.dtype]][1]

    @property
    def n_blocks(self) -> int:
        return -(-self.n_rows // self.block_rows)

    def rows(self, block: int) -> tuple[int, int]:
        """Return the first row of a block and the one after its last."""
        start = block * self.block_rows
        return start, min(start + self.block_rows, self.n_rows)

    def pack(self) -> bytes:
        """Return the user block: the fields, zeros, and the sha256 of all that as its last 32 bytes."""
        fields = _FIELDS.pack(
            MAGIC,
            self.version,
            _DTYPE_CODES[self.dtype],
            self.file_size,
            self.n_rows,
            self.dim,
            self.block_rows,
            self.embeddings,
            self.status,
            self.blocks,
            self.manifest,
            self.manifest_size,
            0,
            self.manifest_sha256,
            self.seal,
        ).ljust(_OWN_DIGEST_AT, b"\0")
        return fields + hashlib.sha256(fields).digest()

    def mutable(self) -> list[tuple[int, int]]:
        """Return the (start, stop) byte ranges that change after creation, in the order of the file."""
        return sorted(
            [
                (self.embeddings, self.embeddings + self.n_rows * self.row_bytes),
                (self.status, self.status + self.n_rows),
                (self.blocks, self.blocks + self.n_blocks * DIGEST),
            ]
        )

    def sealed(self) -> list[tuple[int, int]]:
        """Return the byte ranges that the seal covers: all but the user block and what is mutable."""
        edges = [USER_BLOCK, *(edge for span in self.mutable() for edge in span), self.file_size]
        return [(start, stop) for start, stop in zip(edges[::2], edges[1::2], strict=True) if stop > start]


def read_layout(descriptor: int, path: Path) -> FileLayout:
    """Read and check the user block.

    Raises NotAFeatureFileError for other files and newer versions, and DamagedError where the block contradicts
    its own digest, itself or the size of the file: that is how a truncated file shows.
    """
    block = files.read(descriptor, USER_BLOCK, 0)
    if len(block) < USER_BLOCK or not block.startswith(MAGIC):
        what = "an HDF5 file, but not one of mt's" if block.startswith(_HDF5_SIGNATURE) else "not a feature file"
        raise NotAFeatureFileError(f"{path} is {what} (its first bytes are not {MAGIC!r}). See: mt cache list")
    if hashlib.sha256(block[:_OWN_DIGEST_AT]).digest() != block[_OWN_DIGEST_AT:]:
        raise damaged(path, "its first 512 bytes disagree with their checksum")
    _, version, dtype, *numbers, reserved, manifest_sha256, seal = _FIELDS.unpack_from(block)
    size, rows, dim, block_rows, embeddings, status, blocks, manifest, manifest_size = numbers
    if version not in READ:
        raise NotAFeatureFileError(
            f"{path} has format version {version}; this mt reads up to version {max(READ)}. "
            "Update: pip install --upgrade medical-transfer"
        )
    if dtype not in _DTYPES or reserved or any(block[_FIELDS.size : _OWN_DIGEST_AT]):
        raise damaged(path, "its first 512 bytes hold values that no writer writes")
    layout = FileLayout(
        size,
        rows,
        dim,
        _DTYPES[dtype][0],
        block_rows,
        embeddings,
        status,
        blocks,
        manifest,
        manifest_size,
        manifest_sha256,
        seal,
        version,
    )
    _check(layout, os.fstat(descriptor).st_size, path)
    return layout


def _check(layout: FileLayout, actual: int, path: Path) -> None:
    """Raise unless the file has the size that the block says and every part lies inside it, none on another."""
    if layout.file_size != actual:
        raise damaged(path, f"it holds {actual} bytes and should hold {layout.file_size}")
    if not (layout.n_rows and layout.dim and layout.block_rows):
        raise damaged(path, "its first 512 bytes say that it has no rows")
    manifest = (layout.manifest, layout.manifest + layout.manifest_size)
    end = USER_BLOCK
    for start, stop in sorted([*layout.mutable(), manifest]):
        if start < end or stop > actual:
            raise damaged(path, "its first 512 bytes place its parts outside it or on one another")
        end = stop


def read_manifest(descriptor: int, layout: FileLayout, path: Path) -> dict[str, JSON]:
    """Read the manifest and check it against its own hash, so that it can be trusted without reading the rest."""
    text = files.read(descriptor, layout.manifest_size, layout.manifest)
    if hashlib.sha256(text).digest() != layout.manifest_sha256:
        raise damaged(path, "its manifest disagrees with its checksum")
    manifest: dict[str, JSON] = json.loads(text)
    return manifest


def seal_of(descriptor: int, layout: FileLayout) -> bytes:
    """Return the sha256 of every byte outside the user block, the embeddings, the status and the block digests."""
    hashed = hashlib.sha256()
    for start, stop in layout.sealed():
        for offset in range(start, stop, _CHUNK):
            hashed.update(files.read(descriptor, min(_CHUNK, stop - offset), offset))
    return hashed.digest()


def check_seal(descriptor: int, layout: FileLayout, path: Path) -> None:
    """Raise DamagedError unless all that was written at creation is still what it was."""
    if seal_of(descriptor, layout) != layout.seal:
        raise damaged(path, "its labels, ids, manifest or HDF5 structure disagree with the seal")


def block_digest(block: int, status: ReadableBuffer, embeddings: ReadableBuffer) -> bytes:
    """Return the checksum of one block of rows: of its number, its status bytes and its embeddings' bytes."""
    hashed = hashlib.sha256(struct.pack("<Q", block))
    hashed.update(status)
    hashed.update(embeddings)
    return hashed.digest()


def stored_digest(descriptor: int, layout: FileLayout, block: int) -> bytes:
    """Return the checksum that a block on the disk should have.

    It is read in small parts: memory that is new for every block would cost as much as the hash.
    """
    start, stop = layout.rows(block)
    hashed = hashlib.sha256(struct.pack("<Q", block))
    hashed.update(files.read(descriptor, stop - start, layout.status + start))
    end = layout.embeddings + stop * layout.row_bytes
    for at in range(layout.embeddings + start * layout.row_bytes, end, _CHUNK):
        hashed.update(files.read(descriptor, min(_CHUNK, end - at), at))
    return hashed.digest()


def read_digests(descriptor: int, layout: FileLayout) -> list[bytes]:
    """Return the checksum of every block; zeros where a block is not there yet."""
    table = files.read(descriptor, layout.n_blocks * DIGEST, layout.blocks)
    return [table[at : at + DIGEST] for at in range(0, len(table), DIGEST)]


def present(digests: list[bytes]) -> list[int]:
    """Return the numbers of the blocks that have a checksum."""
    return [block for block, digest in enumerate(digests) if any(digest)]


def count_done(descriptor: int, layout: FileLayout, path: Path) -> int:
    """Return how many blocks have a checksum.

    Raises DamagedError where one of a file under a final name has none: such a file was complete when it got the name.
    """
    done = len(present(read_digests(descriptor, layout)))
    if path.suffix in (FINAL, SHARD) and done < layout.n_blocks:
        raise damaged(path, f"{layout.n_blocks - done} of its {layout.n_blocks} blocks have lost their checksum")
    return done


def count_status(descriptor: int, layout: FileLayout, wanted: Sequence[Status]) -> list[int]:
    """Return the number of rows of each of these states, reading a part of the states at a time."""
    counts = [0] * len(wanted)
    for start in range(0, layout.n_rows, _CHUNK):
        states = files.read(descriptor, min(_CHUNK, layout.n_rows - start), layout.status + start)
        counts = [count + states.count(one) for count, one in zip(counts, wanted, strict=True)]
    return counts


def wrong_blocks(
    descriptor: int, layout: FileLayout, blocks: list[int], advance: Callable[[int], object] = int
) -> Iterator[int]:
    """Yield those of the blocks whose bytes disagree with their checksum, hashing on all processors.

    advance: called with 1 for every block that is checked.
    """
    from concurrent.futures import ThreadPoolExecutor

    digests = read_digests(descriptor, layout)

    def is_wrong(block: int) -> bool:
        try:
            return stored_digest(descriptor, layout, block) != digests[block]
        except OSError:  # a failing disk
            return True

    with ThreadPoolExecutor(cores()) as pool:
        for block, wrong in zip(blocks, pool.map(is_wrong, blocks), strict=True):
            advance(1)
            if wrong:
                yield block


def damaged(path: Path, how: str) -> DamagedError:
    """Return the error for a file whose bytes are not those that were written."""
    return DamagedError(
        f"{path} is damaged: {how}. Make it again with mt featurize --overwrite, or: mt cache remove '{path}'"
    )


def is_shard(path: Path) -> bool:
    """Say whether a path is that of a shard, complete or not: `NAME.3of8.shard`, `NAME.3of8.partial`."""
    return re.search(r"\.\d+of\d+$", path.stem) is not None


def whole_path(path: Path) -> Path:
    """Return the feature file that a shard, complete or not, is a part of."""
    return path.with_name(re.sub(r"\.\d+of\d+$", "", path.stem) + FINAL)


def open_for_reading(path: Path) -> int:
    """Open a file for plain reads.  Raises CacheError, in words, where that fails."""
    if path.is_dir():
        raise NotAFeatureFileError(f"{path} is a folder, not a feature file. See: mt cache list")
    try:
        return files.open_existing(path)
    except OSError as error:
        raise CacheError(f"Cannot read {path}: {error.strerror}. See: mt cache list") from error
