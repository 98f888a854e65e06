"""Checkpoints: the last good one is kept whatever happens to the newest, and reading runs no code."""

from __future__ import annotations

import json
import os
import pickle
import signal
from pathlib import Path

import pytest
import torch

from mt.errors import InputError, LockedError
from mt.fuse.end_to_end.checkpoint import Checkpoint, Checkpoints
from mt.system import files as disk
from tests.cache.operations import Killer


def _checkpoint(value: float) -> Checkpoint:
    return Checkpoint({"weight": torch.full((3, 4), value), "steps": torch.tensor(7)}, {"place": value, "ids": ["å"]})


def _value(files: Checkpoints) -> float:
    found = files.read()
    assert found is not None
    assert (found.tensors["weight"] == found.facts["place"]).all()
    place: float = found.facts["place"]
    return place


def test_reads_back_what_was_written_and_keeps_two(tmp_path: Path) -> None:
    files = Checkpoints(tmp_path / "run")
    assert files.read() is None
    assert files.last is None
    for value in range(4):
        files.write(_checkpoint(value))
        assert _value(files) == value
    assert len(list((tmp_path / "run").glob("*.safetensors"))) == 2
    files.remove()
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("damage", ["flip", "cut", "gone"])
def test_a_damaged_checkpoint_gives_way_to_the_one_before(
    tmp_path: Path, damage: str, capsys: pytest.CaptureFixture[str]
) -> None:
    files = Checkpoints(tmp_path)
    files.write(_checkpoint(1))
    files.write(_checkpoint(2))
    last = files.last
    assert last is not None
    content = bytearray(last.read_bytes())
    content[-1] ^= 1
    if damage == "gone":
        last.unlink()
    else:
        last.write_bytes(bytes(content) if damage == "flip" else bytes(content[:-9]))
    assert _value(files) == 1
    assert f"{last} is damaged, and not resumed from." in " ".join(capsys.readouterr().err.split())
    assert files.last == tmp_path / "0.safetensors"
    (tmp_path / ".9.safetensors.0123.tmp").write_bytes(b"half")
    files.write(_checkpoint(3))
    assert _value(files) == 3
    assert files.last is not None
    files.last.unlink()
    assert _value(Checkpoints(tmp_path)) == 1, "the good one was kept, not the damaged one"
    assert not list(tmp_path.glob(".*.tmp"))


@pytest.mark.parametrize("torn", [False, True])
def test_killed_before_any_change_of_the_disk_the_last_good_one_is_there(tmp_path: Path, torn: bool) -> None:
    for k in range(1, 60):
        files = Checkpoints(tmp_path / str(k))
        files.write(_checkpoint(1))
        files.write(_checkpoint(2))
        child = os.fork()
        if child == 0:
            vars(disk)["os"] = Killer(k, torn=torn)
            files.write(_checkpoint(3))
            os._exit(0)
        _, status = os.waitpid(child, 0)
        assert _value(files) in (2, 3)
        if not os.WIFSIGNALED(status):
            break
        assert os.WTERMSIG(status) == signal.SIGKILL
        files.write(_checkpoint(4))
        assert _value(files) == 4
    assert k > 8
    assert _value(files) == 3


def test_nothing_is_unpickled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = Checkpoints(tmp_path)
    files.write(_checkpoint(1))

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("unpickled")

    for name in ("Unpickler", "load", "loads"):
        monkeypatch.setattr(pickle, name, refuse)
    monkeypatch.setattr(torch, "load", refuse)
    assert _value(files) == 1


@pytest.mark.parametrize("content", ["{", "[]", json.dumps({"format": "mt-checkpoint", "format_version": 99})])
def test_other_files_are_said_in_one_line(tmp_path: Path, content: str) -> None:
    (tmp_path / "kept.json").write_text(content)
    with pytest.raises(InputError, match=r"Remove .* to begin again"):
        Checkpoints(tmp_path).read()


@pytest.mark.parametrize(
    "kept",
    [
        [{"file": "../1.safetensors", "sha256": "0"}],
        [{"file": "/tmp/1.safetensors", "sha256": "0"}],
        [{"file": 1, "sha256": "0"}],
        [{"sha256": "0"}],
        ["1.safetensors"],
        None,
    ],
    ids=str,
)
def test_a_name_that_leads_out_of_the_folder_is_not_followed(tmp_path: Path, kept: object) -> None:
    files = Checkpoints(tmp_path / "run")
    files.write(_checkpoint(1))
    (tmp_path / "run" / "kept.json").write_text(
        json.dumps({"format": "mt-checkpoint", "format_version": 1, "kept": kept})
    )
    for use in (files.read, lambda: files.last, lambda: files.write(_checkpoint(2))):
        with pytest.raises(InputError, match=r"kept\.json is damaged\. Remove .* to begin again"):
            use()


def test_two_runs_of_one_fit_do_not_share_a_folder(tmp_path: Path) -> None:
    with Checkpoints(tmp_path / "run").alone(), pytest.raises(LockedError), Checkpoints(tmp_path / "run").alone():
        pass


def test_what_a_killed_run_left_is_removed_but_not_under_a_run_in_progress(tmp_path: Path) -> None:
    files = Checkpoints(tmp_path / "run")
    files.remove_left()  # nothing there
    files.write(_checkpoint(1))
    with files.alone():
        Checkpoints(tmp_path / "run").remove_left()
        assert _value(files) == 1
    files.remove_left()
    assert not files.folder.exists()
