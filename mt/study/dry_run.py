"""The steps and the size of a study before it runs: `mt study FILE --dry-run`."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mt.errors import MtError
from mt.report.origins import NOT_OF_THE_DATASET, options_of
from mt.study.request import StudyRequest
from mt.study.run import Step, load, steps
from mt.terminal.progress import counted

if TYPE_CHECKING:
    from mt.cache.catalog import Entry
    from mt.datasets import Dataset
    from mt.study.study_file import StudyFile


@dataclass(frozen=True)
class StepSize:
    """A line of the plan: a step and how large it is, as far as that is known before it runs."""

    what: str
    size: str
    stored: str


def plan(request: StudyRequest) -> list[StepSize]:
    """Return every step with its size; nothing is computed, and no image is opened."""
    lines = []
    for step in steps(request):
        if step.unit == "backbones":
            lines.append(_features_size(request, step))
        else:
            lines.append(StepSize(step.what, _fits_size(request.study, step), ""))
    return lines


def _fits_size(study: StudyFile, step: Step) -> str:
    """Return the number of fits of a step; with test folds each fit has one model per fold."""
    folds = f", each of {study.test_folds} models: {study.folds_name} test folds" if study.test_folds else ""
    return f"{counted(step.work, 'fit')}{folds}"


def _features_size(request: StudyRequest, step: Step) -> StepSize:
    from mt.cache.catalog import Catalog
    from mt.cache.feature_file.format import is_shard

    try:
        dataset: Dataset | MtError = load(request, step.dataset)
    except MtError as error:
        dataset = error
    entries = Catalog(request.cache).entries(datasets=[step.dataset], models=request.study.models, everything=True)
    there = [entry for entry in entries if entry.complete and _is_wanted(entry, request.study, dataset)]
    done = f"{len({entry.backbone for entry in there if _is_whole(entry, there, dataset)})} of "
    done += f"{counted(step.work, 'backbone')} in the cache"
    shards = [entry for entry in entries if is_shard(entry.path) and _is_wanted(entry, request.study, dataset)]
    if shards:
        done += f"; {counted(len(shards), 'shard')}, joined if complete"
    if isinstance(dataset, MtError):
        return StepSize(step.what, f"{counted(step.work, 'backbone')}; not here yet: {dataset}", done)
    rows = sum(len(split) for split in dataset.splits.values())
    size = sum(_width(model, there) for model in request.study.models) * 4 * rows
    return StepSize(
        step.what, f"{counted(step.work, 'backbone')} x {counted(rows, 'image')}, about {size / 1e6:,.0f} MB", done
    )


def _is_wanted(entry: Entry, study: StudyFile, dataset: Dataset | MtError) -> bool:
    """Say whether a feature file was made by the study's backbone, on the dataset read with the study's settings."""
    from mt.backbones.load import resolve_backbone
    from mt.cache.content import ContentIndex

    size, precision = study.featurize.image_size, study.featurize.precision
    known = resolve_backbone(entry.backbone, None, size, precision=precision, index=ContentIndex())
    options = options_of(str(entry.manifest.get("command", "")))
    if known is None:  # never loaded here: compare what the file states
        same = (options.get("--image-size"), options.get("--precision", "float32")) == (str(size), precision)
    else:
        same = known.fingerprint == entry.fingerprints["backbone"]
    if isinstance(dataset, MtError):
        return same
    settings = {name: words for name, words in options.items() if name not in (*NOT_OF_THE_DATASET, "--dtype")}
    return same and settings == options_of(shlex.join(dataset.settings.words()))


def _is_whole(entry: Entry, there: Sequence[Entry], dataset: Dataset | MtError) -> bool:
    """Say whether every split of the dataset has features by the entry's backbone, with as many rows as it has now."""
    if isinstance(dataset, MtError):
        return True
    rows = {other.split: other.n_rows for other in there if other.backbone == entry.backbone}
    return rows == {name: len(split) for name, split in dataset.splits.items()}


def _width(model: str, entries: Sequence[Entry]) -> int:
    """Return a backbone's embedding width; 2,048 if only the loaded network would show it."""
    from mt.backbones.registry import find_spec

    known = {entry.backbone: entry.dim for entry in entries}
    return known.get(model) or find_spec(model).dim or 2048
