"""What a run must compute: one target per split and backbone, found without torch and without opening an image."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

from mt.cache import is_complete
from mt.cache.catalog import feature_path
from mt.cache.content import ContentIndex
from mt.cache.feature_file.shards import Shard
from mt.cache.names import digest
from mt.datasets import Dataset
from mt.errors import InputError, unknown

Json = dict[str, Any]


class Identity(Protocol):
    """What identifies a backbone's embeddings: a loaded backbone, or the record of an earlier run."""

    @property
    def name(self) -> str: ...
    @property
    def dim(self) -> int: ...
    @property
    def fingerprint(self) -> str: ...
    @property
    def description(self) -> Json: ...
    @property
    def random_weights(self) -> bool: ...


@dataclass(frozen=True)
class Result:
    """One feature file of a run; `seconds` is the time of the pass over the images, which several backbones share.

    computed: rows that went through the network.  copied: rows whose embedding another file held.
    """

    dataset: str
    split: str
    model: str
    path: Path
    rows: int
    skipped: int
    computed: int
    seconds: float
    copied: int = 0

    @property
    def cached(self) -> bool:
        """Whether the file was complete before the run."""
        return self.computed == self.copied == 0

    @property
    def images_per_second(self) -> float | None:
        """Images per second of the pass that made the file; None if it was complete before."""
        return self.computed / self.seconds if self.computed and self.seconds else None


@dataclass(frozen=True)
class Target:
    """One feature file of the run: the embeddings of one split by one backbone, or a shard of them.

    path: of the file or the shard.  complete: whether that file exists and is complete.
    """

    split: str
    model: str
    dim: int
    path: Path
    fingerprints: Mapping[str, str] = field(hash=False)
    complete: bool = False
    shard: Shard | None = None


def limited(dataset: Dataset, limit: int | None) -> Dataset:
    """Return the dataset with at most `limit` rows per split; its content and fingerprint then differ."""
    if limit is None:
        return dataset
    if limit < 1:
        raise InputError(f"--limit takes a number of images of at least 1, got {limit}.")
    return replace(dataset, splits={name: split.limited(limit) for name, split in dataset.splits.items()})


def chosen_splits(dataset: Dataset, asked: Sequence[str]) -> list[str]:
    """Return the splits to featurize: those asked for, or all."""
    for name in asked:
        if name not in dataset.splits:
            known = ", ".join(dataset.splits)
            raise unknown("split", name, dataset.splits, see=f"'{dataset.name}' has {known}")
    return list(dict.fromkeys(asked)) or list(dataset.splits)


def targets(
    dataset: Dataset,
    splits: Sequence[str],
    identities: Sequence[Identity],
    *,
    cache_dir: Path,
    index: ContentIndex,
    shard: Shard | None = None,
    overwrite: bool = False,
) -> list[Target]:
    """Return the feature files, or shards of them, that these splits and backbones make; some may be complete.

    A complete file takes the place of its shard, unless `overwrite` makes it again.
    """
    content = dataset.fingerprint(index)
    planned = []
    for split in splits:
        rows = dataset.split_fingerprint(split, index)
        for identity in identities:
            parts = {"backbone": identity.fingerprint, "dataset": content, "split": rows}
            file = digest(parts)
            path = whole = feature_path(cache_dir, dataset.name, split, identity.name, file)
            if shard and (overwrite or not is_complete(whole)):
                path = shard.path(whole)
            prints = {**parts, "file": file}
            planned.append(Target(split, identity.name, identity.dim, path, prints, is_complete(path), shard))
    return planned


def weights_by_model(models: Sequence[str], given: Sequence[str]) -> dict[str, str | None]:
    """Read `--weights`: FILE for a single model, MODEL=FILE for one of several, `random` for all.

    Raises:
        InputError: a file without a model's name although there are several models, or an unknown model.
    """
    weights: dict[str, str | None] = dict.fromkeys(models)
    for value in given:
        model, separator, file = value.partition("=")
        if separator and model in weights:
            weights[model] = file
        elif value == "random" or len(weights) == 1:
            weights = dict.fromkeys(models, value)
        else:
            raise InputError(
                f"--weights {value} does not say for which of {', '.join(models)}. "
                f"Expected MODEL=FILE, e.g. --weights {models[0]}={value}"
            )
    return weights


def unique(models: Sequence[str], check: Callable[[str], object]) -> list[str]:
    """Return each model once, after checking every name."""
    for name in models:
        check(name)
    return list(dict.fromkeys(models))
