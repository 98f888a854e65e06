"""Runs a study: skips what is stored, does what is missing, and draws the report."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mt.cache.names import JSON
from mt.errors import DatasetError, MtError
from mt.fuse.rivals import needs_probes, rows_of
from mt.study.progress import Overall
from mt.study.request import StudyRequest
from mt.terminal.progress import counted

if TYPE_CHECKING:
    from mt.datasets import Dataset
    from mt.featurize.loaded import LoadedBackbones
    from mt.featurize.request import FeaturizeRequest
    from mt.fuse.request import FuseRequest
    from mt.probe.request import Answers
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
    dataset: str
    work: int
    unit: str
    run: Callable[[], StepOutcome]


@dataclass(frozen=True)
class FinishedStudy:
    """A finished study: its scores, once each, the report, and what of the plan is missing, in words."""

    scores: tuple[Score, ...]
    report: WrittenReport
    missing: tuple[str, ...] = ()

    def facts(self) -> dict[str, JSON]:
        """Return what `--json` prints."""
        return {
            "page": str(self.report.page),
            "folder": str(self.report.folder),
            "n_scores": self.report.n_scores,
            "missing": list(self.missing),
        }


def steps(request: StudyRequest) -> list[Step]:
    """Return the steps of a study in order: features of a dataset, its probes, its fusions, dataset after dataset."""
    backbones = cache(partial(_backbones, request))
    return [step for dataset in request.study.datasets for step in _DatasetSteps(request, dataset, backbones).steps()]


def run_study(request: StudyRequest) -> FinishedStudy:
    """Do what is missing, show one progress over all of it, and draw the report of the study's scores.

    After an interruption the same call resumes: feature files are continued, and kept fits are found again.
    If a step fails, a line says so, and the later steps of its dataset are left for the next call; other datasets are
    done.  Raises the first error if no step brought a score.
    """
    todo = steps(request)
    shown = Overall(len(todo) + 1, sum(step.work for step in todo))
    scores: dict[str, Score] = {}
    missing: dict[str, str] = {}
    failed: dict[str, MtError] = {}
    with shown.watched():
        for step in todo:
            if step.dataset in failed:
                missing[step.what] = f"{step.what}: not tried"
                continue
            try:
                with shown.running(step.what, step.work):
                    done = step.run()
            except MtError as error:
                failed[step.dataset] = error
                missing[step.what] = f"{step.what}: {error}"
                shown.note(f"Missing: {missing[step.what]}")
                continue
            shown.note(f"{step.what}: {done.said}")
            scores |= {score.identity: score for score in done.scores}
        if failed and not scores:
            raise next(iter(failed.values()))
        with shown.running("report", 0):
            found = tuple(scores.values())
            return FinishedStudy(found, _report(request, found, tuple(missing.values())), tuple(missing.values()))


class _DatasetSteps:
    """The steps of one dataset.  The first makes feature files; the others use these files and no others.

    Otherwise newer features of the same dataset, made with other settings, would take their place.
    backbones: returns the backbones that all datasets of the study share.
    """

    def __init__(self, request: StudyRequest, dataset: str, backbones: Callable[[], LoadedBackbones]) -> None:
        self.request, self.dataset, self.backbones = request, dataset, backbones
        self.files: frozenset[Path] = frozenset()

    def steps(self) -> list[Step]:
        study, n_models = self.request.study, len(self.request.study.models)
        found = [self._step("featurize {}", n_models, self._featurize, unit="backbones")]
        for protocol in study.protocols if "probe" in study.methods else ():
            work = n_models * study.draws.count * study.repeats
            found.append(self._step(f"probe {{}}, {protocol}", work, partial(self._probe, protocol)))
        if study.fusing:
            rows = rows_of(study.fusing)
            work = (len(rows) + n_models * needs_probes(rows)) * study.fused.count * study.repeats
            found.append(self._step("fuse {}", work, self._fuse))
        if "fine-tune" in study.methods:
            found.append(self._step("fine-tune {}", len(_fine_tuned(study)) * study.fused.count, self._fine_tune))
        return found

    def _step(self, what: str, work: int, run: Callable[[], StepOutcome], *, unit: str = "fits") -> Step:
        return Step(what.format(self.dataset), self.dataset, work, unit, run)

    def _featurize(self) -> StepOutcome:
        from mt.featurize.extraction import extract
        from mt.study.joined_shards import join_parts

        request = _featurizing(self.request, [load(self.request, self.dataset)])
        joined = join_parts(request, self.backbones())
        with _naming_the_key():
            results = extract(request, backbones=self.backbones())
        self.files = frozenset(result.path for result in results)
        made = sum(not result.cached for result in results)
        of_shards = f", {joined} joined from shards" if joined else ""
        return StepOutcome(f"{counted(len(results), 'feature file')}, {made} made now{of_shards}")

    def _probe(self, protocol: str) -> StepOutcome:
        from mt.probe.request import ProbeRequest
        from mt.probe.run import run_probe

        request, study = self.request, self.request.study
        return _outcome(
            run_probe(
                ProbeRequest(
                    request.cache,
                    models=study.models,
                    datasets=[self.dataset],
                    **study.draws.model_dump(),
                    protocol=protocol,
                    primary=study.primary,
                    **_decisions(study),
                    scores=request.scores,
                    device=request.fitting_device,
                    files=self.files,
                    test_folds=study.test_folds,
                    repeats=study.repeats,
                )
            )
        )

    def _fuse(self) -> StepOutcome:
        from mt.fuse.run import run_fuse

        return _outcome(run_fuse(self._fusing(self.request.study.models, self.request.study.fusing)))

    def _fusing(self, models: Sequence[str], methods: Sequence[str]) -> FuseRequest:
        """Return what is fitted on the cached features of these models."""
        from mt.fuse.request import FuseRequest

        request = self.request
        return FuseRequest(
            request.cache,
            models=models,
            datasets=[self.dataset],
            methods=methods,
            scores=request.scores,
            device=request.fitting_device,
            files=self.files,
            **request.study.fused.model_dump(),
            primary=_fused_primary(request.study),
            **_decisions(request.study),
            test_folds=request.study.test_folds,
            repeats=request.study.repeats,
        )

    def _fine_tune(self) -> StepOutcome:
        from mt.fuse.end_to_end.request import FinetuneRequest
        from mt.fuse.end_to_end.run import run_unfrozen

        ran, data_dir = [], self.request.study.settings_of(self.dataset).data_dir
        for models in _fine_tuned(self.request.study):
            # A threshold and scaling need out-of-fold scores, which training end to end does not give.
            cached = replace(self._fusing(models, ["dvme"] if len(models) > 1 else []), **_UNDECIDED)
            ran.append(run_unfrozen(FinetuneRequest(cached, data_dir=data_dir)))
        done = [one for one in ran if one is not None]
        fitted, stored = (sum(getattr(one, name) for one in done) for name in ("n_fitted", "n_stored"))
        return StepOutcome(f"{fitted} fitted, {stored} stored", [score for one in done for score in one.scores])


_UNDECIDED: dict[str, Any] = dict.fromkeys(("threshold", "prevalence", "calibrate"))


def _decisions(study: StudyFile) -> dict[str, Any]:
    """Return the options of a request that choose thresholds and scale probabilities."""
    return {name: getattr(study, name) for name in _UNDECIDED}


def _fused_primary(study: StudyFile) -> str | None:
    """Return the primary metric and budget that the study declares, if fusing has this budget too."""
    from mt.probe.questions import budgets
    from mt.probe.scores.declared import Primary

    has = study.primary and Primary.parsed(study.primary).budget in budgets(study.fused.fractions, study.fused.shots)
    return study.primary if has else None


def _featurizing(request: StudyRequest, datasets: Sequence[Dataset]) -> FeaturizeRequest:
    from mt.featurize.request import Compute, FeaturizeRequest

    asked = request.study.featurize
    return FeaturizeRequest(
        datasets,
        request.study.models,
        cache_dir=request.cache,
        image_size=asked.image_size,
        compute=Compute(
            device=request.device, precision=asked.precision, engine=request.engine, on_error=asked.on_error
        ),
    )


def _backbones(request: StudyRequest) -> LoadedBackbones:
    """Return the backbones of a study: each is loaded when a dataset first needs it, and stays for the others."""
    from mt.cache.content import ContentIndex
    from mt.featurize.loaded import LoadedBackbones

    return LoadedBackbones(_featurizing(request, []), ContentIndex())


def load(request: StudyRequest, name: str) -> Dataset:
    """Return a dataset as the study's settings read it; no image is opened."""
    from mt.datasets import load_dataset

    settings = request.study.settings_of(name).model_dump()
    place = settings.pop("data_dir")
    with _naming_the_key():
        on_error = request.study.featurize.on_error
        return load_dataset(name, Path(place) if place else None, on_error=on_error, **settings)


