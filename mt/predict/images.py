"""Predicting for image files: embedded by the backbones that the model was fitted on, one row per image."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from mt.backbones.recorded import load_described, refuse_imported
from mt.datasets.settings import decoding_of
from mt.errors import DatasetError, InputError, MtError
from mt.predict.load import is_end_to_end, load_model, stated
from mt.predict.predicted import Predictions
from mt.system.device import decoders, first_device
from mt.terminal import progress
from mt.types import Array

if TYPE_CHECKING:
    from mt.backbones import Backbone
    from mt.datasets.decoding.rules import Decoding
    from mt.predict.request import PredictRequest

BATCH = 32  # images at a time, the last batch padded: a result does not depend on its neighbours


def predict_images(request: PredictRequest) -> Predictions:
    """Predict for image files, and for all images in folders; ids are the paths.

    Raises InputError for a request or a saved model that cannot be used, WeightsError if a backbone's weights are
    missing or different, and DatasetError for an unreadable image unless the request skips it.
    """
    request = replace(request, device=first_device(request.device, "mt predict on image files"))
    if is_end_to_end(request.model):
        from mt.fuse.end_to_end.saved import load_tuned

        request.check_end_to_end()
        tuned = load_tuned(request.model)
        names, files, problems = _readable(request, decoding_of(tuned.about))
        _, p = tuned.predict_files(files, device=request.device)
        return Predictions(names, p, tuned.class_names, tuned.task, problems)
    saved = load_model(request.model)
    for about in saved.backbones:
        refuse_imported(about)
    decoding = decoding_of(saved.about)
    names, files, problems = _readable(request, decoding)
    embeddings = [
        _embed(load_described(about, request.weights, request.trust_remote_code), files, decoding, request.device)
        for about in saved.backbones
    ]
    for line in stated(saved):
        progress.note(line)
    p = saved.predict_proba(embeddings)
    return Predictions(names, p, saved.class_names, saved.task, problems, saved.thresholds)


def _readable(request: PredictRequest, decoding: Decoding) -> tuple[list[str], list[Path], dict[str, str] | None]:
    """Return the names of all files, the readable files, and the problems of skipped ones (None: do not skip).

    Every file is decoded once before a network runs.  Raises DatasetError for an unreadable one unless it is skipped,
    and InputError if no file can be read.
    """
    files = list(_images(request.images))
    with ThreadPoolExecutor(decoders()) as pool, progress.bar("reading", len(files)) as advance:
        errors: dict[Path, MtError] = {}
        for file, error in zip(files, pool.map(partial(_problem, decoding=decoding), files), strict=True):
            advance(1)
            if error is not None:
                errors[file] = error
    if errors and request.on_error == "raise":
        first = next(iter(errors.values()))
        more = f" ({len(errors)} of {len(files)} images cannot be read.)" if len(errors) > 1 else ""
        raise DatasetError(f"{str(first).removesuffix('.')}.{more} Omit such images: --on-error skip")
    good = [file for file in files if file not in errors]
    if not good:
        raise InputError(f"None of {len(files)} images can be read, first: {next(iter(errors.values()))}")
    problems = {str(file): str(error) for file, error in errors.items()}
    return [str(file) for file in files], good, problems if request.on_error == "skip" else None


def _problem(file: Path, decoding: Decoding) -> MtError | None:
    from mt.datasets.image_file import decode

    try:
        decode(file, decoding)
    except MtError as error:
        return error
    return None


def _embed(backbone: Backbone, files: Sequence[Path], decoding: Decoding, device: str) -> Array:
    from mt.datasets.image_file import decode
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
                pixels[row] = backbone.preprocess.geometry(decode(file, decoding))
            found.append(embedder(pixels)[: len(part)].cpu().numpy())
            advance(len(part))
    return np.concatenate(found)


def _images(paths: Sequence[str | os.PathLike[str]]) -> Iterator[Path]:
    """Yield the files named, and every image in the folders named, in order; omit files that a dataset ignores."""
    from mt.cache.content import ContentIndex
    from mt.datasets.dicom.headers import Headers
    from mt.datasets.image_file import SUFFIXES
    from mt.datasets.listing import list_images

    headers = Headers(ContentIndex())
    for path in map(Path, paths):
        if path.is_dir():
            inside = list_images(path, inside=path, headers=headers).images
            if not inside:
                known = ", ".join(sorted(SUFFIXES))
                raise InputError(f"No image in {path}. Expected DICOM files, or names that end in {known}.")
            yield from (path / name for name in inside)
        elif path.exists():
            yield path
        else:
            raise InputError(f"No file {path}. Name images, or folders of images.")
