"""Images to embeddings: the extraction loop over a dataset's images and frozen backbones."""

from __future__ import annotations

from typing import TYPE_CHECKING

import lazy_loader

if TYPE_CHECKING:
    from mt.featurize.extraction import extract as extract
    from mt.featurize.request import Compute as Compute
    from mt.featurize.request import FeaturizeRequest as FeaturizeRequest

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "extraction": ["extract"],
        "request": ["Compute", "FeaturizeRequest"],
    },
)
