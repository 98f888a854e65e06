"""The end-to-end study: methods on cached features and the tuned network, on the same draws, into one store."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import groupby
from pathlib import Path
from typing import Any

import torch

from mt.cache.catalog import Catalog
from mt.errors import InputError
from mt.featurize.plan import weights_by_model
from mt.fuse.aligned import join_pairs
from mt.fuse.end_to_end.request import FinetuneRequest, Settings
from mt.fuse.end_to_end.tuner import Tuner, checkpoints_of, identity_of, method_name
from mt.fuse.request import FuseRequest
from mt.fuse.run import draws_of, run_fuse
from mt.probe.budgets.draw import DrawSource
from mt.probe.protocols import Fitting, get_protocol
from mt.probe.questions import Pair, Question, find_pairs
from mt.probe.request import Answers, ProbeRequest
from mt.probe.run import ask, run_probe
from mt.probe.saved import ModelFolder
from mt.probe.scores.declared import metrics_asked
from mt.probe.scores.scoring import Scorer, check_metrics
from mt.results.store import ScoreStore
from mt.system import files
from mt.system.device import computes_bfloat16_fast, device_names, pick_device
from mt.system.ranks import Ranks, joined
from mt.terminal import progress
from mt.terminal.progress import counted


def run_unfrozen(request: FinetuneRequest) -> Answers | None:
    """Train the models of cached features end to end, beside the methods on the cache, for every budget and seed.

    One model is the fine-tuning baseline, beside its probe; several are DVME, beside what `run_fuse` fits.
    Under torchrun every process calls this; all but the first return None.
    Raises InputError, CacheError, DatasetError, WeightsError, FitError for a loss that is not a number.
    """
    request.check()
    cached = replace(request.cached, metrics=metrics_asked(request.cached))
    cache, draws = files.cache_dir(cached.cache_dir), draws_of(cached)
    pairs = find_pairs(
        Catalog(cache, cached.files), models=cached.models, datasets=cached.datasets, everything=cached.everything
    )
    named = weights_by_model([pair.train[0].backbone for pair in pairs], request.weights)
    tuned = [_joined(list(group)) for _, group in groupby(pairs, key=lambda pair: pair.dataset)]
    check_metrics(cached.metrics, tuned)
    if len(device_names(cached.device)) > 1:
        raise InputError(
            f"--device {cached.device}: several devices train one network under torchrun: "
            f"torchrun --nproc-per-node {len(device_names(cached.device))} -m mt fuse --unfreeze ..."
        )
    if cached.save:
        _check_folder(Path(cached.save))
    with joined(pick_device(cached.device, float64=True)) as (ranks, device):
        path = files.scores_path(cached.scores, cache)
        features_on = "auto" if cached.device == "auto" else str(device)  # each fit's size decides
        cached = replace(cached, cache_dir=cache, scores=path, device=features_on, save=None)
        request = replace(request, settings=_on(request, ranks, device))
        fitting = Fitting(get_protocol("default"), "torch", features_on)
        questions = list(_questions(request, tuned, fitting, draws))
        beside = [_cached_methods(pair, cached) for pair in tuned] if ranks.first else []
        folder = Path(request.checkpoints or path.parent / "checkpoints")
        with ScoreStore(path) as store:
            scorer = Scorer(store, cached.metrics)
            tuner = Tuner(request, folder, ranks, device, fitting=fitting, scorer=scorer, draws=draws, weights=named)
            known = _stored(questions, scorer, folder, tuner.saved) if ranks.first else None
            known = ranks.broadcast(known)
            for question in questions:
                draws.repeats(question, known.get(question.identity, {}))  # before later questions are drawn
            n_fitted = _train([question for question in questions if question.identity not in known], tuner)
            if not ranks.first:
                return None
            return _answers(questions, scorer, draws, beside, n_fitted=n_fitted)


def _train(questions: Sequence[Question], tuner: Tuner) -> int:
    """Train a network per question; return how many were trained, without those of draws that repeat another.

    KeyboardInterrupt is raised with the number of stored fits in its message.
    """
    n_fitted = 0
    tuner.plan(questions)
    try:
        for number, question in enumerate(questions, start=1):
            if tuner.ranks.first:
                progress.note(f"{question.method}: {question.pair.model}, {question.budget}, {number}/{len(questions)}")
            n_fitted += tuner(question)
    except KeyboardInterrupt:
        kept = f"{n_fitted} of {counted(len(questions), 'training')} are stored"
        message = f"{kept}; the one in progress resumes from its last checkpoint. Run the same command again."
        raise KeyboardInterrupt(message) from None
    return n_fitted


def _questions(
    request: FinetuneRequest, tuned: Sequence[Pair], fitting: Fitting, draws: DrawSource
) -> Iterator[Question]:
    """Yield one question per dataset, budget and seed."""
    cached, settings = request.cached, request.settings
    for pair in tuned:
        method = method_name(len(pair.train), settings)
        recipe = identity_of(settings, fitting, len(pair.train))
        for budget, seed, draw in draws.asked(cached.fractions, cached.shots, cached.seeds):
            yield Question(pair, budget, seed, method, recipe, draw)


def _stored(
    questions: Sequence[Question], scorer: Scorer, folder: Path, saved: ModelFolder | None
) -> dict[str, Mapping[str, Any]]:
    """Return, by identity, the realised draws of the questions whose fits the store has, and their networks `saved`.

    Checkpoints that killed runs of these fits left in `folder` are removed.
    """
    identities = [question.identity for question in questions]
    known = scorer.store.has_fits(identities)
    if saved and (lacking := [one for one in questions if one.identity in known and _lacks(saved, scorer.store, one)]):
        known -= {one.identity for one in lacking}
        networks = counted(len(lacking), "fit is", "fits are")
        progress.note(f"{networks} made again to save the networks: the score database holds their predictions alone.")
    scorer.find(identities)
    for identity in known:
        checkpoints_of(folder, identity).remove_left()
    return {identity: scorer.realised.get(identity, {}) for identity in known}


def _lacks(saved: ModelFolder, store: ScoreStore, question: Question) -> bool:
    """Return whether the network of a stored fit is not saved; a draw of one class has none."""
    return not saved.holds(question) and "one_class" not in store.fit(question.identity).outcome["flags"]


def _check_folder(folder: Path) -> None:
    """Raise CacheError for a folder to save in that cannot be written: before anything trains, not after."""
    try:
        files.make_folder(folder)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise files.explained(error, folder, option="--save") from error


def _joined(pairs: list[Pair]) -> Pair:
    """Return one pair for all models of a dataset.  Raises InputError for several feature files of one model alone."""
    first = pairs[0]
    if len(pairs) > 1 and len({pair.train[0].backbone for pair in pairs}) == 1:
        raise InputError(
            f"--everything finds {len(pairs)} features of '{first.train[0].backbone}' on '{first.dataset}', and one "
            "network is trained from one. Remove --everything to take the newest, or remove the others: mt cache remove"
        )
    return first if len(pairs) == 1 else join_pairs(pairs)[0]


def _on(request: FinetuneRequest, ranks: Ranks, device: torch.device) -> Settings:
    """Return the settings with the values that depend on the machine: images per step over all ranks, precision."""
    settings, machine = request.settings, request.machine
    batch = machine.batch_size * machine.accumulate * ranks.world
    precision = settings.precision
    if precision == "auto":
        low = "bfloat16" if computes_bfloat16_fast(device) else "float16"
        precision = low if device.type == "cuda" else "float32"
    if settings.train_batch_norm and ranks.world * machine.accumulate > 1:
        several = f"{ranks.world} processes" if ranks.world > 1 else "--accumulate"
        raise InputError(
            f"--train-batch-norm does not go with {several}: each part of a batch would have statistics of its own. "
            "Remove one of them."
        )
    return replace(settings, batch=batch, precision=precision)


def _cached_methods(pair: Pair, cached: FuseRequest) -> Answers:
    """Return the scores of the methods on cached features: a model's probe, or the fusion study."""
    dataset = pair.train[0].dataset
    if len(pair.train) > 1:
        return run_fuse(replace(cached, datasets=[dataset]))
    return run_probe(
        ProbeRequest(
            cached.cache_dir,
            models=cached.models,
            datasets=[dataset],
            fractions=cached.fractions,
            shots=cached.shots,
            seeds=cached.seeds,
            metrics=cached.metrics,
            primary=cached.primary,
            draw=cached.draw,
            draw_file=cached.draw_file,
            scores=cached.scores,
            device=cached.device,
            everything=cached.everything,
            files=cached.files,
        )
    )


def _answers(
    questions: Sequence[Question], scorer: Scorer, draws: DrawSource, cached: Sequence[Answers], *, n_fitted: int
) -> Answers:
    """Return all scores in one; every fit is in the store by now, `n_fitted` of them new."""
    tuned = ask(questions, lambda _: (), scorer, draws)
    return Answers(
        [score for answers in (*cached, tuned) for score in answers.scores],
        n_fitted + sum(answers.n_fitted for answers in cached),
        tuned.n_stored - n_fitted + sum(answers.n_stored for answers in cached),
        tuned.store,
    )
