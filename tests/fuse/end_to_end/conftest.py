"""One small cache that all tests of end-to-end training share."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.fuse.end_to_end.small import make_cache


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_cache(tmp_path_factory.mktemp("end-to-end"))
