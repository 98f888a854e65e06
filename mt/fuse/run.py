"""The fusion study: every single model, the baselines and DVME, on the same draws and test cases, into one store."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from mt.cache.catalog import Catalog
from mt.errors import InputError
from mt.fuse.aligned import join_pairs, leave_one_out
from mt.fuse.fuser import Fuser, identity_of
from mt.fuse.fusion_needs import check_fusions
from mt.fuse.request import FuseRequest
from mt.fuse.rivals import needs_probes
from mt.probe.budgets.draw import Asked, DrawSource
from mt.probe.budgets.random_draws import draw_source
from mt.probe.protocols import Fitting, get_protocol
from mt.probe.questions import Budget, Pair, Question, find_pairs, with_bags
from mt.probe.request import Answers, decisions_of
from mt.probe.run import (
    Answering,
    Prober,
    ask_decided,
    folded_of,
)
from mt.probe.saved import ModelFolder
from mt.probe.scores.declared import declare_primary, metrics_asked
from mt.probe.scores.scoring import Scorer, check_metrics
from mt.results.store import ScoreStore
from mt.system import files
from mt.system.device import pick_device

if TYPE_CHECKING:
    from mt.probe.cross_validation.fold_answers import CrossValidation, PartStore
    from mt.probe.decisions.decided import Decider

Drawn = tuple[Budget, int]
ABLATIONS = ("dvme-random", "dvme-plain", "dvme-uniform")


def run_fuse(request: FuseRequest) -> Answers:
    """Fuse cached features: DVME and its baselines for every dataset, at every budget, for every seed.

    Raises InputError, CacheError and FitError.
    """
    request.check()
    request = replace(request, metrics=metrics_asked(request))
    source = draws_of(request)
    folded = folded_of(request, source)
    cache = files.cache_dir(request.cache_dir)
    pick_device(request.device, float64=True)  # refuses an absent one before anything is read
    pairs = find_pairs(
        Catalog(cache, request.files),
        models=request.models,
        datasets=request.datasets,
        join=folded is not None,
        everything=request.everything,
    )
    pairs = with_bags(pairs, None, None)
    joined = join_pairs(pairs, named=bool(request.datasets))
    check_metrics(request.metrics, joined)
    decisions = decisions_of(request.threshold, request.calibrate, request.prevalence, joined)
    draws = folded.draws if folded else source
    fitting = Fitting(get_protocol("default"), "torch", request.device)
    plan = _Plan(fitting, draws.asked(request.fractions, request.shots, request.seeds))
    for pair in joined:
        singles = [one for one in pairs if (one.dataset, one.test_dataset) == (pair.dataset, pair.test_dataset)]
        plan.add(pair, singles, request.rows, ablations=request.ablations)
    with ScoreStore(files.scores_path(request.scores, cache)) as store:
        declare_primary(request, joined, store)
        scorer = Scorer(store, decisions.shown(request.metrics) if decisions else request.metrics)
        decider = decisions.decider(store) if decisions else None
        prober: Answering = Prober(fitting, store, draws, decider=decider)
        folder = ModelFolder(Path(request.save), scorer.headline, decider) if request.save else None
        fuser: Answering = Fuser(fitting, store, draws, plan.singles, folder, decider)
        if folded:
            prober = folded.answering(store, partial(Prober, fitting, opened=folded.opened))
            fuser = folded.answering(store, partial(_part_fuser, fitting, folded), plan.singles)
        stored = plan.stored(store, decider, again=folder is not None)
        lacking = [question for question in plan.questions if question.identity not in stored]
        check_fusions(lacking, fitting, request.memory, folds=folded is not None)
        probed = ask_decided(plan.probes, prober, scorer, draws, decider)
        fused = ask_decided(plan.fusions, fuser, scorer, draws, decider, again=folder is not None, doing="fusing")
    return Answers(
        [*probed.scores, *fused.scores],
        probed.n_fitted + fused.n_fitted,
        probed.n_stored + fused.n_stored,
        fused.store,
        decisions,
    )


def _part_fuser(fitting: Fitting, folded: CrossValidation, store: PartStore, draws: DrawSource) -> Answering:
    """Return the fuser for questions on parts of joined splits."""
    return Fuser(fitting, store, draws, store.singles, opened=folded.opened)


def draws_of(request: FuseRequest) -> DrawSource:
    """Return the draws of a file, or our own.  Raises InputError for a file that is not there."""
    file = Path(request.draw_file) if request.draw_file else None
    if file and not file.exists():
        raise InputError(f"No draw file {file}. Write one: mt probe --draw-file {file}")
    return draw_source(request.draw, file)


class _Plan:
    """The questions of a study: probes first, since best single and average are made of them."""

    def __init__(self, fitting: Fitting, asked: Sequence[Asked]) -> None:
        self.fitting, self.asked = fitting, asked
        self.probes: list[Question] = []
        self.fusions: list[Question] = []
        self.singles: dict[str, list[Question]] = {}

    def add(self, pair: Pair, singles: Sequence[Pair], rows: Sequence[str], *, ablations: bool) -> None:
        """Add a dataset's questions: on each model if a row needs its probe, on all models, and the ablations."""
        recipe = {**self.fitting.identity(), "select": "folds"}
        probes: dict[Drawn, list[Question]] = {
            (budget, seed): [Question(one, budget, seed, "probe", recipe, draw) for one in singles]
            for budget, seed, draw in self.asked
        }
        for number in range(len(singles)) if needs_probes(rows) else ():
            self.probes += [found[number] for found in probes.values()]
        for method in (*rows, *(ABLATIONS if ablations else ())):
            self._fuse(pair, method, probes)
        for fewer in leave_one_out(pair) if ablations else ():
            self._fuse(fewer, "dvme", {})

    @property
    def questions(self) -> list[Question]:
        return [*self.probes, *self.fusions]

    def stored(self, store: ScoreStore, decider: Decider | None, *, again: bool) -> set[str]:
        """Return the identities of the questions whose fits are in the store; again: fusions are fitted anyway."""
        asked = self.probes if again else self.questions
        found = store.has_fits([question.identity for question in asked])
        return found - set(decider.out_of_fold.lacking(sorted(found))) if decider else found

    def _fuse(self, pair: Pair, method: str, probes: Mapping[Drawn, list[Question]]) -> None:
        for budget, seed, draw in self.asked:
            singles = probes.get((budget, seed), [])
            question = Question(pair, budget, seed, method, identity_of(method, self.fitting, singles), draw)
            self.singles[question.identity] = singles
            self.fusions.append(question)
