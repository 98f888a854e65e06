"""Feature files and their catalog."""

from __future__ import annotations

from typing import TYPE_CHECKING

import lazy_loader

if TYPE_CHECKING:
    from mt.cache.catalog import Catalog as Catalog
    from mt.cache.catalog import Entry as Entry
    from mt.cache.catalog import feature_path as feature_path
    from mt.cache.content import ContentIndex as ContentIndex
    from mt.cache.feature_file.format import Status as Status
    from mt.cache.feature_file.read import Damage as Damage
    from mt.cache.feature_file.read import FeatureFile as FeatureFile
    from mt.cache.feature_file.read import Summary as Summary
    from mt.cache.feature_file.read import is_complete as is_complete
    from mt.cache.feature_file.read import open_features as open_features
    from mt.cache.feature_file.read import peek as peek
    from mt.cache.feature_file.read import status_counts as status_counts
    from mt.cache.feature_file.verify import Verification as Verification
    from mt.cache.feature_file.verify import verify_file as verify_file
    from mt.cache.feature_file.write import Existing as Existing
    from mt.cache.feature_file.write import FeatureWriter as FeatureWriter
    from mt.cache.names import digest as digest
    from mt.cache.names import slug as slug

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "catalog": ["Catalog", "Entry", "feature_path"],
        "content": ["ContentIndex"],
        "feature_file.format": ["Status"],
        "feature_file.read": [
            "Damage",
            "FeatureFile",
            "Summary",
            "is_complete",
            "open_features",
            "peek",
            "status_counts",
        ],
        "feature_file.verify": ["Verification", "verify_file"],
        "feature_file.write": ["Existing", "FeatureWriter"],
        "names": ["digest", "slug"],
    },
)
