"""Predicting with what was saved: embeddings from the cache where they are, else made; one row an image."""

from __future__ import annotations

import csv
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

import numpy as np
import numpy.typing as npt

from mt.backbones.recorded import check_fingerprint, load_described, weights_of
from mt.cache.catalog import Catalog
from mt.errors import InputError
from mt.fuse.aligned import in_first_order
from mt.fuse.saved import SavedModel, is_end_to_end, load_model
from mt.system import folders
from mt.terminal import progress

if TYPE_CHECKING:
    from mt.backbones import Backbone
    from mt.cache.feature_file.read import FeatureFile

Array = npt.NDArray[Any]
BATCH = 32  # images at a time, the last batch padded: a result does not depend on its neighbours
THRESHOLD = 0.5  # a label of a multilabel task is predicted above it


@dataclass(frozen=True)
class Predictions:
    """ids (n,), probabilities (n, K) in the order of class_names, and the predicted class (labels) of each."""

    ids: list[str]
    probabilities: npt.NDArray[np.float32]
    class_names: tuple[str, ...]
    task: str

    @property
    def predicted(self) -> list[str]:
        """The most probable class; for multilabel the labels above one half, joined by ';'."""
        if self.task != "multilabel":
            return [self.class_names[k] for k in self.probabilities.argmax(axis=1)]
        return [
            ";".join(name for name, p in zip(self.class_names, row, strict=True) if p > THRESHOLD)
            for row in self.probabilities
        ]

    def write_csv(self, file: TextIO) -> None:
        """Write id, a probability a class, and the prediction; numbers read back to the same float32."""
        out = csv.writer(file, lineterminator="\n")
        out.writerow(["id", *self.class_names, "prediction"])
        for name, row, predicted in zip(self.ids, self.probabilities, self.predicted, strict=True):
            out.writerow([name, *(str(p) for p in row), predicted])


def predict_images(
    model: str | os.PathLike[str], paths: Sequence[str | os.PathLike[str]], *, device: str = "auto",
    weights: str | None = None,
) -> Predictions:  # fmt: skip
    """Predict for image files, and for all images in folders; ids are the paths.

    weights: a file for the backbone, `random`, or the published ones.  Raises InputError, WeightsError, DatasetError
    for an unreadable image.
    """
    if is_end_to_end(model):
        from mt.fuse.end_to_end.saved import load_tuned

        tuned, files = load_tuned(model), list(_images(paths))
        return Predictions(*tuned.predict_files(files, device=device), tuned.class_names, tuned.task)
    saved, files = load_model(model), list(_images(paths))
    embeddings = [_embed(load_described(about, weights), files, device) for about in saved.backbones]
    return _predictions(saved, [str(file) for file in files], embeddings)


def predict_dataset(
    model: str | os.PathLike[str], dataset: str, *, split: str = "test",
    cache_dir: str | os.PathLike[str] | None = None, data_dir: str | os.PathLike[str] | None = None,
    device: str = "auto", weights: str | None = None,
) -> Predictions:  # fmt: skip
    """Predict for a dataset's split; features that are not in the cache are made and kept there."""
    if is_end_to_end(model):
        from mt.fuse.end_to_end.saved import load_tuned

        tuned = load_tuned(model)
        found = tuned.predict_split(dataset, split, data_dir=Path(data_dir) if data_dir else None, device=device)
        return Predictions(*found, tuned.class_names, tuned.task)
    saved = load_model(model)
    cache = folders.cache_dir(cache_dir)
    files = [
        _cached(cache, dataset, split, about) or _featurized(cache, dataset, split, about, data_dir, device, weights)
        for about in saved.backbones
    ]
    return _predictions(saved, list(files[0].ids), in_first_order(files))


def _predictions(saved: SavedModel, ids: list[str], embeddings: Sequence[Array]) -> Predictions:
    return Predictions(ids, saved.predict_proba(embeddings), saved.class_names, saved.task)


def _cached(cache: Path, dataset: str, split: str, about: dict[str, Any]) -> FeatureFile | None:
    """Return the newest complete features of a split by the very backbone that the model was fitted on."""
    entries = [
        entry
        for entry in Catalog(cache).entries(datasets=[dataset], splits=[split], everything=True)
        if entry.complete and "limited" not in entry.flags and entry.fingerprints["backbone"] == about["fingerprint"]
    ]
    return max(entries, key=lambda entry: entry.modified).open(verify=True) if entries else None


def _featurized(
    cache: Path, dataset: str, split: str, about: dict[str, Any], data_dir: str | os.PathLike[str] | None,
    device: str, weights: str | None,
) -> FeatureFile:  # fmt: skip
    from mt.cache import open_features
    from mt.featurize import extract
    from mt.featurize.plan import Compute

    load_described(about, weights)  # refuses other weights before hours of work, not after
    description = about["description"] or {}
    results = extract(
        dataset, [about["name"]], splits=[split], data_dir=Path(data_dir) if data_dir else None, cache_dir=cache,
        weights=weights_of(about, weights), image_size=description.get("image_size"),
        compute=Compute(device=device, precision=description.get("precision", "float32")),
    )  # fmt: skip
    file = open_features(results[0].path)
    check_fingerprint(about, file.fingerprints["backbone"])
    return file


def _embed(backbone: Backbone, files: Sequence[Path], device: str) -> Array:
    from mt.datasets.images import decode
    from mt.featurize.embed import Embedder
    from mt.system.device import pick_device

    where = pick_device(device)
    backbone.model.to(where)
    precision = str(backbone.description["precision"])
    embedder = Embedder(backbone, where, precision=precision, batch_size=BATCH)
    side = backbone.preprocess.crop
    found = []
    with progress.bar(backbone.name, len(files)) as advance:
        for start in range(0, len(files), BATCH):
            part = files[start : start + BATCH]
            pixels = np.zeros((BATCH, side, side, 3), np.uint8)
            for row, file in enumerate(part):
                pixels[row] = backbone.preprocess.geometry(decode(file))
            found.append(embedder(pixels)[: len(part)].cpu().numpy())
            advance(len(part))
    return np.concatenate(found)


def _images(paths: Sequence[str | os.PathLike[str]]) -> Iterator[Path]:
    """Yield the files named, and every image in the folders named, in order; what a dataset passes over is no image."""
    from mt.datasets.images import SUFFIXES
    from mt.datasets.listing import list_images

    for path in map(Path, paths):
        if path.is_dir():
            inside = list_images(path, inside=path).images
            if not inside:
                raise InputError(f"No image in {path}. Expected files that end in {', '.join(sorted(SUFFIXES))}.")
            yield from (path / name for name in inside)
        elif path.exists():
            yield path
        else:
            raise InputError(f"No file {path}. Name images, or folders of images.")
