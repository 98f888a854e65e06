"""The end-to-end study: cached methods and the tuned network, on the same draws and test cases, into one store."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import groupby
from pathlib import Path
from typing import Any

import torch

from mt.cache.catalog import Catalog
from mt.errors import InputError
from mt.featurize.plan import weights_by_model
from mt.fuse.aligned import join_pairs
from mt.fuse.dvme.fit import torch_device
from mt.fuse.end_to_end.ranks import Ranks, joined
from mt.fuse.end_to_end.request import Machine, Settings, check_settings
from mt.fuse.end_to_end.tuner import Tuner, checkpoints_of, identity_of, method_name
from mt.fuse.run import check_models, draws_of, run_fuse
from mt.probe.methods.base import Fitting
from mt.probe.protocols.registry import get_protocol
from mt.probe.questions import Pair, Question, find_pairs
from mt.probe.run import Study, ask, check_metrics, run_probe
from mt.results.store import ScoreStore
from mt.system import folders
from mt.terminal import progress


def run_unfrozen(
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
    save: str | os.PathLike[str] | None = None,
    scores: str | os.PathLike[str] | None = None,
    everything: bool = False,
    data_dir: str | os.PathLike[str] | None = None,
    weights: Sequence[str] = (),
    checkpoints: str | os.PathLike[str] | None = None,
    settings: Settings | None = None,
    machine: Machine | None = None,
) -> Study | None:
    """Train the models of cached features end to end, beside the methods on the cache, for every budget and seed.

    One model is the fine-tuning baseline, beside its probe; several are DVME, beside what `run_fuse` fits.
    methods: of those on the cache, as `run_fuse` takes them.  checkpoints: a folder, by default beside the scores.
    Under torchrun every process calls this; all but the first return None.
    Raises InputError, CacheError, DatasetError, WeightsError, FitError for a loss that is not a number.
    """
    settings, machine = settings or Settings(), machine or Machine()
    check_settings(settings, machine)
    check_models(models, several=False)
    if methods and len(models) == 1:
        raise InputError("--method is for several models, and one is named. Leave it out, or add another: --model NAME")
    cache, draws = folders.cache_dir(cache_dir), draws_of(draw_file)
    pairs = find_pairs(Catalog(cache), models=models, datasets=datasets, everything=everything)
    named = weights_by_model([pair.train[0].backbone for pair in pairs], weights)
    tuned = [_joined(list(group)) for _, group in groupby(pairs, key=lambda pair: pair.dataset)]
    check_metrics(metrics, tuned)
    with joined(torch_device(machine.device)) as (ranks, device):
        settings = _on(settings, machine, ranks, device)
        machine = replace(machine, device=str(device))
        fitting = Fitting(get_protocol("default"), "torch", str(device))
        questions = [
            Question(pair, budget, seed, method_name(len(pair.train), settings.last),
                     identity_of(settings, fitting, len(pair.train)), draw)
            for pair in tuned
            for budget, seed, draw in draws.asked(fractions, shots, seeds)
        ]  # fmt: skip
        path = folders.scores_path(scores, cache)
        common: dict[str, Any] = {
            "fractions": fractions, "shots": shots, "seeds": seeds, "metrics": metrics, "draw_file": draw_file,
            "scores": path, "everything": everything, "device": str(device),
        }  # fmt: skip
        cached = [_cached_methods(cache, pair, models, methods, common) for pair in tuned] if ranks.first else []
        folder = Path(checkpoints or path.parent / "checkpoints")
        with ScoreStore(path) as store:
            tuner = Tuner(
                settings, machine, ranks, device, fitting=fitting, store=store, draws=draws,
                checkpoints=folder, weights=named, data_dir=os.fspath(data_dir) if data_dir else None,
                save=Path(save) if save else None,
            )  # fmt: skip
            known = store.has_fits(question.identity for question in questions) if ranks.first and not save else set()
            for identity in known:
                checkpoints_of(folder, identity).remove_left()
            known = ranks.told(known)
            todo = [question for question in questions if question.identity not in known]
            for number, question in enumerate(todo, start=1):
                if ranks.first:
                    progress.note(f"{question.method}: {question.pair.model}, {question.budget}, {number}/{len(todo)}")
                tuner(question)
            return _study(questions, store, metrics, cached, n_fitted=len(todo)) if ranks.first else None


def _joined(pairs: list[Pair]) -> Pair:
    return pairs[0] if len(pairs) == 1 else join_pairs(pairs)[0]


def _on(settings: Settings, machine: Machine, ranks: Ranks, device: torch.device) -> Settings:
    """Return the settings with what the machine decides: images a step over all ranks, and the precision."""
    batch = machine.batch_size * machine.accumulate * ranks.world
    precision = settings.precision
    if precision == "auto":
        low = "bfloat16" if device.type == "cuda" and torch.cuda.is_bf16_supported() else "float16"
        precision = low if device.type == "cuda" else "float32"
    if ranks.world > 1 and settings.train_batch_norm:
        raise InputError(
            f"--train-batch-norm does not go with {ranks.world} processes: each would keep statistics of its own."
        )
    return replace(settings, batch=batch, precision=precision)


def _cached_methods(
    cache: Path, pair: Pair, models: Sequence[str], methods: Sequence[str], common: dict[str, Any]
) -> Study:
    """Return the scores of the methods on cached features: a model's probe, or the fusion study."""
    names: dict[str, Any] = {"models": models, "datasets": [pair.train[0].dataset]}
    if len(pair.train) == 1:
        return run_probe(cache, **names, **common)
    return run_fuse(cache, **names, methods=methods, **common)


def _study(
    questions: Sequence[Question], store: ScoreStore, metrics: Sequence[str], cached: Sequence[Study], *, n_fitted: int
) -> Study:
    """Return all scores in one study; every fit is in the store by now."""

    def answer(asked: Sequence[Question]) -> Iterator[Any]:
        return (store.fit(question.identity) for question in asked)

    tuned = ask(questions, answer, store, metrics=metrics)
    return Study(
        [score for study in (*cached, tuned) for score in study.scores],
        n_fitted + sum(study.n_fitted for study in cached),
        len(questions) - n_fitted + sum(study.n_stored for study in cached), store.path,
    )  # fmt: skip
