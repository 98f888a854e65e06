"""What a dataset is: splits of images by index, with labels, ids and groups, and a fingerprint of their content."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, Protocol, TypeAlias, runtime_checkable

import numpy as np
from PIL import Image

from mt.cache.content import ContentIndex
from mt.cache.feature_file.format import Status
from mt.cache.names import digest, digest_of_rows, with_settings
from mt.cache.salt import hashed, hashed_id
from mt.datasets.decoding.notes import Notes
from mt.datasets.decoding.row_hashes import HASH_BYTES, HashedImages
from mt.datasets.patients import PATIENT, HiddenPatients
from mt.datasets.settings import DatasetSettings
from mt.errors import DatasetError
from mt.stratification import stratified_order
from mt.types import HEADLINE, MISSING, Groups, LabelledRows, Task, Texts

Json: TypeAlias = Any

# Raised whenever the images, labels or rows that this package yields for the same files change.
REVISION = 1
PERSONAL = ("patient", "slide")  # metadata that --hash-ids hashes
# Metadata that a feature file keeps if the dataset has it, for scores by subgroup.
METADATA = ("sex", "age", "site", "view", "patient", "slide")


class ImageError(DatasetError):
    """One image cannot be used: returned in its place, so that its row can be skipped or the run stopped."""

    def __init__(self, message: str, status: Status) -> None:
        super().__init__(message)
        self.status = status


Pixels: TypeAlias = Image.Image | np.ndarray
Loaded: TypeAlias = Pixels | ImageError


class ImageSource(Protocol):
    """The images of one split, by index."""

    def __len__(self) -> int: ...

    def load(self, start: int, stop: int) -> list[Loaded]:
        """Return images `start` to `stop` as RGB: PIL images or uint8 arrays (H, W, 3).

        Several threads may call it at once.  An unreadable image is an `ImageError` in its place; an exception that is
        raised concerns the whole source.
        """
        ...

    def content(self, index: ContentIndex) -> Json:
        """Return what determines the pixels: content hashes or parameters, never paths or times."""
        ...


@runtime_checkable
class Divisible(Protocol):
    """A source of separate files: a part of it is a source that knows nothing of the other files."""

    def only(self, places: Sequence[int]) -> ImageSource:
        """Return the images at these places."""
        ...


@dataclass(frozen=True)
class ChosenImages:
    """Some images of a source whose content is one file, by their places in it, in rising order."""

    source: ImageSource
    places: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.places)

    def load(self, start: int, stop: int) -> list[Loaded]:
        return [image for place in self.places[start:stop] for image in self.source.load(place, place + 1)]

    def content(self, index: ContentIndex) -> Json:
        return {"places": digest(list(self.places)), "of": self.source.content(index)}

    def row_hashes(self, index: ContentIndex, places: Sequence[int]) -> np.ndarray:
        if not isinstance(self.source, HashedImages):
            return np.zeros((len(places), HASH_BYTES), dtype=np.uint8)
        return self.source.row_hashes(index, [self.places[place] for place in places])


@dataclass(frozen=True)
class Split:
    """Rows of a dataset that are used together.

    `rows` are their ids, labels, groups and columns.  If the groups are only numbers of patients, `hidden` finds the
    patients themselves, to store them hashed.
    """

    name: str
    rows: LabelledRows[None]
    images: ImageSource
    hidden: HiddenPatients | None = field(default=None, repr=False, compare=False)
    hash_ids: bool = False

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def ids(self) -> Sequence[str]:
        return self.rows.ids

    @property
    def labels(self) -> np.ndarray:
        return self.rows.y

    @property
    def groups(self) -> Groups | None:
        return self.rows.groups

    @property
    def columns(self) -> Mapping[str, Sequence[Any]]:
        return self.rows.columns

    def stored_rows(self, salt: Callable[[], bytes]) -> LabelledRows[None]:
        """Return the rows as a feature file keeps them: hidden patients as hashes with the cache's salt."""
        hashes = {} if self.hidden is None else {PATIENT: self.hidden.hashes(salt())}
        rows = replace(self.rows, columns={**self.columns, **hashes})
        if not self.hash_ids:
            return rows
        secret = salt()
        names = {
            name: [hashed(f"{name}:{value}", secret) for value in values]
            for name, values in self.columns.items()
            if name in PERSONAL
        }
        return replace(
            rows,
            ids=[hashed_id(id_, secret) for id_ in self.ids],
            groups=None if self.groups is None else [hashed(f"group:{group}", secret) for group in self.groups],
            columns={**rows.columns, **names, **hashes},
        )

    def limited(self, count: int) -> Split:
        """Return `count` rows in their order: stratified by class, or evenly spaced if a row has several labels."""
        if count >= len(self):
            return self
        if self.labels.ndim == 1:
            places = tuple(np.sort(stratified_order(self.labels, seed=0)[:count]).tolist())
        else:
            places = tuple(number * len(self) // count for number in range(count))
        return replace(
            self,
            rows=self.rows.take(np.array(places, dtype=np.int64)),
            images=self.images.only(places)
            if isinstance(self.images, Divisible)
            else ChosenImages(self.images, places),
            hidden=None if self.hidden is None else self.hidden.only(places),
        )

    def row_hashes(self, index: ContentIndex) -> np.ndarray | None:
        """Return a content hash of each row's image, whatever its path: uint8 (n, 16); None if the source has none."""
        return self.images.row_hashes(index, range(len(self))) if isinstance(self.images, HashedImages) else None

    def describe(self, index: ContentIndex) -> dict[str, Json]:
        """Return what determines this split's rows, as JSON of fixed size."""
        return {
            "rows": len(self),
            "ids": digest_of_rows(self.ids),
            "labels": digest_of_rows(self.labels),
            "groups": None if self.groups is None else digest_of_rows(self.groups),
            "columns": {name: digest_of_rows(values) for name, values in sorted(self.columns.items())},
            "images": self.images.content(index),
            **({"hashed_ids": True} if self.hash_ids else {}),
        }


@dataclass(frozen=True)
class Dataset:
    """A labelled image dataset, with its task and its splits.

    `location` is the folder or file it was read from, None for generated ones.  `kind` says what the images show
    (`fundus`, `xray`, `patch`, ...); `metric` is by default the task's headline metric.  `budget_unit` says what a
    labelling budget counts (rows or groups), `grouping` what a group is.  `drawn` records the splits that we drew:
    algorithm, fractions, seed, counts and the sha256 of each id list.  `settings` are the options that loaded it;
    `notes` counts facts about its images that decoding showed.
    """

    name: str
    location: str | None
    task: Task
    class_names: tuple[str, ...]
    licence: str
    kind: str
    splits: Mapping[str, Split]
    metric: str = ""
    budget_unit: Literal["row", "group"] = "row"
    grouping: str | None = None
    warnings: tuple[str, ...] = ()
    drawn: Mapping[str, Json] = field(default_factory=dict)
    settings: DatasetSettings = field(default_factory=DatasetSettings)
    notes: Notes = field(default_factory=Notes, repr=False, compare=False)
    _described: dict[str, Json] = field(default_factory=dict, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "metric", self.metric or HEADLINE[self.task])

    @property
    def shown(self) -> str:
        """The name with the settings that are not their default."""
        return with_settings(self.name, self.settings.changed())

    @property
    def decoding(self) -> dict[str, Json]:
        """How the bytes of every image become pixels; what concerns one image alone is in its row's hash."""
        return {"revision": REVISION, **self.settings.decoding.describe()}

    def stored(self, salt: Callable[[], bytes]) -> Dataset:
        """Return the dataset with the rows that feature files keep, whose ids may be hashes."""
        splits = {name: replace(split, rows=split.stored_rows(salt)) for name, split in self.splits.items()}
        return replace(self, splits=splits) if self.settings.hash_ids else self

    def describe(self, index: ContentIndex) -> dict[str, Json]:
        """Return the input of the dataset's fingerprint: the content of all splits, hashed once and remembered."""
        if not self._described:
            self._described.update(
                revision=REVISION,
                task=self.task,
                class_names=list(self.class_names),
                budget_unit=self.budget_unit,
                grouping=self.grouping,
                drawn=dict(self.drawn),
                splits={name: split.describe(index) for name, split in self.splits.items()},
            )
        return dict(self._described)

    def fingerprint(self, index: ContentIndex) -> str:
        """Return the sha256 of all that determines the dataset's images, labels, ids and groups."""
        return digest(self.describe(index))

    def split_fingerprint(self, split: str, index: ContentIndex) -> str:
        """Return the sha256 of all that determines the rows of one split."""
        description = self.describe(index)
        return digest({**description, "splits": {split: description["splits"][split]}, "drawn": None})


def validated(dataset: Dataset) -> Dataset:
    """Return the dataset unchanged after checking its rows.

    Raises:
        DatasetError: no images, one id for two images, no labels, or a single class.
    """
    where = f" in {dataset.location}" if dataset.location else ""
    for name, split in dataset.splits.items():
        if not len(split):
            raise DatasetError(f"{dataset.name}: the {name} split holds no images{where}. Expected at least one.")
    if not dataset.splits:
        raise DatasetError(f"{dataset.name}: no images found{where}.")
    _refuse_duplicates(dataset)
    present = {int(label) for split in dataset.splits.values() for label in np.unique(split.labels)}
    if dataset.task != "multilabel":
        present.discard(MISSING)
        if not present:
            raise DatasetError(f"{dataset.name}: none of the images{where} has a label. Expected at least two classes.")
    if len(present) < 2:
        only = dataset.class_names[present.pop()] if dataset.task != "multilabel" else "the same label values"
        raise DatasetError(
            f"{dataset.name}: all images{where} are of one class, '{only}'. A classifier needs at least two."
        )
    return dataset


def _refuse_duplicates(dataset: Dataset) -> None:
    in_order = np.concatenate([Texts.of(split.ids).encoded for split in dataset.splits.values()])
    in_order.sort(kind="stable")
    if not (in_order[1:] == in_order[:-1]).any():
        return
    ids = (id_ for split in dataset.splits.values() for id_ in split.ids)
    seen: set[str] = set()
    repeated = [id_ for id_ in ids if id_ in seen or seen.add(id_)]  # type: ignore[func-returns-value]
    raise DatasetError(
        f"{dataset.name}: {len(repeated)} duplicated ids, first '{repeated[0]}'. Expected each image to be listed once."
    )
