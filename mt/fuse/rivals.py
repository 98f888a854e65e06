"""The table rows that each `--method` adds."""

from __future__ import annotations

from collections.abc import Sequence

from mt.errors import InputError, unknown

# DVME adds its references: the best single model, chosen inside the budget, and concatenation.
ROWS = {
    "concat": ("concat",),
    "average": ("average",),
    "blend": ("blend",),
    "dvme": ("best-single", "concat", "dvme"),
}
METHODS = tuple(ROWS)
EVERY = ("best-single", "average", "concat", "blend", "dvme")
OF_PROBES = frozenset({"best-single", "average"})  # made of the single models' probes


def rows_of(methods: Sequence[str]) -> tuple[str, ...]:
    """Return the rows on several models that these methods add; all rows if no method is named.

    Raises InputError for an unknown method.
    """
    for name in methods:
        if name not in ROWS:
            raise unknown("method", name, ROWS, see="mt fuse --help")
    wanted = {row for name in methods or ROWS for row in ROWS[name]}
    return tuple(row for row in EVERY if row in wanted)


def needs_probes(rows: Sequence[str]) -> bool:
    """Return whether any of these rows is made of the single models' probes."""
    return not OF_PROBES.isdisjoint(rows)


def check_of_dvme(methods: Sequence[str], option: str) -> None:
    """Raise InputError for an option of DVME if the methods do not include DVME."""
    if methods and "dvme" not in methods:
        raise InputError(f"{option} requires --method dvme. Add it, or remove {option}.")
