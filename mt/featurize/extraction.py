"""Featurize datasets: every chosen backbone over every chosen split, once, into feature files.

A complete cache is recognised from file sizes, remembered hashes and seals alone: nothing here imports torch
before there is something to compute.
"""

from __future__ import annotations

import glob
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

from mt.cache import status_counts
from mt.cache.content import ContentIndex
from mt.cache.feature_file.format import SHARD
from mt.datasets import Dataset, load_dataset
from mt.featurize import plan
from mt.featurize.loaded import LoadedBackbones
from mt.featurize.plan import Result
from mt.featurize.request import FeaturizeRequest
from mt.system import files
from mt.terminal import progress


def extract(
    request: FeaturizeRequest, *, index: ContentIndex | None = None, backbones: LoadedBackbones | None = None
) -> list[Result]:
    """Featurize every dataset of the request with every backbone and return one result per feature file.

    Complete files are not changed; an unfinished file of an earlier run is resumed, and ends with the same bytes.
    index: remembers hashes; the user's own if None.  backbones: the request's backbones, if already loaded.

    Raises:
        InputError: an unknown name or setting.
        DatasetError: files missing or malformed, or an unreadable image with `on_error="raise"`.
        WeightsError: weights that cannot be had.
        CacheError: the cache cannot be written, or a file to resume was begun on another device or with other versions.
        MtError: a worker or a device cannot do its work.
    """
    return [result for _, results in extractions(request, index=index, backbones=backbones) for result in results]


def extractions(
    request: FeaturizeRequest, *, index: ContentIndex | None = None, backbones: LoadedBackbones | None = None
) -> Iterator[tuple[Dataset, list[Result]]]:
    """Yield each dataset with its results when it is done; load all datasets first, and each backbone once."""
    request.compute.check()
    index = index or ContentIndex()
    backbones = backbones or LoadedBackbones(request, index)
    for dataset in [_dataset(request, one, index) for one in request.datasets]:
        yield dataset, _extract(request, dataset, backbones, index)


def planned(
    request: FeaturizeRequest, *, index: ContentIndex | None = None, backbones: LoadedBackbones | None = None
) -> Iterator[tuple[Dataset, plan.Target]]:
    """Yield each dataset with each feature file, or shard, that the request would make; compute no embedding.

    Images are hashed and the hashes remembered, so jobs that share the user's folder need not hash them again.  Raises
    as `extract` does.
    """
    request.compute.check()
    index = index or ContentIndex()
    backbones = backbones or LoadedBackbones(request, index)
    for one in request.datasets:
        dataset = plan.limited(_dataset(request, one, index), request.limit)
        yield from ((dataset, target) for target in _targets(request, dataset, backbones, index))


def _dataset(request: FeaturizeRequest, dataset: Dataset | str, index: ContentIndex) -> Dataset:
    if isinstance(dataset, Dataset):
        return dataset
    return load_dataset(
        dataset,
        request.data_dir,
        settings=request.settings,
        download=request.download,
        on_error=request.compute.on_error,
        index=index,
    )


def _extract(
    request: FeaturizeRequest, dataset: Dataset, backbones: LoadedBackbones, index: ContentIndex
) -> list[Result]:
    dataset = plan.limited(dataset, request.limit)
    todo = _targets(request, dataset, backbones, index)
    for target in todo:
        _say_shards(target)
    pending = [target for target in todo if request.compute.overwrite or not target.complete]
    results: dict[Path, Result] = {}
    if pending:
        from mt.featurize.engines.opening import open_engine
        from mt.featurize.run import run

        needed = dict.fromkeys(target.model for target in pending)
        with closing(open_engine(request, dataset, backbones, list(needed))) as engine:
            results = run(dataset, pending, backbones, request.compute, engine=engine, limit=request.limit, index=index)
    return [results.get(target.path) or _found(dataset, target) for target in todo]


def _targets(
    request: FeaturizeRequest, dataset: Dataset, backbones: LoadedBackbones, index: ContentIndex
) -> list[plan.Target]:
    return plan.targets(
        dataset,
        plan.chosen_splits(dataset, request.splits),
        [backbones.identity(m) for m in backbones.models],
        cache_dir=files.cache_dir(request.cache_dir),
        index=index,
        shard=request.shard,
        overwrite=request.compute.overwrite,
    )


def _say_shards(target: plan.Target) -> None:
    """Note that shards of a file exist if the whole file is to be computed."""
    if not (target.shard or target.complete):
        shards = list(target.path.parent.glob(f"{glob.escape(target.path.stem)}.*of*{SHARD}"))
        if shards:
            progress.note(
                f"Shards of {target.path.name} exist ({len(shards)}) and are not used. To join them: mt cache merge"
            )


def _found(dataset: Dataset, target: plan.Target) -> Result:
    """Return the result for a file that was complete before the run, or for a shard without rows."""
    if not target.path.exists():
        return Result(dataset.shown, target.split, target.model, target.path, 0, 0, computed=0, seconds=0.0)
    counts = status_counts(target.path)
    rows = sum(counts.values())
    skipped = rows - counts.get("ok", 0)
    return Result(dataset.shown, target.split, target.model, target.path, rows, skipped, computed=0, seconds=0.0)
