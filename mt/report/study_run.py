"""Runs a study: what is stored is skipped, what is missing is done, and the report comes last."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from mt import folders
from mt.errors import MtError
from mt.report.study import Study
from mt.report.study_progress import Overall

if TYPE_CHECKING:
    from mt.cache.catalog import Entry
    from mt.report.write import Report


# What one run of `mt fuse` answers beside the single models, whichever of them a study names.
_FUSED = ("best-single", "average", "concat", "dvme")
FINE_TUNING = "left out: training the backbones is not in this version"


@dataclass(frozen=True)
class Places:
    """Where a study reads and writes, and what it computes on."""

    cache: Path
    scores: Path
    device: str = "auto"


@dataclass(frozen=True)
class Step:
    """One part of a study.  work: feature files or fits, the unit of progress; run returns what it did, in words."""

    what: str
    work: int
    unit: str
    run: Callable[[], str]


def places(cache_dir: str | None = None, scores: str | None = None, device: str = "auto") -> Places:
    """Return the folders as every command finds them."""
    cache = folders.cache_dir(cache_dir)
    return Places(cache, folders.scores_path(scores, cache), device)


def steps(study: Study, where: Places) -> list[Step]:
    """Return the steps of a study in order: features of a dataset, its probes, its fusions, dataset after dataset."""
    return [step for dataset in study.datasets for step in _steps_of(study, dataset, where)]


def run_study(study: Study, where: Places, *, out: Path | None = None) -> Report:
    """Do what is missing, show one progress over all of it, and draw the report of the study's datasets.

    Interrupted, the same call goes on: every feature file resumes and every kept fit is found again.
    """
    todo = steps(study, where)
    shown = Overall(len(todo) + 1, sum(step.work for step in todo))
    with shown.watched():
        for step in todo:
            with shown.running(step.what, step.work):
                done = step.run()
            shown.note(f"{step.what}: {done}")
        with shown.running("report", 0):
            return _report(study, where, out)


def _steps_of(study: Study, dataset: str, where: Places) -> list[Step]:
    draws, models = study.n_budget_draws, study.models
    found = [Step(f"featurize {dataset}", len(models), "backbones", partial(_featurize, study, dataset, where))]
    for protocol in study.protocols if "probe" in study.methods else ():
        run = partial(_probe, study, dataset, protocol, where)
        found.append(Step(f"probe {dataset}, {protocol}", len(models) * draws, "fits", run))
    if study.fusing:
        run = partial(_fuse, study, dataset, where)
        found.append(Step(f"fuse {dataset}", (len(models) + len(_FUSED)) * draws, "fits", run))
    if "fine-tune" in study.methods:
        found.append(Step(f"fine-tune {dataset}", 0, "fits", lambda: FINE_TUNING))
    return found


def _featurize(study: Study, dataset: str, where: Places) -> str:
    from mt.featurize.extraction import extract
    from mt.featurize.plan import Compute

    asked = study.featurize
    results = extract(
        dataset, study.models, cache_dir=where.cache, data_dir=data_dir(study), image_size=asked.get("image_size"),
        compute=Compute(device=where.device, precision=asked.get("precision", "float32")),
    )  # fmt: skip
    made = sum(not result.cached for result in results)
    return f"{len(results)} feature files, {made} made now"


def data_dir(study: Study) -> Path | None:
    """Return the study's folder of datasets; a relative one is meant from the study file."""
    given = study.featurize.get("data_dir")
    return study.path.absolute().parent / Path(given).expanduser() if given else None


def _probe(study: Study, dataset: str, protocol: str, where: Places) -> str:
    from mt.probe.evaluate import run_probe

    ran = run_probe(
        where.cache, models=study.models, datasets=[dataset], fractions=study.fractions, shots=study.shots,
        seeds=study.seeds, protocol=protocol, scores=where.scores, device=where.device,
    )  # fmt: skip
    return f"{ran.n_fitted} fitted, {ran.n_stored} stored"


def _fuse(study: Study, dataset: str, where: Places) -> str:
    from mt.fuse.evaluate import run_fuse

    ran = run_fuse(
        where.cache, models=study.models, datasets=[dataset], fractions=study.fractions, shots=study.shots,
        seeds=study.seeds, scores=where.scores, device=where.device,
    )  # fmt: skip
    return f"{ran.n_fitted} fitted, {ran.n_stored} stored"


def _report(study: Study, where: Places, out: Path | None) -> Report:
    from mt.cache.catalog import Catalog
    from mt.cache.scores import ScoreStore
    from mt.report.embedding import Maps
    from mt.report.write import write_report

    page = out or study.path.absolute().parent / study.report.get("out", "report.html")
    with ScoreStore(where.scores) as store:
        names = _shown_names(study, where, {score.dataset for score in store.scores()})
        return write_report(store, page, datasets=names, maps=Maps(Catalog(where.cache)))


def _shown_names(study: Study, where: Places, known: set[str]) -> list[str]:
    """Return the names that scores carry for the study's datasets: `folder:PATH` is kept as `folder:NAME`."""
    from mt.cache.catalog import Catalog

    entries = Catalog(where.cache).entries(datasets=study.datasets)
    names = {entry.dataset for entry in entries} | set(study.datasets)
    return sorted(name for name in known if name.partition("@")[0] in names or name in names)


@dataclass(frozen=True)
class Size:
    """A line of the plan: a step and how large it is, as far as that is known before it runs."""

    what: str
    size: str
    stored: str


def plan(study: Study, where: Places) -> list[Size]:
    """Return every step with its size; nothing is computed, and no image is opened."""
    lines = []
    for step in steps(study, where):
        if step.unit == "backbones":
            lines.append(_features_size(study, step, where))
        else:
            lines.append(Size(step.what, f"{step.work:,} fits" if step.work else FINE_TUNING, ""))
    return lines


def _features_size(study: Study, step: Step, where: Places) -> Size:
    from mt.cache.catalog import Catalog

    dataset = step.what.partition(" ")[2]
    entries = [e for e in Catalog(where.cache).entries(datasets=[dataset], models=study.models) if e.complete]
    done = f"{len({entry.backbone for entry in entries})} of {step.work} backbones in the cache"
    rows = _rows(study, dataset, entries)
    if isinstance(rows, str):
        return Size(step.what, f"{step.work} backbones; not here yet: {rows}", done)
    size = sum(_width(model, entries) for model in study.models) * 4 * rows
    return Size(step.what, f"{step.work} backbones x {rows:,} images, about {size / 1e6:,.0f} MB", done)


def _rows(study: Study, dataset: str, entries: Sequence[Entry]) -> int | str:
    """Return the images of a dataset, from its features or its files; or why they cannot be counted."""
    if entries:
        splits = {(entry.split, entry.fingerprints["split"]): entry.n_rows for entry in entries}
        return sum(splits.values())
    from mt.featurize.datasets import load_dataset

    try:
        found = load_dataset(dataset, data_dir(study))
    except MtError as error:
        return str(error)
    return sum(len(split) for split in found.splits.values())


def _width(model: str, entries: Sequence[Entry]) -> int:
    """Return a backbone's embedding width; 2,048 stands for what only the network itself can say."""
    from mt.featurize.registry import find_spec

    known = {entry.backbone: entry.dim for entry in entries}
    return known.get(model) or find_spec(model).dim or 2048
