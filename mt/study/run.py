"""Runs a study: what is stored is skipped, what is missing is done, and the report comes last."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from mt.cache.fingerprint import JSON
from mt.fuse.rivals import needs_probes, rows_of
from mt.study.progress import Overall
from mt.study.request import StudyRequest

if TYPE_CHECKING:
    from mt.datasets import Dataset
    from mt.fuse.request import FuseRequest
    from mt.probe import run
    from mt.report.writing import WrittenReport
    from mt.results.store import Score
    from mt.study.study_file import StudyFile


@dataclass(frozen=True)
class StepOutcome:
    """What a step did, in words, and the scores that it brings."""

    said: str
    scores: Sequence[Score] = ()


@dataclass(frozen=True)
class Step:
    """One part of a study.  work: feature files or fits, the unit of progress."""

    what: str
    work: int
    unit: str
    run: Callable[[], StepOutcome]


@dataclass(frozen=True)
class FinishedStudy:
    """A finished study: its scores, once each, and the report."""

    scores: tuple[Score, ...]
    report: WrittenReport

    def facts(self) -> dict[str, JSON]:
        """Return what `--json` prints."""
        return {"page": str(self.report.page), "folder": str(self.report.folder), "n_scores": self.report.n_scores}


def steps(request: StudyRequest) -> list[Step]:
    """Return the steps of a study in order: features of a dataset, its probes, its fusions, dataset after dataset."""
    return [step for dataset in request.study.datasets for step in _steps_of(request, dataset)]


def run_study(request: StudyRequest) -> FinishedStudy:
    """Do what is missing, show one progress over all of it, and draw the report of the study's datasets.

    Interrupted, the same call goes on: every feature file resumes and every kept fit is found again.
    """
    todo = steps(request)
    shown = Overall(len(todo) + 1, sum(step.work for step in todo))
    scores: dict[str, Score] = {}
    with shown.watched():
        for step in todo:
            with shown.running(step.what, step.work):
                done = step.run()
            shown.note(f"{step.what}: {done.said}")
            scores |= {score.identity: score for score in done.scores}
        with shown.running("report", 0):
            return FinishedStudy(tuple(scores.values()), _report(request))


def print_finished(ran: FinishedStudy, request: StudyRequest) -> None:
    """Print a study's tables, one a dataset and protocol, and last where its report is."""
    from mt.probe.scores.paired import judged
    from mt.probe.tables import print_tables
    from mt.results.store import ScoreStore

    with ScoreStore(request.scores) as store:
        for protocol in dict.fromkeys(score.protocol for score in ran.scores):
            print_tables(judged([score for score in ran.scores if score.protocol == protocol], store))
    print(f"{ran.report.n_scores} scores: {ran.report.page}{'' if ran.report.drawn else ' (as it was)'}")


def _steps_of(request: StudyRequest, dataset: str) -> list[Step]:
    study, n_models = request.study, len(request.study.models)
    found = [Step(f"featurize {dataset}", n_models, "backbones", partial(_featurize, request, dataset))]
    for protocol in study.protocols if "probe" in study.methods else ():
        run = partial(_probe, request, dataset, protocol)
        found.append(Step(f"probe {dataset}, {protocol}", n_models * study.draws.count, "fits", run))
    if study.fusing:
        rows = rows_of(study.fusing)
        work = (len(rows) + n_models * needs_probes(rows)) * study.fused.count
        found.append(Step(f"fuse {dataset}", work, "fits", partial(_fuse, request, dataset)))
    if "fine-tune" in study.methods:
        work = len(_fine_tuned(study)) * study.fused.count
        found.append(Step(f"fine-tune {dataset}", work, "fits", partial(_fine_tune, request, dataset)))
    return found


