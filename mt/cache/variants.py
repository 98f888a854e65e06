"""Features of one dataset that were made with different settings: which of them a command takes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from mt.cache.dataset_name import bare_name, has_settings
from mt.errors import InputError
from mt.terminal import progress


@dataclass(frozen=True)
class Variant:
    """What was made of one dataset with the same settings.

    name: what is typed after `--dataset` to choose it.  made: grows with its newest part.
    """

    name: str
    grouped: bool
    made: tuple[float, ...]


def newest_grouped(variants: Sequence[Variant]) -> Variant | None:
    """Return the newest variant that has groups, or the only one; None where nothing says which."""
    best, *others = sorted(variants, key=lambda one: (one.grouped, one.made), reverse=True)
    if others and (not best.grouped or (others[0].grouped, others[0].made) == (best.grouped, best.made)):
        return None
    return best


def taken(variants: Sequence[Variant], *, what: str) -> Variant:
    """Return the newest variant that has groups, or the only one; one of several is named on stderr.

    what: what was made, at the beginning of a sentence.

    Raises:
        InputError: several variants without groups, or equally new ones: nothing says which.
    """
    best = newest_grouped(variants)
    if best is None:
        names = sorted(one.name for one in variants)
        raise InputError(
            f"{what} of '{bare_name(names[0])}' were made with several settings: {' and '.join(names)}. "
            f"Choose: --dataset '{names[0]}'"
        )
    others = [f"--dataset '{one.name}'" for one in variants if one is not best]
    if others:
        progress.note(f"{what} of {best.name}: the newest with groups. Others: {' and '.join(others)}")
    return best


def typed(dataset: str) -> str:
    """Return the name that chooses a dataset's settings, where they are the default, too."""
    return dataset if has_settings(dataset) else f"{dataset}[]"
