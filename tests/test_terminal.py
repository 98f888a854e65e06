"""Output in a terminal: no colour if NO_COLOR is set, and no line wider than the window.

Each command runs in a real pseudo-terminal of a given width.
"""

from __future__ import annotations

import fcntl
import os
import pty
import re
import struct
import subprocess
import sys
import termios
from pathlib import Path

import pytest

from tests.probe.features import write_pair

COLOUR = re.compile(r"\x1b\[[0-9;]*?(3[0-7]|9[0-7]|38|4[0-7])[0-9;]*m")
CONTROL = re.compile(r"\x1b\[[0-9;?]*[a-zA-Z]")
FOR_COPYING = re.compile(r"/\S{30}|pip install ")  # paths and commands are not cut
COMMANDS = {
    "help": ["--help"],
    "models": ["models"],
    "datasets": ["datasets"],
    "cache": ["cache", "list"],
    "probe": ["probe", "--fraction", "0.5", "--seeds", "2", "--protocol", "clip"],
    "fuse": ["fuse", "--method", "concat", "--fraction", "0.5", "--seeds", "2"],
    "featurize": [
        "featurize",
        "--model",
        "timm:test_resnet",
        "--weights",
        "random",
        "--image-size",
        "32",
        "--batch-size",
        "8",
        "--dataset",
        "synthetic@40",
    ],
    "doctor": ["doctor"],
    "error": ["probe", "--model", "dinno"],
}


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home whose cache holds two small models."""
    folder = tmp_path_factory.mktemp("home")
    for model in ("a", "b"):
        write_pair(folder / "features", model=model)
    return folder


def seen(command: str, home: Path, *, width: int, **environment: str) -> str:
    """Run a command in a terminal of that width and return all that it wrote, stdout and stderr."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 50, width, 0, 0))
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("MT_", "XDG_")) and k not in LOUD}
    places = {"HOME": str(home), "MT_CACHE_DIR": str(home / "features"), "TERM": "xterm-256color"}
    started = subprocess.Popen(
        [sys.executable, "-m", "mt", *COMMANDS[command]],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        cwd=home,
        env=clean | places | environment,
    )
    os.close(theirs)
    found = b""
    while chunk := _read(ours):
        found += chunk
    os.close(ours)
    started.wait()
    return found.decode()


LOUD = ("NO_COLOR", "FORCE_COLOR", "COLUMNS", "LINES", "CI", "COLORTERM")


def _read(terminal: int) -> bytes:
    try:
        return os.read(terminal, 65536)
    except OSError:  # Linux says EIO once the other side is closed
        return b""


@pytest.mark.parametrize("command", [command for command in COMMANDS if command != "featurize"])
@pytest.mark.parametrize("width", [60, 120])
def test_no_line_is_wider_than_the_window_and_no_colour_is_unwanted(command: str, home: Path, width: int) -> None:
    text = seen(command, home, width=width, NO_COLOR="1")
    assert not COLOUR.search(text)
    lines = [CONTROL.sub("", line).rstrip() for line in re.split(r"[\r\n]+", text)]
    assert any(lines)
    if command != "error":  # one line, for people who search for it
        assert [line for line in lines if len(line) > width and not FOR_COPYING.search(line)] == []


def test_featurizing_shows_images_rate_and_time_left_and_ends_with_what_was_done(home: Path) -> None:
    text = CONTROL.sub("", seen("featurize", home, width=120, NO_COLOR="1"))
    assert re.search(r"synthetic@40 .*\d+/60 images [\d.]+/s \d:\d\d:\d\d", text)
    for split, rows in (("train", 40), ("test", 20)):
        done = rf"synthetic@40 {split}  timm:test_resnet: {rows} rows, [\d.]+ s, [\d.]+ images/s\s+/\S+\.h5"
        assert re.search(done, text)


@pytest.mark.parametrize("command", ["error", "doctor"])
def test_there_is_colour_where_nothing_speaks_against_it(command: str, home: Path) -> None:
    assert COLOUR.search(seen(command, home, width=100))
