"""Shell completion offers the right words; the tests ask for them as a shell does."""

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
        ("mt probe --by s", {"sex", "site"}),
        ("mt probe --dataset toy --by a", {"age"}),
        ("mt probe --dataset other --by a", set()),
        ("mt featurize --dataset table:cases.csv --label-column G", {"Grade"}),
        ("mt featurize --dataset table:cases.csv --image-column F", {"File"}),
        ("mt featurize --dataset table:cases.csv --group-column n", {"none", "nurse"}),
        ("mt datasets check table:cases.csv --group-column P", {"Patient"}),
        ("mt featurize --dataset table:absent.csv --label-column G", set()),
        ("mt featurize --column mod", {"modality"}),
    ],
)
def test_a_shell_completes_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, typed: str, expected: set[str]
) -> None:
    columns = {"test": {"columns": {"sex": "", "site": "", "age": ""}}}
    write_pair(tmp_path, inputs={"dataset": {"splits": columns}})
    (tmp_path / "cases.csv").write_text("File;Grade;Patient;nurse\na.png;1;p1;n1\n")
    monkeypatch.chdir(tmp_path)
    words = {"COMP_WORDS": typed, "COMP_CWORD": str(typed.count(" ")), "_MT_COMPLETE": "bash_complete"}
    for name, value in {**words, "MT_CACHE_DIR": str(tmp_path)}.items():
        monkeypatch.setenv(name, value)
    result = CliRunner().invoke(group, [], prog_name="mt", complete_var="_MT_COMPLETE")
    found = {line.removeprefix("plain,") for line in result.output.split()}
    assert (expected <= found) if expected else not found
