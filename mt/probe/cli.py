"""`mt probe`: linear probes on cached features."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import click

from mt.cache.pooling import RULES
from mt.datasets.settings import dataset_choice
from mt.probe.questions import ATTENTION
from mt.probe.request import Margin, ProbeRequest
from mt.probe.solver.request import SOLVERS
from mt.system.device import device_options
from mt.terminal import options, progress
from mt.terminal.progress import counted

if TYPE_CHECKING:
    from mt.probe.request import Answers
    from mt.probe.scores.comparisons import Comparison
    from mt.results.store import Score, ScoreStore


@click.command(epilog="Example: mt probe --fraction 0.01 --fraction 0.1 --model dino --dataset pcam --compare")
@options.models
@options.datasets
@dataset_choice
@options.fractions
@options.shots
@options.seeds
@options.test_folds
@options.repeats
@options.draw
@click.option(
    "--draw-file",
    type=click.Path(dir_okay=False),
    help="Read the draws from this file; if it does not exist, write them.",
)
@click.option("--protocol", default="default", show_default=True, help="A recipe. See: mt probe --list-protocols")
@click.option("--list-protocols", is_flag=True, help="Print every protocol in full and stop.")
@click.option(
    "--solver",
    type=click.Choice(tuple(SOLVERS)),
    default="torch",
    show_default=True,
    help="Solver for logistic regression.",
)
@click.option(
    "--select",
    type=click.Choice(["folds", "val"]),
    default="folds",
    show_default=True,
    help="Choose settings inside the budget, or on the validation split (its labels are counted).",
)
@click.option(
    "--bag",
    metavar="COLUMN|group",
    help="Rows with the same value of this column are one case: tiles of a slide, views of a study.",
)
@click.option(
    "--pool",
    type=click.Choice([*RULES, ATTENTION]),
    help="How the rows of a case become one row; attention is fitted inside the budget.  [default: mean, with --bag]",
)
@options.metrics
@options.primary
@click.option("--by", metavar="COLUMN", help="Score each value of a metadata column separately.")
@click.option(
    "--level",
    type=click.Choice(["row", "group"]),
    default="row",
    show_default=True,
    help="One prediction per image, or the mean per patient or slide.",
)
@click.option(
    "--test-dataset", metavar="NAME", help="Train on --dataset and test on this dataset, which needs the same classes."
)
@options.threshold
@options.prevalence
@options.calibrate
@options.margin
@options.reference
@click.option("--compare", is_flag=True, help="Also print paired comparisons of the models.")
@click.option("--save", type=click.Path(file_okay=False), metavar="DIR", help="Save the fitted probes in this folder.")
@click.option(
    "--dry-run",
    is_flag=True,
    help="Print fits, labels, test cases, expected interval widths and detectable differences, and stop.",
)
@options.cache_dir
@options.scores
@options.everything
@click.option(
    "--memory",
    type=options.MemoryAmount(),
    help="Read features from disk in every step, holding at most this much.  [default: read them into memory]",
)
@device_options
@options.as_json
def probe(
    list_protocols: bool,
    models: tuple[str, ...],
    datasets: tuple[str, ...],
    fractions: tuple[float, ...],
    shots: tuple[int, ...],
    seeds: int,
    draw: str,
    test_folds: int | None,
    repeats: int,
    draw_file: str | None,
    protocol: str,
    solver: str,
    select: str,
    bag: str | None,
    pool: str | None,
    metrics: tuple[str, ...],
    by: str | None,
    level: str,
    test_dataset: str | None,
    threshold: str | None,
    prevalence: float | None,
    calibrate: str | None,
    primary: str | None,
    margin: float | None,
    reference: str | None,
    compare: bool,
    save: str | None,
    dry_run: bool,
    cache_dir: str | None,
    scores: str | None,
    everything: bool,
    memory: int | None,
    device: str,
    as_json: bool,
) -> None:
    """Fit linear probes on cached features and print the scores.

    Without options: every model and dataset in the cache, on 1 %, 10 % and 100 % of the labels, five draws each.
    Scores that are already in the score database are not computed again.
    """
    if list_protocols:
        from mt.probe.tables import print_protocols

        print_protocols(as_json=as_json)
        return
    request = ProbeRequest(
        cache_dir=cache_dir,
        models=models,
        datasets=datasets,
        fractions=fractions,
        shots=shots,
        seeds=seeds,
        draw=draw,
        draw_file=draw_file,
        protocol=protocol,
        solver=solver,
        select=select,
        bag=bag,
        pool=pool,
        metrics=metrics,
        by=by,
        level=level,
        test_dataset=test_dataset,
        save=save,
        scores=scores,
        everything=everything,
        device=device,
        test_folds=test_folds,
        repeats=repeats,
        primary=primary,
        threshold=threshold,
        prevalence=prevalence,
        calibrate=calibrate,
        memory=memory,
    )
    if dry_run:
        from mt.probe.planning.plan_tables import print_plan

        print_plan(request, as_json=as_json)
        return
    given = margin is not None or reference is not None
    print_scores(request, as_json=as_json, compare=compare, margin=Margin.of(margin, reference) if given else None)


def print_scores(
    request: ProbeRequest, *, as_json: bool = False, compare: bool = False, margin: Margin | None = None
) -> None:
    """Run probes and print their scores to stdout: one table per dataset, or JSON lines.

    Raises what `run_probe` raises, and InputError if `margin` names a row that no table has.
    """
    from mt.probe.run import run_probe

    answers = run_probe(request)
    progress.note(f"{counted(answers.n_stored, 'score')} from the store, {answers.n_fitted} fitted: {answers.store}")
    if as_json:
        _print_json(answers, compare=compare, declared=request.primary is not None)
    else:
        _print_tables(answers, compare=compare, declared=request.primary is not None)
    if request.by is not None:
        from mt.probe.contrasts.contrast_tables import print_subgroups

        print_subgroups(answers, as_json=as_json)
    if request.test_dataset is not None:
        from mt.probe.contrasts.contrast_tables import print_drops

        print_drops(request, answers, as_json=as_json)
    if margin:
        from mt.probe.margin_table import print_margins

        print_margins(answers, margin, as_json=as_json)
    if answers.decisions is not None:
        from mt.probe.decisions.printed import print_decisions

        print_decisions(answers, as_json=as_json, compared=compare)


def _print_tables(answers: Answers, *, compare: bool, declared: bool) -> None:
    from mt.probe.scores.score_tables import comparisons, judged
    from mt.probe.tables import print_comparisons, print_tables
    from mt.results.store import ScoreStore

    with ScoreStore(answers.store) as store:
        tables = judged(answers.scores, store)
        if declared:
            from mt.probe.scores.score_tables import declared_tables

            tables = declared_tables(tables, store)
        pairs = comparisons([one.table for one in tables], store) if compare else None
    print_tables(tables)
    if any(one.table.subject.metric == "ece" for one in tables):
        from mt.probe.reliability.calibration_table import print_calibrations

        print_calibrations(answers)
    if pairs is not None:
        print_comparisons(pairs)


def _print_json(answers: Answers, *, compare: bool, declared: bool) -> None:
    from mt.probe.scores.score_tables import comparisons, json_row, score_tables
    from mt.results.store import ScoreStore

    with ScoreStore(answers.store) as store:
        for score in answers.scores:
            click.echo(json.dumps(json_row(score, store) | (_role(score, store) if declared else {})))
        if any(score.metric == "ece" for score in answers.scores):
            from mt.probe.reliability.calibration_table import json_rows

            for row in json_rows(answers, store):
                click.echo(json.dumps(row))
        for pair in comparisons(score_tables(answers.scores, store), store) if compare else ():
            click.echo(json.dumps(pair.row() | (_role_of_pair(pair, store) if declared else {})))


def _role_of_pair(pair: Comparison, store: ScoreStore) -> dict[str, str]:
    from mt.probe.scores.declared import role_of_pair

    return role_of_pair(pair, store)


def _role(score: Score, store: ScoreStore) -> dict[str, str]:
    from mt.probe.scores.declared import role_of

    return role_of(score, store)
