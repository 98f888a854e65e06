"""In how many draws a network was trained: DVME and fine-tuning keep their start where training gains nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mt.results.store import Score

_TRAIN = ("dvme", "fine-tune")  # how the names of methods that train a network begin


def settings_of(settings: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Return the settings that a fit chose: one, or one per test fold."""
    return list(settings["test_folds"]) if "test_folds" in settings else [settings]


def is_trained(method: str, settings: Mapping[str, Any]) -> bool | None:
    """Say whether a trained network predicts, in any test fold; None without a network, or where it is not known."""
    chosen = settings_of(settings)
    if not method.startswith(_TRAIN) or any("epochs" not in one for one in chosen):
        return None
    # End-to-end training may have failed after these epochs, and then its start predicts.
    return any(one.get("trained", one["epochs"]) > 0 for one in chosen)


def n_trained(draws: Sequence[Score]) -> int | None:
    """Return the number of draws of a row in which a network was trained; None for a row without networks."""
    found = [is_trained(score.method, score.settings) for score in draws]
    return None if None in found else sum(map(bool, found))


def in_words(draws: Sequence[Score]) -> str:
    """Return "network trained in 3 of 5 draws"; empty for a row without networks."""
    trained = n_trained(draws)
    return "" if trained is None else f"network trained in {trained} of {len(draws)} draw{'s' * (len(draws) != 1)}"
