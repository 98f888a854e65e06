"""The command line as people meet it: a real process, one line per error, exit status 1."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest


def run_mt(*args: str, home: Path, **env: str) -> subprocess.CompletedProcess[str]:
    """Run `mt` in a fresh home and return what it printed."""
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("MT_", "XDG_"))}
    return subprocess.run(
        [sys.executable, "-m", "mt", *args],
        capture_output=True,
        text=True,
        cwd=home,
        env=clean | {"HOME": str(home)} | env,
        check=False,
    )


RUN = ["featurize", "--model", "dino", "--dataset", "digits"]


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (["featurise"], "Did you mean 'featurize'? See: mt --help"),
        (["cache", "list", "--dataset"], "Option '--dataset' requires an argument. See: mt cache list --help"),
        (["featurize"], "--model is missing: expected at least one --model NAME. See: mt models"),
        ([*RUN, "--model", "dinno"], "No backbone 'dinno'. Did you mean 'dino'? See: mt models"),
        ([*RUN, "--dataset", "digitz"], "No dataset 'digitz'. Did you mean 'digits'? See: mt datasets"),
        ([*RUN, "--no-such-option"], "See: mt featurize --help"),
        ([*RUN, "--precision", "int8"], "--precision takes one of"),
        ([*RUN, "--limit", "0"], "--limit takes a number"),
        ([*RUN, "--batch-size", "0"], "--batch-size takes a number"),
        ([*RUN, "--wait", "-3"], "-3.0 is not in the range x>=0. See: mt featurize --help"),
        ([*RUN[:2], "efficientnet-lite0", *RUN[3:], "--device", "warp"], "No device 'warp' here"),
    ],
)
def test_bad_input_is_one_line_and_exit_status_1(args: list[str], says: str, tmp_path: Path) -> None:
    ran = run_mt(*args, home=tmp_path)
    assert ran.returncode == 1
    assert ran.stdout == ""
    assert says in ran.stderr
    assert len(ran.stderr.splitlines()) == 1, ran.stderr


def test_no_command_shows_the_help(tmp_path: Path) -> None:
    ran = run_mt(home=tmp_path)
    assert (ran.returncode, ran.stderr) == (0, "")
    assert "Usage: mt" in ran.stdout


def test_version_and_help(tmp_path: Path) -> None:
    version = run_mt("--version", home=tmp_path).stdout.splitlines()
    assert re.fullmatch(r"mt \d\S+, Python \d\S+, torch \d\S+", version[0])
    assert re.fullmatch(r"extras installed: .*\bdicom\b.*", version[1])
    assert "not installed: gpu (cuml-cu13): pip install 'medical-transfer[gpu]'" in version[2:]
    shown = run_mt("--help", home=tmp_path).stdout
    for command in ("featurize", "probe", "fuse", "models", "datasets", "cache", "demo"):
        assert f"  {command} " in shown


@pytest.mark.parametrize(
    ("typed", "offered"),
    [("mt fea", {"featurize"}), ("mt cache ver", {"verify"}), ("mt probe --see", {"--seed", "--seeds"})],
)
def test_the_shell_completes_commands_and_options(typed: str, offered: set[str], tmp_path: Path) -> None:
    words = {"COMP_WORDS": typed, "COMP_CWORD": str(len(typed.split()) - 1)}
    ran = run_mt(home=tmp_path, _MT_COMPLETE="bash_complete", **words)
    assert {line.partition(",")[2] for line in ran.stdout.splitlines()} == offered
