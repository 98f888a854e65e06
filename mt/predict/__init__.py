"""Predicting for new images with what `mt probe --save` or `mt fuse --save` kept."""

from __future__ import annotations

from typing import TYPE_CHECKING

import lazy_loader

if TYPE_CHECKING:
    from mt.predict.run import predict_dataset as predict_dataset
    from mt.predict.run import predict_images as predict_images

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "run": ["predict_dataset", "predict_images"],
    },
)
