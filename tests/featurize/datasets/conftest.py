from __future__ import annotations

from pathlib import Path

import pytest

from mt.cache.content import ContentIndex


@pytest.fixture(autouse=True)
def _own_user_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep the tests out of the folder of whoever runs them."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "user"))
    monkeypatch.delenv("MT_DATA_DIR", raising=False)


@pytest.fixture
def index(tmp_path: Path) -> ContentIndex:
    return ContentIndex(tmp_path / "index.sqlite")


@pytest.fixture
def data(tmp_path: Path) -> Path:
    folder = tmp_path / "data"
    folder.mkdir()
    return folder
