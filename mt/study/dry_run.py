"""What a study would do, and how large it is: `mt study FILE --dry-run`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mt.errors import MtError
from mt.study.request import StudyRequest
from mt.study.run import Step, load, steps

if TYPE_CHECKING:
    from mt.cache.catalog import Entry


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
            lines.append(StepSize(step.what, f"{step.work:,} fits", ""))
    return lines


def _features_size(request: StudyRequest, step: Step) -> StepSize:
    from mt.cache.catalog import Catalog

    dataset = step.what.partition(" ")[2]
    entries = [e for e in Catalog(request.cache).entries(datasets=[dataset], models=request.study.models) if e.complete]
    done = f"{len({entry.backbone for entry in entries})} of {step.work} backbones in the cache"
    rows = _rows(request, dataset, entries)
    if isinstance(rows, str):
        return StepSize(step.what, f"{step.work} backbones; not here yet: {rows}", done)
    size = sum(_width(model, entries) for model in request.study.models) * 4 * rows
    return StepSize(step.what, f"{step.work} backbones x {rows:,} images, about {size / 1e6:,.0f} MB", done)


def _rows(request: StudyRequest, dataset: str, entries: Sequence[Entry]) -> int | str:
    """Return the images of a dataset, from its features or its files; or why they cannot be counted."""
    if entries:
        splits = {(entry.split, entry.fingerprints["split"]): entry.n_rows for entry in entries}
        return sum(splits.values())
    try:
        found = load(request, dataset)
    except MtError as error:
        return str(error)
    return sum(len(split) for split in found.splits.values())


def _width(model: str, entries: Sequence[Entry]) -> int:
    """Return a backbone's embedding width; 2,048 stands for what only the network itself can say."""
    from mt.backbones.registry import find_spec

    known = {entry.backbone: entry.dim for entry in entries}
    return known.get(model) or find_spec(model).dim or 2048
