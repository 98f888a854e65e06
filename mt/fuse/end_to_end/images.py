"""The images behind cached features: found by id, decoded ahead by threads, and kept if they fit in memory."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from mt.backbones.preprocess import Preprocess
from mt.cache.catalog import cache_of
from mt.cache.salt import id_salt
from mt.datasets import Dataset, ImageError
from mt.datasets.readers.made_from import load_recorded, places_of
from mt.types import Array

if TYPE_CHECKING:
    from mt.cache.catalog import Entry
    from mt.cache.content import ContentIndex

Item = TypeVar("Item")
Made = TypeVar("Made")


def dataset_of(entry: Entry, data_dir: Path | None = None, *, index: ContentIndex | None = None) -> Dataset:
    """Load the dataset that a feature file was made from (`load_recorded`), with the ids that the file keeps."""
    return load_recorded(entry, data_dir, index=index).stored(partial(id_salt, cache_of(entry.path)))


class Images:
    """The pixels of some cases by row: for each of several preprocessings uint8 (n, S, S, 3).

    recipes that share a geometry share its pixels.  memory: decoded pixels are kept if all fit in this many bytes.
    """

    def __init__(self, dataset: Dataset, ids: Sequence[str], recipes: Sequence[Preprocess], *, memory: int = 0) -> None:
        self.ids, self.recipes = list(ids), list(recipes)
        self.source = dataset.location or dataset.name
        self._places = places_of(dataset, self.ids)
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


def ahead(items: Iterable[Item], make: Callable[[Item], Made], *, workers: int) -> Iterator[tuple[Item, Made]]:
    """Yield each item with the result of `make`, in order; a few more than `workers` are in progress in threads."""
    window: deque[tuple[Item, Future[Made]]] = deque()
    pool = ThreadPoolExecutor(workers, thread_name_prefix="images")
    try:
        for item in items:
            window.append((item, pool.submit(make, item)))
            if len(window) >= workers + 2:
                first, future = window.popleft()
                yield first, future.result()
        while window:
            first, future = window.popleft()
            yield first, future.result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
