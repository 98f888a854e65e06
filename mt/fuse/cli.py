"""`mt fuse`: DVME and its baselines on cached features, and end to end."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import click

from mt.datasets.settings import dataset_choice
from mt.fuse.end_to_end.cli import TrainingOptions, unfrozen
from mt.fuse.request import FuseRequest
from mt.fuse.rivals import METHODS
from mt.probe.request import Margin
from mt.system.device import device_options
from mt.terminal import options, progress
from mt.terminal.progress import counted

if TYPE_CHECKING:
    from mt.probe.request import Answers


@click.command(epilog="Example: mt fuse --model simclr --model swav --model dino --dataset pcam --fraction 0.01")
@options.models
@options.datasets
@dataset_choice
@click.option(
    "--method",
    "methods",
    multiple=True,
    type=click.Choice(METHODS),
    help="Method to fit (repeatable); dvme includes its references, best-single and concat.  [default: all]",
)
@options.fractions
@options.shots
@options.seeds
@options.draw
@options.test_folds
@options.repeats
@click.option("--draw-file", type=click.Path(dir_okay=False), help="Read the draws from here. See: mt probe --help")
@options.metrics
@options.primary
@options.margin
@options.reference
@click.option(
    "--ablations",
    is_flag=True,
    help="Also uniform attention, a random start, the paper's plain form, and DVME without each model.",
)
@options.threshold
@options.prevalence
@options.calibrate
@click.option("--save", type=click.Path(file_okay=False), metavar="DIR", help="Keep the fitted models here.")
@options.cache_dir
@options.scores
@options.everything
@device_options
@options.as_json
@unfrozen
def fuse(
    models: tuple[str, ...],
    datasets: tuple[str, ...],
    methods: tuple[str, ...],
    fractions: tuple[float, ...],
    shots: tuple[int, ...],
    seeds: int,
    draw: str,
    test_folds: int | None,
    repeats: int,
    draw_file: str | None,
    metrics: tuple[str, ...],
    primary: str | None,
    margin: float | None,
    reference: str | None,
    ablations: bool,
    threshold: str | None,
    prevalence: float | None,
    calibrate: str | None,
    save: str | None,
    cache_dir: str | None,
    scores: str | None,
    everything: bool,
    device: str,
    as_json: bool,
    unfreeze: bool,
    unfreeze_last: int | None,
    lora: int | None,
    lr: tuple[float, ...],
    epochs: int | None,
    fixed: bool,
    batch_size: int | None,
    accumulate: int | None,
    augment: str | None,
    dropout: float | None,
    label_smoothing: float | None,
    train_batch_norm: bool,
    precision: str | None,
    checkpoint_grad: bool,
    checkpoint_every: int | None,
    checkpoints: str | None,
    workers: int | None,
    memory: int | None,
    weights: tuple[str, ...],
    data_dir: str | None,
) -> None:
    """Fuse the features of several models with DVME, and compare it with its baselines.

    Beside it, on the same draws and test cases: every single model, the best of them chosen inside the budget, averaged
    probabilities, and concatenation with logistic regression.  With --unfreeze also DVME trained end to end with its
    backbones, from images.
    """
    cached = FuseRequest(
        cache_dir,
        models,
        datasets,
        methods,
        fractions,
        shots,
        seeds,
        metrics,
        draw_file,
        ablations,
        save,
        scores,
        device,
        everything,
        draw=draw,
        threshold=threshold,
        prevalence=prevalence,
        calibrate=calibrate,
        primary=primary,
        test_folds=test_folds,
        repeats=repeats,
        memory=None if unfreeze or unfreeze_last is not None else memory,
    )
    against = Margin.of(margin, reference)
    training = TrainingOptions(
        unfreeze,
        unfreeze_last,
        lora,
        lr,
        epochs,
        fixed,
        batch_size,
        accumulate,
        augment,
        dropout,
        label_smoothing,
        train_batch_norm,
        precision,
        checkpoint_grad,
        checkpoint_every,
        checkpoints,
        workers,
        memory,
        weights,
        data_dir,
    ).request(cached)
    if training is None:
        from mt.fuse.run import run_fuse

        study: Answers | None = run_fuse(cached)
    else:
        from mt.fuse.end_to_end.run import run_unfrozen

        study = run_unfrozen(training)
    if study is None:  # not the first process of a torchrun
        return
    progress.note(f"{counted(study.n_stored, 'score')} from the store, {study.n_fitted} fitted: {study.store}")
    (_print_json if as_json else _print_tables)(study, declared=primary is not None)
    if training is not None:
        _print_scalings(study, as_json=as_json)
    if against:
        from mt.probe.margin_table import print_margins

        print_margins(study, against, as_json=as_json)
    if study.decisions is not None:
        from mt.probe.decisions.printed import print_decisions

        print_decisions(study, as_json=as_json)


def _print_tables(study: Answers, *, declared: bool) -> None:
    from mt.fuse.tables import print_fusion

    print_fusion(study, declared=declared)


def _print_scalings(study: Answers, *, as_json: bool) -> None:
    from mt.fuse.end_to_end.choice.own_scaling import own_scalings, said
    from mt.results.store import ScoreStore

    with ScoreStore(study.store) as store:
        for row in own_scalings(study.scores, store):
            click.echo(json.dumps(row) if as_json else said(row))


def _print_json(study: Answers, *, declared: bool) -> None:
    from mt.fuse.tables import attentions, costs, differences, oracles
    from mt.probe.scores.declared import role_of, role_of_pair
    from mt.probe.scores.score_tables import json_row
    from mt.results.store import ScoreStore
    from mt.results.trained_networks import is_trained

    with ScoreStore(study.store) as store:
        for score in study.scores:
            trained = is_trained(score.method, score.settings)
            row = json_row(score, store) | ({} if trained is None else {"network_trained": trained})
            click.echo(json.dumps(row | (role_of(score, store) if declared else {})))
        if any(score.metric == "ece" for score in study.scores):
            from mt.probe.reliability.calibration_table import json_rows

            for row in json_rows(study, store):
                click.echo(json.dumps(row))
        found = differences(study, store)
        pairs = [pair.row() | (role_of_pair(pair, store) if declared else {}) for pair in found]
        for row in (*oracles(study, store), *pairs, *attentions(study, store), *costs(study, store)):
            click.echo(json.dumps(row))
