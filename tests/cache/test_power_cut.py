"""A power cut at any moment: a recorded trace of writes and syncs, replayed with every legal loss of unsynced ones."""

from __future__ import annotations

import contextlib
import math
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from mt.cache import FeatureWriter, open_features
from mt.cache.feature_file import format, write
from mt.system import files
from tests.cache import samples
from tests.cache.disk import Disk
from tests.cache.operations import Operation, Recorder

OTHER = samples.manifest(compute={"device": "cuda", "batch_size": 4, "threads": 2})


def fresh(path: Path) -> None:
    path.parent.mkdir()


def begun(path: Path) -> None:
    path.parent.mkdir()
    samples.write_some(path, [0])


def begun_and_damaged(path: Path) -> None:
    """Two blocks are there, and one of them is not what its checksum says."""
    path.parent.mkdir()
    partial = samples.write_some(path, [0, 1])
    with partial.open("r+b") as file:
        file.seek(_layout_of(partial).embeddings + 7)
        file.write(b"\xff")


def finished(path: Path) -> None:
    path.parent.mkdir()
    samples.write(path)


def allow_mixed(path: Path) -> None:
    with samples.open_writer(path, manifest=OTHER, allow_mixed=True) as writer:
        samples.fill(writer)
        writer.finish()


def overwrite(path: Path) -> None:
    samples.write(path, overwrite=True)


SCENARIOS: dict[str, tuple[Callable[[Path], None], Callable[[Path], object], dict[str, object]]] = {
    "new": (fresh, samples.write, {}),
    "resumed": (begun, samples.write, {}),
    "resumed after damage": (begun_and_damaged, samples.write, {}),
    "resumed elsewhere": (begun, allow_mixed, {"manifest": OTHER, "allow_mixed": True}),
    "overwritten": (finished, overwrite, {"overwrite": True}),
}


@pytest.mark.parametrize("sync_every", [0.0, math.inf], ids=["a sync per block", "one sync for all"])
@pytest.mark.parametrize("scenario", SCENARIOS)
def test_a_power_cut_leaves_only_true_checksums_and_resumes_to_the_same_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, scenario: str, sync_every: float
) -> None:
    monkeypatch.setattr(write, "SYNC_EVERY", sync_every)
    prepare, run, options = SCENARIOS[scenario]
    path = tmp_path / "run" / "dino-ffffffffffff.h5"
    prepare(path)
    disk = Disk.of(path.parent)
    trace = _record(monkeypatch, lambda: run(path))
    final = path.read_bytes()
    tried = set()
    monkeypatch.setattr(files, "sync", lambda descriptor: None)  # the replay itself meets no power cut
    monkeypatch.setattr(files, "sync_folder", lambda folder: None)
    for number, folder in enumerate(_folders(disk, trace)):
        state = frozenset((name, content) for name, content in folder.items() if not name.endswith(".lock"))
        if state not in tried:
            tried.add(state)
            after = tmp_path / str(number)
            after.mkdir()
            for name, content in folder.items():
                (after / Path(name).name).write_bytes(content)
            _check(after / path.name, final, options, [0] if prepare is begun_and_damaged else [])
    assert len(tried) >= 20


def _check(path: Path, final: bytes, options: dict[str, object], damaged_before: list[int]) -> None:
    """Nothing unreadable under the final name; checksums are true; another run ends with the same bytes."""
    partial = path.with_suffix(".partial")
    if partial.exists():
        layout = _layout_of(partial)
        descriptor = os.open(partial, os.O_RDONLY)
        format.check_seal(descriptor, layout, partial)
        there = format.present(format.read_digests(descriptor, layout))
        wrong = list(format.wrong_blocks(descriptor, layout, there))
        os.close(descriptor)
        assert wrong == [] or wrong == damaged_before
    if path.exists():
        assert open_features(path, verify=True).n_rows == samples.N
        assert path.read_bytes() == final
    if not path.exists() or "overwrite" in options:
        samples.write(path, **options)
    assert path.read_bytes() == final


def _record(monkeypatch: pytest.MonkeyPatch, run: Callable[[], object]) -> list[Operation]:
    recorder = Recorder()
    with monkeypatch.context() as patch:
        patch.setattr(files, "os", recorder)
        patch.setattr(files, "_FULL_SYNC", None)
        run()
    return recorder.trace


def _folders(disk: Disk, trace: list[Operation]) -> Iterator[dict[str, bytes]]:
    yield from disk.crashes()
    for operation in trace:
        disk.take(operation)
        yield from disk.crashes()


def _layout_of(path: Path) -> format.FileLayout:
    descriptor = os.open(path, os.O_RDONLY)
    with contextlib.ExitStack() as stack:
        stack.callback(os.close, descriptor)
        return format.read_layout(descriptor, path)


def test_the_replay_notices_a_checksum_written_before_its_rows_are_on_the_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The replay itself is tested: without the sync between rows and checksum it finds an untrue checksum."""
    path = tmp_path / "run" / "dino-ffffffffffff.h5"
    path.parent.mkdir()
    sync = FeatureWriter._sync

    def unsynced(writer: FeatureWriter) -> None:
        with monkeypatch.context() as patch:
            patch.setattr(files, "sync", lambda descriptor: None)
            sync(writer)

    monkeypatch.setattr(FeatureWriter, "_sync", unsynced)
    disk = Disk.of(path.parent)
    trace = _record(monkeypatch, lambda: samples.write(path))
    untrue = 0
    for number, folder in enumerate(_folders(disk, trace)):
        partial = tmp_path / f"{number}.partial"
        for name, content in folder.items():
            if name.endswith(".partial"):
                partial.write_bytes(content)
                layout = _layout_of(partial)
                descriptor = os.open(partial, os.O_RDONLY)
                there = format.present(format.read_digests(descriptor, layout))
                untrue += bool(list(format.wrong_blocks(descriptor, layout, there)))
                os.close(descriptor)
    assert untrue > 0
