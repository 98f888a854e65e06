"""Images to embeddings: the extraction loop over a dataset's images and frozen backbones."""

from __future__ import annotations

from typing import TYPE_CHECKING

import lazy_loader

if TYPE_CHECKING:
    from mt.featurize.extraction import extract as extract

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "extraction": ["extract"],
    },
)