@contextmanager
def _naming_the_key() -> Iterator[None]:
    """Name the key of the study file where a message about images names the option of `mt featurize`."""
    try:
        yield
    except DatasetError as error:
        raise DatasetError(str(error).replace("--on-error skip", 'on_error = "skip" under [featurize]')) from None


def _fine_tuned(study: StudyFile) -> list[tuple[str, ...]]:
    """Return what is trained end to end: every model, and all of them as DVME where that is named."""
    return [*((model,) for model in study.models), *([study.models] if "dvme" in study.methods else [])]


def _outcome(ran: Answers) -> StepOutcome:
    return StepOutcome(f"{ran.n_fitted} fitted, {ran.n_stored} stored", ran.scores)


def _report(request: StudyRequest, scores: Sequence[Score], missing: tuple[str, ...]) -> WrittenReport:
    """Draw the report of the study's own scores, whatever else the database holds."""
    from mt.cache.catalog import Catalog
    from mt.probe.request import Margin
    from mt.report.charts.embedding import Maps
    from mt.report.request import ReportRequest
    from mt.report.writing import write_report
    from mt.results.store import ScoreStore

    catalog = Catalog(request.cache)
    own = frozenset(score.identity for score in scores)
    asked = ReportRequest(
        request.page,
        only=own,
        missing=missing,
        catalog=catalog,
        maps=Maps(catalog),
        margin=Margin.of(request.study.margin, request.study.reference),
        again=False,
    )
    with ScoreStore(request.scores) as store:
        return write_report(store, asked)
