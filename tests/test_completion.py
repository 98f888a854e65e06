"""What a shell completes, asked as a shell asks."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from mt.cli import group
from tests.probe.features import write_pair


@pytest.mark.parametrize(
    ("typed", "expected"),
    [
        ("mt probe --model dino", {"dino"}),
        ("mt featurize --dataset pc", {"pcam"}),
        ("mt featurize --dataset fo", {"folder:"}),
        ("mt probe --dataset to", {"toy"}),
        ("mt probe --metric roc", {"roc_auc"}),
        ("mt probe --protocol cl", {"clip"}),
        ("mt cache list --model sw", {"swav"}),
    ],
)
def test_a_shell_completes_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, typed: str, expected: set[str]
) -> None:
    write_pair(tmp_path)
    words = {"COMP_WORDS": typed, "COMP_CWORD": str(typed.count(" ")), "_MT_COMPLETE": "bash_complete"}
    for name, value in {**words, "MT_CACHE_DIR": str(tmp_path)}.items():
        monkeypatch.setenv(name, value)
    result = CliRunner().invoke(group, [], prog_name="mt", complete_var="_MT_COMPLETE")
    assert expected <= {line.removeprefix("plain,") for line in result.output.split()}
