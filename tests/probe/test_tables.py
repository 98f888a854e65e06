"""Tables on the screen."""

from __future__ import annotations

import pytest

from mt.terminal.tables import letters


@pytest.mark.parametrize(
    ("number", "letter"), [(0, "a"), (25, "z"), (26, "aa"), (27, "ab"), (51, "az"), (52, "ba"), (702, "aaa")]
)
def test_footnote_letters_go_on_after_z(number: int, letter: str) -> None:
    assert letters(number) == letter


def test_footnote_letters_are_distinct_words_of_letters() -> None:
    found = [letters(number) for number in range(1000)]
    assert len(set(found)) == 1000
    assert all(letter.isalpha() for letter in found)
