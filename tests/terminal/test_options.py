"""Options that several commands share."""

from __future__ import annotations

import pytest

from mt.errors import InputError
from mt.terminal.options import bytes_of

GB = 1 << 30


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("4", 4 * GB),
        ("4GB", 4 * GB),
        ("4gb", 4 * GB),
        ("4 GiB", 4 * GB),
        ("4G", 4 * GB),
        ("0.5", GB // 2),
        (".5GB", GB // 2),
        ("512MB", 512 << 20),
        ("1TB", 1 << 40),
        (" 2 ", 2 * GB),
    ],
)
def test_an_amount_is_in_gb_unless_it_says_otherwise(text: str, expected: int) -> None:
    assert bytes_of(text, "--memory") == expected


@pytest.mark.parametrize("text", ["", "0", "0MB", "-4", "4KB", "GB", "four", "nan", "1e3", "4GB2"])
def test_what_is_no_amount_is_refused_in_one_line(text: str) -> None:
    with pytest.raises(InputError, match=r"^--gpu-memory takes an amount of memory such as 4, 4GB or 512MB; got '"):
        bytes_of(text, "--gpu-memory")
