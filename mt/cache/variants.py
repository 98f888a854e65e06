"""Features of one dataset that were made with different settings: which of them a command takes."""

from __future__ import annotations

from collections.abc import Sequence

from mt.cache.catalog import Entry
from mt.cache.dataset_name import bare_name, has_settings, is_exactly
from mt.errors import InputError
from mt.terminal import progress


def settled(entries: Sequence[Entry], asked: Sequence[str] = ()) -> list[Entry]:
    """Return the entries of one variant per dataset: the one that `asked` names, else the newest that has groups.

    A choice that `asked` leaves open is said on stderr.

    Raises:
        InputError: several variants without groups, or equally new ones: nothing says which.
    """
    datasets: dict[tuple[str, str], dict[str, list[Entry]]] = {}
    for entry in entries:
        place = str(entry.manifest.get("location")), bare_name(entry.dataset)
        datasets.setdefault(place, {}).setdefault(_variant(entry), []).append(entry)
    taken: list[Entry] = []
    for variants in datasets.values():
        named: dict[str, dict[str, list[Entry]]] = {}
        for name, found in variants.items():
            if _is_asked(found[0], asked):
                named.setdefault(found[0].dataset, {})[name] = found
        taken += [entry for one in list(named.values()) or [variants] for entry in one[_best(one)]]
    paths = {entry.path for entry in taken}
    return [entry for entry in entries if entry.path in paths]


def _variant(entry: Entry) -> str:
    """Return what tells features of one dataset apart: the settings, and of equal ones whether there are groups."""
    return entry.dataset if _grouped(entry) else f"{entry.dataset} (no groups)"


def _grouped(entry: Entry) -> bool:
    return bool(entry.manifest.get("grouping"))


def _is_asked(entry: Entry, asked: Sequence[str]) -> bool:
    location = entry.manifest.get("location")
    return any(has_settings(name) and is_exactly(entry.dataset, location, name) for name in asked)


def _best(variants: dict[str, list[Entry]]) -> str:
    """Return the newest variant that has groups, or the only one."""
    ranked = sorted(variants, key=lambda name: _rank(variants[name]), reverse=True)
    best, *others = ranked
    if not others:
        return best
    grouped, modified = _rank(variants[best])
    others_named = " and ".join(_typed(variants[name][0]) for name in others)
    if not grouped or (grouped, modified) == _rank(variants[others[0]]):
        names = " and ".join(sorted(_typed(found[0]) for found in variants.values()))
        dataset = bare_name(variants[best][0].dataset)
        raise InputError(
            f"The cache holds features of '{dataset}' made with several settings: {names}. "
            f"Choose: --dataset '{_typed(variants[best][0])}'"
        )
    progress.note(f"Features of {best}: the newest with groups. Others: --dataset {others_named}")
    return best


def _rank(entries: Sequence[Entry]) -> tuple[bool, float]:
    return _grouped(entries[0]), max(entry.modified for entry in entries)


def _typed(entry: Entry) -> str:
    """Return the name that chooses an entry's settings, where they are the default, too."""
    return entry.dataset if has_settings(entry.dataset) else f"{entry.dataset}[]"
