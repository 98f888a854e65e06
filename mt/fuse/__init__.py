"""Fusion: DVME on the embeddings of several models, and the methods that it is compared with."""

from __future__ import annotations

from typing import TYPE_CHECKING

import lazy_loader

if TYPE_CHECKING:
    from mt.fuse.dvme.fit import fit_dvme as fit_dvme
    from mt.fuse.dvme.module import DVME as DVME
    from mt.fuse.estimators import AverageProbe as AverageProbe
    from mt.fuse.estimators import ConcatProbe as ConcatProbe
    from mt.fuse.estimators import DVMEClassifier as DVMEClassifier
    from mt.fuse.request import FuseRequest as FuseRequest
    from mt.fuse.run import run_fuse as run_fuse

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "dvme.fit": ["fit_dvme"],
        "dvme.module": ["DVME"],
        "estimators": ["AverageProbe", "ConcatProbe", "DVMEClassifier"],
        "request": ["FuseRequest"],
        "run": ["run_fuse"],
    },
)
