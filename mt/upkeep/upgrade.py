"""`mt cache upgrade`: adds the images' content hashes to feature files of format version 1, without embedding."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from mt.cache.catalog import Entry
from mt.cache.content import ContentIndex
from mt.cache.feature_file.lock import acquire
from mt.cache.feature_file.read import FeatureFile, open_features
from mt.cache.feature_file.rewrite import resealed
from mt.cache.feature_file.rows import CONTENT, arrays_of, hash_of
from mt.cache.feature_file.write import temporary_path
from mt.cache.names import digest, digest_of_rows
from mt.datasets import Dataset, DatasetSettings, Split
from mt.datasets.base import REVISION
from mt.datasets.readers.made_from import is_made_of, load_recorded
from mt.errors import CacheError, MtError
from mt.featurize.plan import limited
from mt.system import files
from mt.types import Array

DONE, HAD = "upgraded", "has content hashes already"


@dataclass
class Upgrade:
    """Adds content hashes to feature files; a dataset of several files is loaded once.

    data_dir: where the images are; None: where the feature file says.
    """

    index: ContentIndex
    data_dir: Path | None = None
    _loaded: dict[str, Dataset] = field(default_factory=dict, init=False)

    def __call__(self, entry: Entry) -> str:
        """Return what was done with a file: `DONE` or `HAD`.

        Embeddings, ids, labels, groups and fingerprints stay byte for byte; the file is replaced once it is whole.

        Raises:
            CacheError: its images are gone or changed since it was made; or it is imported, incomplete or damaged.
        """
        features = open_features(entry.path)
        if features.content is not None:
            return HAD
        if (features.manifest.get("inputs", {}).get("backbone") or {}).get("imported"):
            raise CacheError(f"{entry.path}: its embeddings were imported, so there are no images to hash.")
        dataset = self._dataset(entry)
        arrays = {**features.stored, CONTENT: self._content(entry, features, dataset)}
        if hash_of(arrays) != features.manifest["rows"]:
            raise CacheError(f"{entry.path}: its rows do not read back as they were written. See: mt cache verify")
        lock = acquire(entry.path, 0.0)
        try:
            files.remove(temporary_path(entry.path))
            manifest = features.manifest | {"decoding": dataset.decoding}
            resealed(entry.path, temporary_path(entry.path), arrays, manifest)
            files.rename(temporary_path(entry.path), entry.path)
        except OSError as error:
            raise files.explained(error, entry.path) from error
        finally:
            lock.release()
        return DONE

    def _dataset(self, entry: Entry) -> Dataset:
        manifest = entry.manifest
        settings = DatasetSettings(**manifest.get("settings", {}))
        location, limit = manifest.get("location"), manifest.get("limit")
        key = digest([str(manifest["dataset"]), location, settings.changed(), limit])
        if key not in self._loaded:
            try:
                dataset = load_recorded(entry, self.data_dir, index=self.index)
            except MtError as error:
                raise CacheError(
                    f"{entry.path}: its images cannot be read ({error}) It stays as it is: only without content hashes."
                ) from error
            self._loaded[key] = limited(dataset, limit)
        return self._loaded[key]

    def _content(self, entry: Entry, features: FeatureFile, dataset: Dataset) -> Array:
        """Return the content hashes of a file's rows, after checking that its images are unchanged."""
        stated = features.manifest.get("inputs", {}).get("dataset", {})
        made_of = stated.get("splits", {}).get(entry.split)
        split = dataset.splits.get(entry.split)
        if made_of is None:
            raise CacheError(f"{entry.path} does not say which images it was made of, so it gains no content hashes.")
        if stated.get("revision") != REVISION:
            raise CacheError(f"{entry.path} was made by other readers of images. Make it again: mt featurize")
        if split is None or not self._is_made_of(split, made_of):
            raise CacheError(
                f"{entry.path}: the images in {dataset.location or dataset.name} are not those that it was made of. "
                "Name the folder that has them with --data-dir, or make it again: mt featurize"
            )
        hashes = split.row_hashes(self.index)
        if hashes is None:
            raise CacheError(f"{entry.path}: the source of its images does not distinguish them.")
        return arrays_of(split.rows, hashes)[CONTENT]

    def _is_made_of(self, split: Split, made_of: dict[str, object]) -> bool:
        same_ids = digest_of_rows(split.ids) == made_of["ids"]
        return same_ids and is_made_of(split, made_of, self.index)
