"""Featurize a dataset: every chosen backbone over every chosen split, once, into feature files.

A complete cache is recognised from file sizes, remembered hashes and seals alone: nothing here imports torch
before there is something to compute.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from mt.cache import status_counts
from mt.cache.content import ContentIndex
from mt.datasets import Dataset, load_dataset
from mt.errors import InputError
from mt.featurize import plan
from mt.featurize.plan import Compute, Result
from mt.system import folders
from mt.terminal import progress

if TYPE_CHECKING:
    from mt.backbones.load import Backbone

PRECISIONS = ("float32", "tf32", "bfloat16", "float16")
DTYPES = ("float32", "float16")


def extract(
    dataset: Dataset | str,
    models: Sequence[str],
    *,
    splits: Sequence[str] = (),
    data_dir: Path | None = None,
    cache_dir: Path | None = None,
    weights: Sequence[str] = (),
    image_size: int | None = None,
    limit: int | None = None,
    compute: Compute | None = None,
    index: ContentIndex | None = None,
) -> list[Result]:
    """Featurize `dataset` with every backbone in `models` and return one result a feature file.

    Files that are complete are left alone; a file that a run left unfinished is resumed, to the same bytes.

    Args:
        dataset: a dataset, or a name that `load_dataset` knows.
        models: backbone names; several share one pass over the images.
        splits: the splits to do; all when empty.
        data_dir: folder of the dataset's published files.
        cache_dir: folder of feature files.
        weights: `random`, FILE, or MODEL=FILE.
        image_size: side in pixels that the networks see; each network's own when None.
        limit: at most so many rows a split.
        compute: device, precision, batch size and what to do with unreadable images.
        index: remembers hashes; the user's own when None.

    Raises:
        InputError: an unknown name or setting.
        DatasetError: files missing or malformed, or an unreadable image with `on_error="raise"`.
        WeightsError: weights that cannot be had.
        CacheError: the cache cannot be written.
    """
    compute = _checked(compute or Compute())
    index = index or ContentIndex()
    if isinstance(dataset, str):
        dataset = load_dataset(dataset, data_dir, on_error=compute.on_error, index=index)
    dataset = plan.limited(dataset, limit)
    chosen = plan.chosen_splits(dataset, splits)
    shelf = _Shelf(models, weights, image_size, compute, index)
    todo = plan.targets(
        dataset, chosen, [shelf.identity(m) for m in shelf.models],
        cache_dir=folders.cache_dir(cache_dir), index=index,
    )  # fmt: skip
    pending = [target for target in todo if compute.overwrite or not target.complete]
    results: dict[Path, Result] = {}
    if pending:
        from mt.featurize.run import run

        backbones = {name: shelf.load(name) for name in dict.fromkeys(target.model for target in pending)}
        results = run(
            dataset, pending, backbones, compute, content=dataset.describe(index), limit=limit, weights=shelf.weights
        )  # fmt: skip
    return [results.get(target.path) or _found(dataset, target) for target in todo]


class _Shelf:
    """The run's backbones: known by name from an earlier load, loaded once when they must compute."""

    def __init__(
        self, models: Sequence[str], weights: Sequence[str], image_size: int | None,
        compute: Compute, index: ContentIndex,
    ) -> None:  # fmt: skip
        from mt.backbones.load import find_spec

        self.models = plan.unique(models, find_spec)
        self.weights = plan.weights_by_model(self.models, weights)
        self._image_size, self._compute, self._index = image_size, compute, index
        self._loaded: dict[str, Backbone] = {}

    def identity(self, model: str) -> plan.Identity:
        """Return what names the backbone's numbers, without torch where an earlier run left it."""
        from mt.backbones.load import resolve_backbone

        known = resolve_backbone(
            model, self.weights[model], self._image_size, precision=self._compute.precision, index=self._index
        )
        return known or self.load(model)

    def load(self, model: str) -> Backbone:
        """Return the backbone, on the run's device."""
        if model not in self._loaded:
            from mt.backbones.load import load_backbone
            from mt.system.device import pick_device

            self._loaded[model] = load_backbone(
                model, self.weights[model], pick_device(self._compute.device), self._image_size,
                precision=self._compute.precision, index=self._index,
            )  # fmt: skip
            for line in self._loaded[model].notes:
                progress.note(line)
        return self._loaded[model]


def _checked(compute: Compute) -> Compute:
    """Refuse settings that no device has."""
    for option, value, known in (
        ("--precision", compute.precision, PRECISIONS),
        ("--dtype", compute.dtype, DTYPES),
    ):
        if value not in known:
            raise InputError(f"{option} takes one of {', '.join(known)}; got '{value}'.")
    for option, number in (("--batch-size", compute.batch_size), ("--workers", compute.workers)):
        if number is not None and number < 1:
            raise InputError(f"{option} takes a number of at least 1, got {number}.")
    return compute


def _found(dataset: Dataset, target: plan.Target) -> Result:
    """Return the result for a file that was complete before the run."""
    rows = len(dataset.splits[target.split])
    skipped = rows - status_counts(target.path).get("ok", 0)
    return Result(dataset.name, target.split, target.model, target.path, rows, skipped, computed=0, seconds=0.0)
