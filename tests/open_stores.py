"""Score databases that tests open and do not close: a fixture closes them when the test ends."""

from pathlib import Path

from mt.results.store import ScoreStore

_OPENED: list[ScoreStore] = []


def open_store(path: Path) -> ScoreStore:
    """Return the store at `path`, which is closed when the test ends: Python 3.13 warns of one that is never closed."""
    _OPENED.append(ScoreStore(path))
    return _OPENED[-1]


def close_stores() -> None:
    while _OPENED:
        _OPENED.pop().close()
