"""Fixtures and settings that give every test the same surroundings, however pytest was started."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from tests import pretend_device
from tests.browser import chromium, look
from tests.open_stores import close_stores

__all__ = ["chromium", "look"]  # fixtures

# A job in the background ignores interrupts, and so do its child processes.  Tests interrupt the processes they start.
signal.signal(signal.SIGINT, signal.default_int_handler)
# pytest-xdist passes the width of the terminal to its workers.  Tests set the width of tables themselves.
os.environ.pop("COLUMNS", None)


# Before any test: at its first backward pass, autograd makes a queue for each device that there is, once.
PRETEND = pretend_device.install()


@pytest.fixture(autouse=True)
def home(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give each test its own home folder, so that no test finds files of another."""
    place = tmp_path_factory.mktemp("home")
    monkeypatch.setenv("HOME", str(place))
    for name in ("MT_CACHE_DIR", "MT_DATA_DIR", "MT_SCORES", "MT_WEIGHTS_DIR", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    return place


@pytest.fixture(autouse=True)
def stores() -> Iterator[None]:
    """Close the score databases that a test opens."""
    yield
    close_stores()


@pytest.fixture(scope="session")
def pretend() -> "torch.device":
    """Return a device that computes on the CPU and refuses tensors of the CPU, as a GPU would."""
    if PRETEND is None:
        pytest.skip("this torch is too old for a device written in Python")
    return PRETEND
