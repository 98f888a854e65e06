"""The score database, and the files of saved models."""

from __future__ import annotations

from typing import TYPE_CHECKING

import lazy_loader

if TYPE_CHECKING:
    from mt.results.store import Fit as Fit
    from mt.results.store import Score as Score
    from mt.results.store import ScoreStore as ScoreStore

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "store": ["Fit", "Score", "ScoreStore"],
    },
)
