"""Predicting for new images with what `mt probe --save` or `mt fuse --save` kept."""

from __future__ import annotations

from typing import TYPE_CHECKING

import lazy_loader

if TYPE_CHECKING:
    from mt.predict.dataset import predict_dataset as predict_dataset
    from mt.predict.images import predict_images as predict_images
    from mt.predict.load import load_model as load_model
    from mt.predict.request import PredictRequest as PredictRequest

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "dataset": ["predict_dataset"],
        "images": ["predict_images"],
        "load": ["load_model"],
        "request": ["PredictRequest"],
    },
)
