"""Fixtures of the cache's tests."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cache import samples


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Return the path of the sample file, in folders that do not exist yet."""
    return tmp_path / "cache" / "moles" / "train" / "dino-ffffffffffff.h5"


@pytest.fixture
def complete(path: Path) -> Path:
    return samples.write(path)


@pytest.fixture(scope="session")
def reference(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """Return the bytes of the sample file after an uninterrupted run."""
    return samples.write(tmp_path_factory.mktemp("reference") / "dino-ffffffffffff.h5").read_bytes()
