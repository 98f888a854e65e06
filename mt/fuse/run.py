"""The fusion study: every single model, the baselines and DVME, on the same draws and test cases, into one store."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

from mt.cache.catalog import Catalog
from mt.errors import InputError
from mt.fuse.aligned import join_pairs, leave_one_out
from mt.fuse.dvme.fit import torch_device
from mt.fuse.fuser import Fuser, identity_of
from mt.fuse.rivals import check_of_dvme, needs_probes, rows_of
from mt.fuse.saved import ModelFolder
from mt.probe.answer import Prober
from mt.probe.budgets.source import Asked, DrawFile, DrawSource
from mt.probe.methods.base import Fitting
from mt.probe.protocols.registry import get_protocol
from mt.probe.questions import Budget, Pair, Question, find_pairs
from mt.probe.run import Study, ask, check_metrics
from mt.results.store import ScoreStore
from mt.system import folders

Drawn = tuple[Budget, int]
ABLATIONS = ("dvme-random", "dvme-plain", "dvme-uniform")


def run_fuse(
    cache_dir: str | os.PathLike[str] | None = None,
    *,
    models: Sequence[str] = (),
    datasets: Sequence[str] = (),
    methods: Sequence[str] = (),
    fractions: Sequence[float] = (),
    shots: Sequence[int] = (),
    seeds: int = 5,
    metrics: Sequence[str] = (),
    draw_file: str | os.PathLike[str] | None = None,
    ablations: bool = False,
    save: str | os.PathLike[str] | None = None,
    scores: str | os.PathLike[str] | None = None,
    device: str = "auto",
    everything: bool = False,
) -> Study:
    """Fuse cached features: DVME and its baselines for every dataset, at every budget, for every seed.

    models, datasets: all that the cache holds without any.  methods: of "concat", "average" and "dvme", which brings
    the best single model and concatenation; without any all of them, and the single models.  fractions,
    shots: 1, 10 and 100 % without any.  ablations: also uniform attention, a random start, the paper's plain form, and
    DVME without each model.  save: a folder for the fitted DVMEs.  Raises InputError, CacheError and FitError.
    """
    check_models(models)
    rows = rows_of(methods)
    for option in [name for name, given in (("--ablations", ablations), ("--save", save)) if given]:
        check_of_dvme(methods, option)
    cache, where = folders.cache_dir(cache_dir), str(torch_device(device))
    pairs = find_pairs(Catalog(cache), models=models, datasets=datasets, everything=everything)
    joined = join_pairs(pairs)
    check_metrics(metrics, joined)
    draws = draws_of(draw_file)
    fitting = Fitting(get_protocol("default"), "torch", where)
    plan = _Plan(fitting, draws.asked(fractions, shots, seeds))
    for pair in joined:
        singles = [one for one in pairs if (one.dataset, one.test_dataset) == (pair.dataset, pair.test_dataset)]
        plan.add(pair, singles, rows, ablations=ablations)
    with ScoreStore(folders.scores_path(scores, cache)) as store:
        probed = ask(plan.probes, Prober(fitting, store, draws), store, metrics=metrics)
        keep = ModelFolder(Path(save)).keep if save else None
        fuser = Fuser(fitting, store, draws, plan.singles, keep)
        fused = ask(plan.fusions, partial(map, fuser), store, metrics=metrics, again=save is not None)
    return Study(
        [*probed.scores, *fused.scores], probed.n_fitted + fused.n_fitted, probed.n_stored + fused.n_stored, fused.store
    )


def draws_of(draw_file: str | os.PathLike[str] | None) -> DrawSource:
    """Return the draws of a file, or our own.  Raises InputError for a file that is not there."""
    if draw_file and not Path(draw_file).exists():
        raise InputError(f"No draw file {draw_file}. Write one: mt probe --draw-file {draw_file}")
    return DrawFile(Path(draw_file)) if draw_file else DrawSource()


class _Plan:
    """The questions of a study: probes first, since best single and average are made of them."""

    def __init__(self, fitting: Fitting, asked: Sequence[Asked]) -> None:
        self.fitting, self.asked = fitting, asked
        self.probes: list[Question] = []
        self.fusions: list[Question] = []
        self.singles: dict[str, list[Question]] = {}

    def add(self, pair: Pair, singles: Sequence[Pair], rows: Sequence[str], *, ablations: bool) -> None:
        """Add a dataset's questions: on each model where a row is made of them, on all of them, and the ablations."""
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

    def _fuse(self, pair: Pair, method: str, probes: Mapping[Drawn, list[Question]]) -> None:
        for budget, seed, draw in self.asked:
            singles = probes.get((budget, seed), [])
            question = Question(pair, budget, seed, method, identity_of(method, self.fitting, singles), draw)
            self.singles[question.identity] = singles
            self.fusions.append(question)


def check_models(models: Sequence[str], *, several: bool = True) -> None:
    """Refuse a model named twice and, where `several` are needed, one alone."""
    twice = sorted({name for name in models if models.count(name) > 1})
    if twice:
        raise InputError(f"--model {twice[0]} is named twice. Name each model once; see: mt models")
    if several and len(models) == 1:
        raise InputError(
            f"Fusion needs at least two models, found one ({models[0]}). One model is a probe: "
            f"mt probe --model {models[0]}; to fuse, add another: --model NAME; to fine-tune it: --unfreeze"
        )
