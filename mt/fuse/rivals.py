"""What `--method` chooses: the rows that each method brings into the tables."""

from __future__ import annotations

from collections.abc import Sequence

from mt.errors import InputError, unknown

# DVME comes with what its gain is measured against: the best single model, chosen inside the budget, and concatenation.
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
    """Return the rows on several models that these methods bring; all of them without any.

    Raises InputError for an unknown method.
    """
    for name in methods:
        if name not in ROWS:
            raise unknown("method", name, ROWS, see="mt fuse --help")
    wanted = {row for name in methods or ROWS for row in ROWS[name]}
    return tuple(row for row in EVERY if row in wanted)


def needs_probes(rows: Sequence[str]) -> bool:
    """Say whether any of these rows is made of the single models' probes."""
    return not OF_PROBES.isdisjoint(rows)


def check_of_dvme(methods: Sequence[str], option: str) -> None:
    """Refuse an option that only DVME knows where DVME is not asked for.  Raises InputError."""
    if methods and "dvme" not in methods:
        raise InputError(f"{option} is DVME's, which is not asked for. Add it: --method dvme")
