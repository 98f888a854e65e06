"""Checkpoints of a training run: written aside, synced, renamed, verified when read; the last two are kept.

FOLDER/<n>.safetensors    network, optimizer; other facts as JSON in its header
FOLDER/kept.json          format, version, and the files with their sha256, oldest first

Reading executes no code.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors.torch import load, save
from torch import Tensor

from mt.cache.feature_file.lock import acquire
from mt.errors import InputError, LockedError
from mt.system import files
from mt.terminal import progress

FORMAT = "mt-checkpoint"
FORMAT_VERSION = 1
KEPT = 2
_NAME = re.compile(r"[0-9]+\.safetensors")


@dataclass(frozen=True)
class Checkpoint:
    """Tensors by name, and everything else as JSON."""

    tensors: Mapping[str, Tensor]
    facts: dict[str, Any]


class Checkpoints:
    """The folder of one run's checkpoints."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._index = folder / "kept.json"
        self._damaged: set[str] = set()  # files that were read and did not match their hash

    @property
    def last(self) -> Path | None:
        """The newest checkpoint that is not known to be damaged, or None."""
        kept = self._kept()
        return self.folder / kept[-1]["file"] if kept else None

    def write(self, checkpoint: Checkpoint) -> None:
        """Write a checkpoint; if the process is killed at any moment, the earlier ones remain."""
        files.make_folder(self.folder)
        tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in checkpoint.tensors.items()}
        content = save(tensors, {"facts": json.dumps(checkpoint.facts)})
        kept = self._kept()
        number = int(Path(kept[-1]["file"]).stem) + 1 if kept else 0
        entry = {"file": f"{number}.safetensors", "sha256": hashlib.sha256(content).hexdigest()}
        _write(self.folder / entry["file"], content)
        self._damaged.discard(entry["file"])
        now = [*kept, entry][-KEPT:]
        facts = {"format": FORMAT, "format_version": FORMAT_VERSION, "kept": now}
        _write(self._index, json.dumps(facts, indent=1).encode())
        for old in (*self.folder.glob("*.safetensors"), *self.folder.glob(".*.tmp")):  # a kill left the latter behind
            if old.name not in {one["file"] for one in now}:
                files.remove(old)

    def read(self) -> Checkpoint | None:
        """Return the newest checkpoint whose bytes match their hash; None if there is none.  Damaged ones are named.

        Raises InputError for checkpoints of another version.
        """
        for entry in reversed(self._kept()):
            file = self.folder / entry["file"]
            content = file.read_bytes() if file.exists() else b""
            if hashlib.sha256(content).hexdigest() == entry["sha256"]:
                return Checkpoint(load(content), json.loads(_header(content)["facts"]))
            self._damaged.add(entry["file"])
            progress.note(f"{file} is damaged, and not resumed from.")
        return None

    @contextlib.contextmanager
    def alone(self) -> Iterator[None]:
        """Lock the folder for other processes.  Raises LockedError, naming the process that has it."""
        try:
            files.make_folder(self.folder.parent)
        except OSError as error:
            raise files.explained(error, self.folder, option="--checkpoints") from error
        lock = acquire(self.folder, timeout=0)
        try:
            yield
        finally:
            lock.release()

    def remove(self) -> None:
        """Remove the folder: the run is done."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def remove_left(self) -> None:
        """Remove the folder of a run that was killed after its fit was stored; a run in progress keeps its folder."""
        if self.folder.is_dir():
            with contextlib.suppress(LockedError), self.alone():
                self.remove()

    def _kept(self) -> list[dict[str, str]]:
        try:
            found = json.loads(self._index.read_text(encoding="utf-8"))
            known = (found["format"], found["format_version"]) == (FORMAT, FORMAT_VERSION)
            kept = _entries(found["kept"]) if known else []
        except FileNotFoundError:
            return []
        except (ValueError, KeyError, TypeError) as error:
            raise InputError(f"{self._index} is damaged. Remove {self.folder} to begin again.") from error
        if not known:
            raise InputError(f"{self._index} is of another version of mt. Remove {self.folder} to begin again.")
        return [entry for entry in kept if entry["file"] not in self._damaged]


def _entries(listed: Sequence[Mapping[str, str]]) -> list[dict[str, str]]:
    """Return the listed files with their hashes.  Raises ValueError for a name that we do not write, as of a path."""
    kept = [{"file": one["file"], "sha256": one["sha256"]} for one in listed]
    for one in kept:
        if not _NAME.fullmatch(one["file"]):
            raise ValueError(one["file"])
    return kept


def _header(content: bytes) -> dict[str, str]:
    """Return the strings in a safetensors file's header: eight bytes of length, then JSON."""
    size = int.from_bytes(content[:8], "little")
    header: dict[str, str] = json.loads(content[8 : 8 + size])["__metadata__"]
    return header


def _write(path: Path, content: bytes) -> None:
    try:
        files.write_whole(path, content)
    except OSError as error:
        raise files.explained(error, path, needed=len(content), option="--checkpoints") from error