def _featurize(request: StudyRequest, dataset: str) -> StepOutcome:
    from mt.featurize.extraction import extract
    from mt.featurize.request import Compute, FeaturizeRequest

    asked = request.study.featurize
    results = extract(
        FeaturizeRequest(
            [load(request, dataset)], request.study.models, cache_dir=request.cache, image_size=asked.image_size,
            compute=Compute(device=request.device, precision=asked.precision),
        )
    )  # fmt: skip
    made = sum(not result.cached for result in results)
    return StepOutcome(f"{len(results)} feature files, {made} made now")


def load(request: StudyRequest, name: str) -> Dataset:
    """Return a dataset as the study's settings read it; no image is opened."""
    from mt.datasets import load_dataset

    settings = request.study.settings_of(name).model_dump()
    place = settings.pop("data_dir")
    return load_dataset(name, Path(place) if place else None, **settings)


def _probe(request: StudyRequest, dataset: str, protocol: str) -> StepOutcome:
    from mt.probe.request import ProbeRequest
    from mt.probe.run import run_probe

    study = request.study
    return _outcome(run_probe(
        ProbeRequest(
            request.cache, models=study.models, datasets=[dataset], **study.draws.model_dump(), protocol=protocol,
            scores=request.scores, device=request.device,
        )
    ))  # fmt: skip


def _fuse(request: StudyRequest, dataset: str) -> StepOutcome:
    from mt.fuse.run import run_fuse

    return _outcome(run_fuse(_fusing(request, dataset, request.study.models, request.study.fusing)))


def _fusing(request: StudyRequest, dataset: str, models: Sequence[str], methods: Sequence[str]) -> FuseRequest:
    """Return what is fitted on the cached features of these models."""
    from mt.fuse.request import FuseRequest

    return FuseRequest(
        request.cache, models=models, datasets=[dataset], methods=methods, **request.study.fused.model_dump(),
        scores=request.scores, device=request.device,
    )  # fmt: skip


def _fine_tuned(study: StudyFile) -> list[tuple[str, ...]]:
    """Return what is trained end to end: every model, and all of them as DVME where that is named."""
    return [*((model,) for model in study.models), *([study.models] if "dvme" in study.methods else [])]


def _fine_tune(request: StudyRequest, dataset: str) -> StepOutcome:
    from mt.fuse.end_to_end.request import FinetuneRequest
    from mt.fuse.end_to_end.run import run_unfrozen

    ran, data_dir = [], request.study.settings_of(dataset).data_dir
    for models in _fine_tuned(request.study):
        cached = _fusing(request, dataset, models, ["dvme"] if len(models) > 1 else [])
        ran.append(run_unfrozen(FinetuneRequest(cached, data_dir=data_dir)))
    done = [one for one in ran if one is not None]
    fitted, stored = (sum(getattr(one, name) for one in done) for name in ("n_fitted", "n_stored"))
    return StepOutcome(f"{fitted} fitted, {stored} stored", [score for one in done for score in one.scores])


def _outcome(ran: run.Answers) -> StepOutcome:
    return StepOutcome(f"{ran.n_fitted} fitted, {ran.n_stored} stored", ran.scores)


def _report(request: StudyRequest) -> WrittenReport:
    from mt.cache.catalog import Catalog
    from mt.report.charts.embedding import Maps
    from mt.report.request import ReportRequest
    from mt.report.writing import write_report
    from mt.results.store import ScoreStore

    with ScoreStore(request.scores) as store:
        names = _shown_names(request, {score.dataset for score in store.scores()})
        asked = ReportRequest(request.page, datasets=tuple(names), maps=Maps(Catalog(request.cache)), again=False)
        return write_report(store, asked)


def _shown_names(request: StudyRequest, known: set[str]) -> list[str]:
    """Return the names that scores carry for the study's datasets: `folder:PATH` is kept as `folder:NAME`."""
    from mt.cache.catalog import Catalog

    entries = Catalog(request.cache).entries(datasets=request.study.datasets)
    names = {entry.dataset for entry in entries} | set(request.study.datasets)
    return sorted(name for name in known if name.partition("@")[0] in names or name in names)
