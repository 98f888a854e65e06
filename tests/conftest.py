"""The surroundings of every test, whatever started the tests."""

import os
import signal
from pathlib import Path

import pytest
import torch

from tests import pretend_device
from tests.browser import chromium, look

__all__ = ["chromium", "look"]  # fixtures

# A job in the background, and all it starts, ignores interrupts; processes that tests start are to be interrupted.
signal.signal(signal.SIGINT, signal.default_int_handler)
# Workers are given the width of their starter's terminal; tables are as wide as tests say.
os.environ.pop("COLUMNS", None)


# Before any test: at its first backward pass, autograd makes a queue for each device that there is, once.
PRETEND = pretend_device.install()


@pytest.fixture(autouse=True)
def home(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give each test a home of its own, so that nothing is remembered between tests."""
    place = tmp_path_factory.mktemp("home")
    monkeypatch.setenv("HOME", str(place))
    for name in ("MT_CACHE_DIR", "MT_DATA_DIR", "MT_SCORES", "MT_WEIGHTS_DIR", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    return place


@pytest.fixture(scope="session")
def pretend() -> "torch.device":
    """Return a device that computes on the CPU and refuses tensors of the CPU, as a GPU would."""
    if PRETEND is None:
        pytest.skip("this torch is too old for a device written in Python")
    return PRETEND
