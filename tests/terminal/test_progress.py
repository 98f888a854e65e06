"""Progress where no person watches: a line every half a minute."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from mt.terminal import progress


def ticking(*seconds: float) -> Iterator[float]:
    yield from seconds


def test_off_a_terminal_a_line_is_printed_every_half_a_minute(capsys: pytest.CaptureFixture[str]) -> None:
    clock = ticking(0, 20, 40, 60, 80, 100)
    with progress.bar("pcam", 1000, clock=lambda: next(clock)) as advance:
        for _ in range(5):
            advance(100)
    assert capsys.readouterr().err.splitlines() == [
        "pcam: 200 of 1,000 images, 5.0/s, 3 min left",
        "pcam: 400 of 1,000 images, 5.0/s, 2 min left",
    ]


def test_what_is_quick_prints_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    clock = ticking(0, 5, 29)
    with progress.bar("pcam", 2, clock=lambda: next(clock)) as advance:
        advance(1)
        advance(1)
    assert capsys.readouterr().err == ""
