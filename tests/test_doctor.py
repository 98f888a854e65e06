"""`mt doctor` shows what is installed, what is missing, and how to install it."""

from __future__ import annotations

import json
import stat
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from mt import doctor
from mt.datasets.dicom import compressions


def findings(cache: Path) -> dict[str, dict[str, str]]:
    ran = CliRunner().invoke(doctor.doctor, ["--json", "--cache-dir", str(cache)], catch_exceptions=False)
    lines = [json.loads(line) for line in ran.stdout.splitlines()]
    return {line["what"]: line for line in lines}


def test_it_names_what_matters(tmp_path: Path) -> None:
    found = findings(tmp_path / "features")
    assert {"python", "command", "torch", "devices", "cache folder", "weights", "locks", "dicom", "cuml"} <= set(found)
    assert str(tmp_path / "features") in found["cache folder"]["found"]
    assert "GB free" in found["weights"]["found"]
    assert found["locks"]["state"] == "ok"
    assert list(tmp_path.iterdir()) == []


def test_every_complaint_comes_with_help(tmp_path: Path) -> None:
    for finding in findings(tmp_path).values():
        assert finding["state"] == "ok" or finding["help"], finding


def test_another_mt_in_the_path_is_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tape = tmp_path / "mt"
    tape.write_text("#!/bin/sh\n")
    tape.chmod(tape.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", str(tmp_path))
    found = doctor._command()
    assert found.state == "note"
    assert str(tape) in found.found
    assert "medical-transfer" in found.help


def test_a_folder_without_locks_stops_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: Any, *args: Any, **kwargs: Any) -> None:
        raise OSError("No locks available")

    monkeypatch.setattr("filelock.FileLock.acquire", refuse)
    ran = CliRunner().invoke(doctor.doctor, ["--cache-dir", str(tmp_path)])
    assert ran.exit_code == 1
    assert "bad  locks: do not work in" in ran.stdout


def test_what_dicom_decodes_is_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    found = doctor._dicom()
    assert found.state == "ok"
    assert "JPEG-LS Lossless" in found.found
    monkeypatch.setattr(compressions.EncodedRamp, "decodes", lambda sample: sample.name != "RLE")
    found = doctor._dicom()
    assert (found.state, found.help) == ("note", "To have all: pip install 'medical-transfer[dicom]'")
    assert found.found.endswith("; not RLE")
    monkeypatch.setitem(sys.modules, "pydicom", None)
    assert doctor._dicom().found == "pydicom is not installed (DICOM images)"


def test_a_missing_extra_says_how_to_get_it() -> None:
    found = doctor._extra("nothing_of_the_kind", "a use", "pip install it")
    assert (found.state, found.help) == ("note", "To have it: pip install it")


def test_colour_is_left_out_where_nobody_sees_it(tmp_path: Path) -> None:
    assert "\x1b[" not in CliRunner().invoke(doctor.doctor, ["--cache-dir", str(tmp_path)]).stdout


@pytest.mark.parametrize(
    ("engine", "said"),
    [("ray:127.0.0.1:1", "No Ray cluster answers at 127.0.0.1:1"), ("ray:nowhere", "names no address")],
)
def test_a_cluster_that_does_not_answer_is_bad(tmp_path: Path, engine: str, said: str) -> None:
    pytest.importorskip("ray", reason="Ray is not installed")
    ran = CliRunner().invoke(doctor.doctor, ["--cache-dir", str(tmp_path), "--engine", engine])
    assert ran.exit_code == 1
    assert said in " ".join(ran.stdout.split())
