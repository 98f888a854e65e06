"""Where `mt` keeps things: one place for every folder and the environment variable that moves it."""

from __future__ import annotations

import os
from pathlib import Path

import platformdirs


def user_dir() -> Path:
    """Return the user's own folder, which holds what must stay writable when a cache is not."""
    return Path(platformdirs.user_cache_dir("mt"))


def cache_dir(given: str | os.PathLike[str] | None = None) -> Path:
    """Return the folder of feature files: as given, else `MT_CACHE_DIR`, else `features` in the user's folder."""
    return Path(given or os.environ.get("MT_CACHE_DIR") or user_dir() / "features").expanduser().absolute()


def data_dir(given: str | os.PathLike[str] | None = None) -> Path:
    """Return the folder that holds a folder a dataset: as given, else `MT_DATA_DIR`, else `./data`."""
    return Path(given or os.environ.get("MT_DATA_DIR") or "data").expanduser().absolute()


def weights_dir() -> Path:
    """Return the folder of downloaded and hand-placed weights: `MT_WEIGHTS_DIR`, else in the user's folder."""
    return Path(os.environ.get("MT_WEIGHTS_DIR") or user_dir() / "weights").expanduser().absolute()


def index_path() -> Path:
    """Return the file that remembers content hashes by (path, size, mtime)."""
    return user_dir() / "index.sqlite"


def scores_path(given: str | os.PathLike[str] | None, cache: Path) -> Path:
    """Return the score database: as given, else `MT_SCORES`, else beside a writable cache, else the user's.

    A cache folder that cannot be written (a shared, read-only one) keeps its features; scores go to the user's.
    """
    chosen = given or os.environ.get("MT_SCORES")
    if chosen:
        return Path(chosen).expanduser().absolute()
    return (cache if os.access(cache, os.W_OK) or not cache.exists() else user_dir()) / "scores.sqlite"
