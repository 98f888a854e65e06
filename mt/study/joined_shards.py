"""What a study does with shards of the files that it needs: it joins complete ones, as `mt cache merge` does."""

from __future__ import annotations

import glob
from pathlib import Path
from typing import TYPE_CHECKING

from mt.errors import CacheError

if TYPE_CHECKING:
    from mt.cache.merging import ShardSet
    from mt.featurize.loaded import LoadedBackbones
    from mt.featurize.request import FeaturizeRequest


def join_parts(request: FeaturizeRequest, backbones: LoadedBackbones) -> int:
    """Merge the shards of the files that a request would make, and return of how many files there were any.

    Raises CacheError for shards that are not complete: other jobs may be computing their rows.
    """
    from mt.cache.merging import merge
    from mt.featurize.extraction import planned

    joined = 0
    for _, target in planned(request, backbones=backbones):
        sets = [] if target.complete else parts_of(target.path)
        if not sets:
            continue
        lacking = {one.of: one.lacking() for one in sets}
        ready = [one for one in sets if not lacking[one.of]]
        if not ready:
            raise CacheError(
                f"{target.path.name} is being made in parts (to make it whole, remove them: mt cache remove): "
                f"{lacking[sets[0].of][0]}"
            )
        merge(ready[0])
        joined += 1
    return joined


def parts_of(path: Path) -> list[ShardSet]:
    """Return the shards of a feature file, one set per number of parts."""
    from mt.cache.feature_file.format import SHARD
    from mt.cache.merging import shard_sets

    names = (f"{glob.escape(path.stem)}.*of*{suffix}" for suffix in (SHARD, ".partial"))
    return shard_sets(sorted(found for name in names for found in path.parent.glob(name)))
