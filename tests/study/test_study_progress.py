"""A study has one progress: a bar in a terminal, lines elsewhere; the output of its steps is kept."""

from __future__ import annotations

import io
import sys

import pytest

from mt.study.progress import Overall
from mt.terminal import progress


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_the_bars_of_a_step_move_the_bar_of_the_study(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", Terminal())
    monkeypatch.setenv("TERM", "xterm")
    shown = Overall(2, 10)
    with shown.watched():
        assert shown._bar is not None
        (task,) = shown._bar.tasks
        with shown.running("featurize pcam", 4):
            with progress.bar("hashing", 50, unit="files") as advance:
                advance(25)
                assert (task.description, task.completed) == ("featurize pcam: hashing 25/50 files", 2)
            with progress.bar("pcam", 1000) as advance:
                advance(100)
                assert (task.description, task.completed) == ("featurize pcam: pcam 100/1,000 images", 2)
                advance(650)
                assert task.completed == 3
        assert task.completed == 4
        with shown.running("probe pcam", 6), progress.bar("probing", 6, unit="fits") as advance:
            advance(1)
            assert (task.description, task.completed) == ("probe pcam: probing 1/6 fits", 5)


@pytest.mark.parametrize("screen", [Terminal(), io.StringIO()], ids=["terminal", "log"])
def test_steps_and_their_notes_are_shown(screen: io.StringIO, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", screen)
    monkeypatch.setenv("TERM", "xterm")
    shown = Overall(2, 5)
    with shown.watched():
        for what, work in (("featurize pcam", 2), ("probe pcam", 3)):
            with shown.running(what, work), progress.bar("inner", 10):
                progress.note(f"a note of [{what}]")
    said = screen.getvalue()
    for what in ("featurize pcam", "probe pcam"):
        assert what in said
        assert f"a note of [{what}]" in said
    assert "inner" not in said
    assert ("done, running" in said) == screen.isatty()
    assert sys.stderr is screen
