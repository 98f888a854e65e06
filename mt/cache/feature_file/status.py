"""What is known of each row of a feature file: one byte a row."""

from __future__ import annotations

from enum import IntEnum


class Status(IntEnum):
    """The state of a row.  The numbers are part of the file format and never change meaning."""

    MISSING = 0  # not computed yet
    OK = 1
    UNREADABLE = 2  # the image file exists but cannot be decoded
    EMPTY = 3  # a file of zero bytes
    TRUNCATED = 4  # the image file ends early
    TOO_LARGE = 5  # more pixels than a decoder should be trusted with
    ABSENT = 6  # the dataset lists the image, the file is not there
