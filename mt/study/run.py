"""Runs a study: what is stored is skipped, what is missing is done, and the report comes last."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from mt.cache.fingerprint import JSON
from mt.fuse.rivals import needs_probes, rows_of
from mt.study.progress import Overall
from mt.study.study_file import Study
from mt.system import folders

if TYPE_CHECKING:
    from mt.probe import run
    from mt.report.write import Report
    from mt.results.store import Score


@dataclass(frozen=True)
class Places:
    """Where a study reads and writes, and what it computes on."""

    cache: Path
    scores: Path
    device: str = "auto"


@dataclass(frozen=True)
class Done:
    """What a step did, in words, and the scores that it brings."""

    said: str
    scores: Sequence[Score] = ()


@dataclass(frozen=True)
class Step:
    """One part of a study.  work: feature files or fits, the unit of progress."""

    what: str
    work: int
    unit: str
    run: Callable[[], Done]


@dataclass(frozen=True)
class Ran:
    """A finished study: its scores, once each, and the report."""

    scores: tuple[Score, ...]
    report: Report

    def facts(self) -> dict[str, JSON]:
        """Return what `--json` prints."""
        return {"page": str(self.report.page), "folder": str(self.report.folder), "n_scores": self.report.n_scores}


def places(cache_dir: str | None = None, scores: str | None = None, device: str = "auto") -> Places:
    """Return the folders as every command finds them."""
    cache = folders.cache_dir(cache_dir)
    return Places(cache, folders.scores_path(scores, cache), device)


def steps(study: Study, where: Places) -> list[Step]:
    """Return the steps of a study in order: features of a dataset, its probes, its fusions, dataset after dataset."""
    return [step for dataset in study.datasets for step in _steps_of(study, dataset, where)]


def run_study(study: Study, where: Places, *, out: Path | None = None) -> Ran:
    """Do what is missing, show one progress over all of it, and draw the report of the study's datasets.

    Interrupted, the same call goes on: every feature file resumes and every kept fit is found again.
    """
    todo = steps(study, where)
    shown = Overall(len(todo) + 1, sum(step.work for step in todo))
    scores: dict[str, Score] = {}
    with shown.watched():
        for step in todo:
            with shown.running(step.what, step.work):
                done = step.run()
            shown.note(f"{step.what}: {done.said}")
            scores |= {score.identity: score for score in done.scores}
        with shown.running("report", 0):
            return Ran(tuple(scores.values()), _report(study, where, out))


def print_ran(ran: Ran, where: Places) -> None:
    """Print a study's tables, one a dataset and protocol, and last where its report is."""
    from mt.probe.run import Study as Scored
    from mt.probe.tables import print_study

    for protocol in dict.fromkeys(score.protocol for score in ran.scores):
        scores = [score for score in ran.scores if score.protocol == protocol]
        print_study(Scored(scores, 0, len(scores), where.scores))
    print(f"{ran.report.n_scores} scores: {ran.report.page}{'' if ran.report.drawn else ' (as it was)'}")


def _steps_of(study: Study, dataset: str, where: Places) -> list[Step]:
    n_models = len(study.models)
    found = [Step(f"featurize {dataset}", n_models, "backbones", partial(_featurize, study, dataset, where))]
    for protocol in study.protocols if "probe" in study.methods else ():
        run = partial(_probe, study, dataset, protocol, where)
        found.append(Step(f"probe {dataset}, {protocol}", n_models * study.draws.count, "fits", run))
    if study.fusing:
        rows = rows_of(study.fusing)
        work = (len(rows) + n_models * needs_probes(rows)) * study.fused.count
        found.append(Step(f"fuse {dataset}", work, "fits", partial(_fuse, study, dataset, where)))
    if "fine-tune" in study.methods:
        work = len(_fine_tuned(study)) * study.fused.count
        found.append(Step(f"fine-tune {dataset}", work, "fits", partial(_fine_tune, study, dataset, where)))
    return found


def _featurize(study: Study, dataset: str, where: Places) -> Done:
    from mt.featurize.extraction import extract
    from mt.featurize.plan import Compute

    asked = study.featurize
    results = extract(
        dataset, study.models, cache_dir=where.cache, data_dir=data_dir(study), image_size=asked.get("image_size"),
        compute=Compute(device=where.device, precision=asked.get("precision", "float32")),
    )  # fmt: skip
    made = sum(not result.cached for result in results)
    return Done(f"{len(results)} feature files, {made} made now")


def data_dir(study: Study) -> Path | None:
    """Return the study's folder of datasets; a relative one is meant from the study file."""
    given = study.featurize.get("data_dir")
    return study.path.absolute().parent / Path(given).expanduser() if given else None


def _probe(study: Study, dataset: str, protocol: str, where: Places) -> Done:
    from mt.probe.run import run_probe

    return _done(
        run_probe(
            where.cache, models=study.models, datasets=[dataset], **asdict(study.draws), protocol=protocol,
            scores=where.scores, device=where.device,
        )
    )  # fmt: skip


def _fuse(study: Study, dataset: str, where: Places) -> Done:
    from mt.fuse.run import run_fuse

    return _done(
        run_fuse(
            where.cache, models=study.models, datasets=[dataset], methods=study.fusing, **asdict(study.fused),
            scores=where.scores, device=where.device,
        )
    )  # fmt: skip


def _fine_tuned(study: Study) -> list[tuple[str, ...]]:
    """Return what is trained end to end: every model, and all of them as DVME where that is named."""
    return [*((model,) for model in study.models), *([study.models] if "dvme" in study.methods else [])]


def _fine_tune(study: Study, dataset: str, where: Places) -> Done:
    from mt.fuse.end_to_end.request import Machine
    from mt.fuse.end_to_end.run import run_unfrozen

    ran = [
        run_unfrozen(
            where.cache, models=models, datasets=[dataset], methods=["dvme"] if len(models) > 1 else [],
            **asdict(study.fused), scores=where.scores, data_dir=data_dir(study), machine=Machine(device=where.device),
        )
        for models in _fine_tuned(study)
    ]  # fmt: skip
    done = [one for one in ran if one is not None]
    fitted, stored = (sum(getattr(one, name) for one in done) for name in ("n_fitted", "n_stored"))
    return Done(f"{fitted} fitted, {stored} stored", [score for one in done for score in one.scores])


def _done(ran: run.Study) -> Done:
    return Done(f"{ran.n_fitted} fitted, {ran.n_stored} stored", ran.scores)


def _report(study: Study, where: Places, out: Path | None) -> Report:
    from mt.cache.catalog import Catalog
    from mt.report.charts.embedding import Maps
    from mt.report.write import write_report
    from mt.results.store import ScoreStore

    page = out or study.path.absolute().parent / study.report.get("out", "report.html")
    with ScoreStore(where.scores) as store:
        names = _shown_names(study, where, {score.dataset for score in store.scores()})
        return write_report(store, page, datasets=names, maps=Maps(Catalog(where.cache)), again=False)


def _shown_names(study: Study, where: Places, known: set[str]) -> list[str]:
    """Return the names that scores carry for the study's datasets: `folder:PATH` is kept as `folder:NAME`."""
    from mt.cache.catalog import Catalog

    entries = Catalog(where.cache).entries(datasets=study.datasets)
    names = {entry.dataset for entry in entries} | set(study.datasets)
    return sorted(name for name in known if name.partition("@")[0] in names or name in names)
