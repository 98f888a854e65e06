"""Blocks that arrive fast share a sync; rows, syncs and checksums still reach the disk in a safe order."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

from mt.cache import FeatureWriter, peek
from mt.cache.feature_file import format, write
from mt.system import files
from tests.cache import samples
from tests.cache.operations import Operation, Recorder


@dataclass
class Clock:
    """Stands in for the writer's `time`."""

    now: float = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(write, "time", clock)
    return clock


@pytest.fixture
def recorder(monkeypatch: pytest.MonkeyPatch) -> Recorder:
    recorder = Recorder()
    monkeypatch.setattr(files, "os", recorder)
    monkeypatch.setattr(files, "_FULL_SYNC", None)
    return recorder


def in_words(path: Path, trace: list[Operation]) -> list[str]:
    """Name each change of the partial file: `rows 0`, `sync`, `checksum 0`; status bytes belong to their rows."""
    descriptor = files.open_existing(path)
    layout = format.read_layout(descriptor, path)
    os.close(descriptor)
    places = {layout.embeddings + block * samples.BLOCK * layout.row_bytes: f"rows {block}" for block in range(3)}
    places |= {layout.blocks + block * format.DIGEST: f"checksum {block}" for block in range(3)}
    named = [places.get(one.offset, "status") if one.kind == "write" else one.kind for one in trace]
    return [name for name in named if name not in ("status", "create")]


@pytest.mark.parametrize("block", range(3))
def test_a_block_that_comes_long_after_the_last_sync_is_synced_alone(
    path: Path, clock: Clock, recorder: Recorder, block: int
) -> None:
    with samples.open_writer(path) as writer:
        for before in range(block):
            samples.fill(writer, [before])
            clock.now += write.SYNC_EVERY
        recorder.trace.clear()
        samples.fill(writer, [block])
        found = in_words(path.with_suffix(".partial"), recorder.trace)
    assert found == [f"rows {block}", "sync", f"checksum {block}"]


def later(writer: FeatureWriter, clock: Clock) -> None:
    clock.now += write.SYNC_EVERY
    samples.fill(writer, [2])


def close(writer: FeatureWriter, clock: Clock) -> None:
    writer.close()


def interrupt(writer: FeatureWriter, clock: Clock) -> None:
    raise KeyboardInterrupt


@pytest.mark.parametrize(
    ("end", "expected"),
    [
        (later, ["rows 2", "sync", "checksum 1", "checksum 2"]),
        (close, ["sync", "checksum 1"]),
        (interrupt, ["sync", "checksum 1"]),
    ],
)
def test_blocks_that_come_fast_wait_for_one_sync_and_then_get_their_checksums(
    path: Path,
    clock: Clock,
    recorder: Recorder,
    end: Callable[[FeatureWriter, Clock], None],
    expected: list[str],
) -> None:
    partial = path.with_suffix(".partial")
    with suppress(KeyboardInterrupt), samples.open_writer(path) as writer:
        samples.fill(writer, [0])
        recorder.trace.clear()
        clock.now += write.SYNC_EVERY / 2
        samples.fill(writer, [1])
        assert in_words(partial, recorder.trace) == ["rows 1"]
        assert peek(partial).n_blocks_done == 1  # a run that is killed now computes block 1 again
        assert writer.missing == [2]
        recorder.trace.clear()
        end(writer, clock)
    assert in_words(partial, recorder.trace) == expected
    assert peek(partial).n_blocks_done == 1 + expected.count("checksum 1") + expected.count("checksum 2")


def test_a_finished_file_has_all_checksums_before_its_name(path: Path, clock: Clock, recorder: Recorder) -> None:
    with samples.open_writer(path) as writer:
        samples.fill(writer)
        recorder.trace.clear()
        writer.finish()
    assert in_words(path, recorder.trace) == [
        *("sync", "checksum 1", "checksum 2"),
        *("sync", "rename", "sync_folder"),
    ]


def test_what_is_discarded_needs_no_sync(path: Path, clock: Clock, recorder: Recorder) -> None:
    with samples.open_writer(path) as writer:
        samples.fill(writer, [0, 1])
        recorder.trace.clear()
        writer.discard()
    assert [one.kind for one in recorder.trace if one.kind != "create"] == ["unlink", "sync_folder"]
