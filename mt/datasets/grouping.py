"""Which rows belong together where only file names show it: `--group-regex`, and groups that cross splits."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import numpy as np

from mt.datasets.base import Split
from mt.datasets.listing import some
from mt.errors import InputError
from mt.types import Texts

NO_GROUPING = "no patient grouping known: the same patient may be in train and test (--group-regex distinguishes them)"


def groups_by_regex(ids: Sequence[str], pattern: str) -> list[str]:
    """Return the group of each id: the pattern's first parenthesis, or else its whole match.

    Raises:
        InputError: not a regular expression, or one that an id does not match, or matches with nothing in the
            parenthesis.
    """
    try:
        compiled = re.compile(pattern)
    except re.error as error:
        raise InputError(f"--group-regex '{pattern}' is not a regular expression: {error}.") from error
    matches = [compiled.search(id_) for id_ in ids]
    unmatched = [id_ for id_, match in zip(ids, matches, strict=True) if match is None]
    if unmatched:
        raise InputError(
            f"--group-regex '{pattern}' does not match {len(unmatched):,} of {len(ids):,} images: {some(unmatched)}. "
            "Expected it to find the patient in every one."
        )
    groups = [(match[1] if compiled.groups else match[0]) or "" for match in matches if match is not None]
    nameless = [id_ for id_, group in zip(ids, groups, strict=True) if not group]
    if nameless:
        raise InputError(
            f"--group-regex '{pattern}' matches {len(nameless):,} of {len(ids):,} images without naming a patient: "
            f"{some(nameless)}. Expected its first parenthesis to hold the patient in every one."
        )
    return groups


def crossing_groups(splits: Mapping[str, Split]) -> dict[str, list[str]]:
    """Return the groups that are in more than one split, and in which."""
    members = {
        name: np.unique(Texts.of(split.groups).encoded) for name, split in splits.items() if split.groups is not None
    }
    found, count = np.unique(np.concatenate([*members.values(), np.empty(0, "S1")]), return_counts=True)
    crossing = Texts(found[count > 1])
    return {group: [name for name, groups in members.items() if group in Texts(groups)] for group in sorted(crossing)}
