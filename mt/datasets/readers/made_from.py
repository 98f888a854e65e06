"""The dataset that a feature file was made from, loaded again, and whether its images are still those."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mt.cache.content import ContentIndex
from mt.cache.names import data_dir_of, loadable_name, mapped_place
from mt.datasets import Dataset, DatasetSettings, load_dataset
from mt.datasets.base import Split
from mt.datasets.decoding.row_hashes import HashedImages
from mt.errors import DatasetError, InputError

if TYPE_CHECKING:
    from mt.cache.catalog import Entry


def load_recorded(entry: Entry, data_dir: Path | None = None, *, index: ContentIndex | None = None) -> Dataset:
    """Load the dataset that a feature file was made from, from its recorded place or from `data_dir`.

    data_dir: as `--data-dir`; for `folder:` and `table:` a folder that holds one, or a table, of the recorded name.
    An image that is absent keeps its row.
    Raises InputError or DatasetError if the dataset is not there.
    """
    location = entry.manifest.get("location")
    name, recorded = loadable_name(entry.dataset, location), data_dir_of(entry.dataset, location)
    name = mapped_place(placed(name, data_dir), lambda place: _there(place, data_dir))
    place = data_dir or (Path(recorded) if recorded else None)
    settings = DatasetSettings(**entry.manifest.get("settings", {}))
    return load_dataset(name, place, settings=settings, on_error="skip", index=index)


def placed(name: str, data_dir: Path | None) -> str:
    """Return a dataset's name with its folder or table taken from `data_dir`, if one of that name lies there."""
    if data_dir is None:
        return name
    return mapped_place(name, lambda place: _moved(data_dir / Path(place).name, place))


def _moved(new: Path, old: str) -> str:
    return str(new) if new.exists() else old


def _there(place: str, data_dir: Path | None) -> str:
    """Return a folder or table that is there.  Raises DatasetError, with what to type, for another."""
    if not Path(place).exists():
        name = Path(place).name
        nor = "" if data_dir is None else f", nor at {data_dir / name}"
        raise DatasetError(f"The images are not at {place}{nor}. Name the folder that holds '{name}': --data-dir DIR")
    return place


def places_of(dataset: Dataset, ids: list[str]) -> list[tuple[Split, int]]:
    """Return the split and the row of each id; the splits may differ from those that were featurized.

    Raises InputError for ids that the dataset lacks.
    """
    known = {name: (split, row) for split in dataset.splits.values() for row, name in enumerate(split.ids)}
    lacking = [name for name in ids if name not in known]
    if lacking:
        raise InputError(
            f"{len(lacking)} of {len(ids)} cases of the cached features are not in '{dataset.name}' at "
            f"{dataset.location}, first '{lacking[0]}'. Put their files back, or name "
            "the folder that holds a copy of it: --data-dir DIR"
        )
    return [known[name] for name in ids]


def is_made_of(split: Split, made_of: Mapping[str, Any], index: ContentIndex) -> bool:
    """Say whether a split's images are those that a manifest's account of a split describes, in this order."""
    return bool(split.images.content(index) == made_of["images"])


def check_unchanged(dataset: Dataset, entry: Entry, index: ContentIndex) -> None:
    """Refuse images that are not those that features were made from, whatever their names; missing files too.

    Where the split's content as a whole is not the recorded one, its rows are compared, as far as their content is
    known.  Raises InputError.
    """
    made_of = (entry.manifest.get("inputs", {}).get("dataset") or {}).get("splits", {}).get(entry.split)
    split = dataset.splits.get(entry.split)
    if made_of and split and is_made_of(split, made_of, index):
        return
    features = entry.open()
    if features.content is None:
        return
    ids, before = list(features.ids), features.content
    by_split: dict[str, list[int]] = {}
    places = places_of(dataset, ids)
    for number, (found, _) in enumerate(places):
        by_split.setdefault(found.name, []).append(number)
    changed: list[int] = []
    for name, numbers in by_split.items():
        images = dataset.splits[name].images
        if isinstance(images, HashedImages):
            now = images.row_hashes(index, [places[number][1] for number in numbers])
            differs = before[numbers].any(axis=1) & (now != before[numbers]).any(axis=1)
            changed += np.asarray(numbers)[differs].tolist()
    if changed:
        where = dataset.location or dataset.name
        raise InputError(
            f"{len(changed)} of {len(ids)} images in {where} are not those that the '{entry.backbone}' features were "
            f"made from, first '{ids[min(changed)]}'. Put their files back, name the folder that holds a copy with "
            "--data-dir, or run mt featurize again."
        )
