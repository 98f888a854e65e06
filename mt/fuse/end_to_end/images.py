"""The images behind cached features: found by id, decoded ahead by threads, and kept if they fit in memory."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import numpy.typing as npt

from mt.backbones.preprocess import Preprocess
from mt.cache.catalog import cache_of
from mt.cache.names import data_dir_of, loadable_name
from mt.cache.salt import id_salt
from mt.datasets import Dataset, DatasetSettings, ImageError, load_dataset
from mt.errors import InputError

if TYPE_CHECKING:
    from mt.cache.catalog import Entry

Array = npt.NDArray[Any]
Item = TypeVar("Item")
Made = TypeVar("Made")


def dataset_of(entry: Entry, data_dir: str | Path | None = None) -> Dataset:
    """Load the dataset that a feature file was made from, from its recorded place or from `data_dir`.

    Raises InputError or DatasetError if it no longer exists there.
    """
    location = entry.manifest.get("location")
    place = data_dir or data_dir_of(entry.dataset, location)
    name = loadable_name(entry.dataset, location)
    settings = DatasetSettings(**entry.manifest.get("settings", {}))
    dataset = load_dataset(name, Path(place) if place else None, settings=settings, on_error="skip")
    return dataset.stored(partial(id_salt, cache_of(entry.path)))


class Images:
    """The pixels of some cases by row: for each of several preprocessings uint8 (n, S, S, 3).

    recipes that share a geometry share its pixels.  memory: decoded pixels are kept if all fit in this many bytes.
    """

    def __init__(self, dataset: Dataset, ids: Sequence[str], recipes: Sequence[Preprocess], *, memory: int = 0) -> None:
        self.ids, self.recipes = list(ids), list(recipes)
        self.source = dataset.location or dataset.name
        self._places = _places(dataset, ids)
        self._geometries = {recipe.geometry_key: recipe for recipe in recipes}
        size = len(ids) * sum(3 * recipe.crop**2 for recipe in self._geometries.values())
        self._kept = {key: self._empty(key, len(ids)) for key in self._geometries} if size <= memory else None
        self._known = np.zeros(len(ids), bool)

    def pixels(self, rows: Array) -> list[Array]:
        """Return the pixels of some rows, one array per preprocessing; the caller may change them.

        Raises DatasetError for an image that can no longer be read.
        """
        made = {key: self._empty(key, len(rows)) for key in self._geometries}
        for place, row in enumerate(rows):
            if self._kept is not None and self._known[row]:
                for key, array in made.items():
                    array[place] = self._kept[key][row]
                continue
            image = self._decoded(int(row))
            for key, recipe in self._geometries.items():
                made[key][place] = recipe.geometry(image)
                if self._kept is not None:
                    self._kept[key][row] = made[key][place]
            self._known[row] = True
        keys = [recipe.geometry_key for recipe in self.recipes]
        return [made[key] if key not in keys[:number] else made[key].copy() for number, key in enumerate(keys)]

    def _empty(self, key: Any, n: int) -> Array:
        side = self._geometries[key].crop
        return np.empty((n, side, side, 3), np.uint8)

    def _decoded(self, row: int) -> Any:
        split, place = self._places[row]
        (image,) = split.images.load(place, place + 1)
        if isinstance(image, ImageError):
            raise image
        return image


def _places(dataset: Dataset, ids: Sequence[str]) -> list[tuple[Any, int]]:
    """Return the split and the row of each id; the splits may differ from those that were featurized."""
    known = {name: (split, row) for split in dataset.splits.values() for row, name in enumerate(split.ids)}
    lacking = [name for name in ids if name not in known]
    if lacking:
        raise InputError(
            f"{len(lacking)} of {len(ids)} cases of the cached features are not in '{dataset.name}' at "
            f"{dataset.location}, first '{lacking[0]}'. Name where its files are: --data-dir DIR"
        )
    return [known[name] for name in ids]


def ahead(
    items: Iterable[Item], make: Callable[[Item], Made], *, workers: int, extra: int = 2
) -> Iterator[tuple[Item, Made]]:
    """Yield each item with the result of `make`, in order; up to `workers + extra` items are in progress in threads."""
    window: deque[tuple[Item, Future[Made]]] = deque()
    pool = ThreadPoolExecutor(workers, thread_name_prefix="images")
    try:
        for item in items:
            window.append((item, pool.submit(make, item)))
            if len(window) >= workers + extra:
                first, future = window.popleft()
                yield first, future.result()
        while window:
            first, future = window.popleft()
            yield first, future.result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
