"""Fingerprints that the first release computed: caches of files whose pixels are the same stay valid."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mt.cache.content import ContentIndex
from mt.datasets import load_dataset
from mt.datasets.decoding.kinds import revised_readers
from tests.datasets import plain_files as plain
from tests.datasets.layouts import write_pcam

RAMP = np.arange(64, dtype=np.uint16).reshape(8, 8)
# Computed by commit 2d57750, the last one before depth and polarity came from the files.
DIGITS = "0248f21655b82c16de1670152268ef019189d95f1ae0318d517505937a8a7c16"
SYNTHETIC = "2d68735fae06594abb9c9f4bd056e406831135b1cc776fe1c6a0a3ed8deb276e"
SOUND = "1596b9f4bde1c6581ead00cd29e9b0348e8edf07449539cafd02471b486ec25a"
GROUPED = "f123b9890929598876af5c1c767fe1303925eef5b41c01e17cdc5c900d552755"
TABLE = "0977115b92b4ec7b69765081102a6c880d22b09fe49b5ae811a76b716ca0295e"
DEEP = "5aca349b87befdb80727e1b3b2ad3a32b1e3f9da38740419bfca4312eeac4b65"


@pytest.mark.parametrize(("name", "fingerprint"), [("digits", DIGITS), ("synthetic@8", SYNTHETIC)])
def test_datasets_without_files(name: str, fingerprint: str, index: ContentIndex) -> None:
    assert load_dataset(name).fingerprint(index) == fingerprint


@pytest.mark.parametrize(
    ("words", "fingerprint"), [({}, SOUND), ({"group_regex": r"(patient\d+)", "seed": 3}, GROUPED)]
)
def test_folders_of_8_bit_files(data: Path, words: Any, fingerprint: str, index: ContentIndex) -> None:
    root = plain.sound_folder(data / "sound")
    assert load_dataset(f"folder:{root}", **words).fingerprint(index) == fingerprint


def test_tables_of_8_bit_files(data: Path, index: ContentIndex) -> None:
    root = plain.sound_folder(data)
    images = sorted(root.rglob("*.*"))
    lines = [f"{p.relative_to(root)},{p.parent.name},{p.name.split('_')[0]},{n}" for n, p in enumerate(images)]
    (root / "t.csv").write_text("\n".join(["image,label,patient,age", *lines]) + "\n")
    assert load_dataset(f"table:{root / 't.csv'}").fingerprint(index) == TABLE


def test_16_bit_files_whose_pixels_are_the_same(data: Path, index: ContentIndex) -> None:
    for number in range(8):
        folder = data / "deep" / f"c{number % 2}"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{number}.tif").write_bytes(plain.tiff(RAMP * (number + 1) * 99, bits=16))
        (folder / f"{number}.png").write_bytes(plain.png(RAMP * (number + 1) * 77, bits=16))
    assert load_dataset(f"folder:{data / 'deep'}").fingerprint(index) == DEEP


def test_packed_files_say_no_more_than_they_did(data: Path, index: ContentIndex) -> None:
    write_pcam(data / "pcam")
    described = load_dataset("pcam", data).describe(index)
    assert set(described) == {"revision", "task", "class_names", "budget_unit", "grouping", "drawn", "splits"}
    assert described["revision"] == 1
    assert set(described["splits"]["train"]["images"]) == {"file"}


@pytest.mark.parametrize(
    ("content", "readers"),
    [
        (plain.tiff(RAMP, bits=16, photometric=0), {"deep tiff": 2}),
        (plain.tiff(RAMP, bits=12), {"deep tiff": 2}),
        (plain.tiff(RAMP, RAMP, bits=16), {"frames": 2}),
        (plain.tiff(RAMP, bits=16), {}),
        (b"P5\n8 8\n4095\n" + RAMP.astype(">u2").tobytes(), {"deep pnm": 2}),
        (b"P5\n8 8\n255\n" + RAMP.astype("u1").tobytes(), {}),
        (plain.png(RAMP, bits=16, before=plain.chunk(b"sBIT", b"\x0c")), {"deep png": 2}),
        (plain.png(RAMP, bits=16), {}),
        (plain.png(RAMP, before=plain.chunk(b"sBIT", b"\x05")), {}),
        (b"\0" * 128 + b"DICM", {"dicom": 2}),
    ],
)
def test_only_readers_whose_pixels_changed_state_a_revision(tmp_path: Path, content: bytes, readers: Any) -> None:
    (tmp_path / "a").write_bytes(content)
    assert revised_readers(tmp_path / "a") == readers
