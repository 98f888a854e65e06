"""`mt featurize --embedding`: one pass over the images, one feature file per rule."""

from __future__ import annotations

import json
from pathlib import Path

from click.testing import CliRunner

from mt.cli import group

VIT = "timm:test_vit"


def test_one_pass_makes_a_file_per_rule(photos: Path, tmp_path: Path) -> None:
    words = ["featurize", "--model", VIT, "--dataset", f"folder:{photos}", "--split", "test", "--weights", "random"]
    words += ["--image-size", "32", "--embedding", "cls", "--embedding", "cls+mean", "--cache-dir", str(tmp_path / "c")]
    ran = CliRunner().invoke(group, [*words, "--json"], catch_exceptions=False)
    assert ran.exit_code == 0
    assert [json.loads(line)["model"] for line in ran.stdout.splitlines()] == [f"{VIT}:cls", f"{VIT}:cls+mean"]
