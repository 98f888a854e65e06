"""Feature files, their catalog, and the scores beside them."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mt.cache._peek import Summary, is_complete, peek, status_counts
    from mt.cache.catalog import Catalog, Entry, feature_path
    from mt.cache.content import ContentIndex
    from mt.cache.fingerprint import digest, slug
    from mt.cache.reader import FeatureFile, open_features
    from mt.cache.rows import Rows
    from mt.cache.scores import ScoreStore
    from mt.cache.status import Status
    from mt.cache.stratify import stratified_parts
    from mt.cache.verify import Damage, Report, verify_file
    from mt.cache.writer import FeatureWriter

_EXPORTS = {
    "Catalog": "mt.cache.catalog",
    "ContentIndex": "mt.cache.content",
    "Damage": "mt.cache.verify",
    "Entry": "mt.cache.catalog",
    "FeatureFile": "mt.cache.reader",
    "FeatureWriter": "mt.cache.writer",
    "Report": "mt.cache.verify",
    "Rows": "mt.cache.rows",
    "ScoreStore": "mt.cache.scores",
    "Status": "mt.cache.status",
    "Summary": "mt.cache._peek",
    "digest": "mt.cache.fingerprint",
    "feature_path": "mt.cache.catalog",
    "is_complete": "mt.cache._peek",
    "open_features": "mt.cache.reader",
    "peek": "mt.cache._peek",
    "slug": "mt.cache.fingerprint",
    "status_counts": "mt.cache._peek",
    "stratified_parts": "mt.cache.stratify",
    "verify_file": "mt.cache.verify",
}

__all__ = [
    "Catalog",
    "ContentIndex",
    "Damage",
    "Entry",
    "FeatureFile",
    "FeatureWriter",
    "Report",
    "Rows",
    "ScoreStore",
    "Status",
    "Summary",
    "digest",
    "feature_path",
    "is_complete",
    "open_features",
    "peek",
    "slug",
    "status_counts",
    "stratified_parts",
    "verify_file",
]


def __getattr__(name: str) -> Any:
    if name not in _EXPORTS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_EXPORTS[name]), name)


def __dir__() -> list[str]:
    return __all__
