"""The evaluation: questions are answered from the score database, or by fitting, keeping and scoring.

`ask` serves every method (probes, fusion): it needs a function that answers questions with a `Fit` each.
`run_probe` is the linear probe's use of it, and what `mt probe` calls.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from mt.cache.catalog import Catalog
from mt.errors import InputError
from mt.probe.answer import Prober
from mt.probe.budgets.source import DrawFile, DrawSource, check_draw_file, save_draws
from mt.probe.methods.base import Fitting
from mt.probe.protocols.registry import get_protocol
from mt.probe.questions import Pair, Question, find_pairs
from mt.probe.saved import ProbeFolder
from mt.probe.scores import metrics as known
from mt.probe.scores.scoring import View, headline, revision, score_fit
from mt.results.store import Fit, Score, ScoreStore
from mt.system import folders
from mt.terminal import progress
from mt.types import LabelledRows

# Gives the questions' fits, in their order, each as soon as it is there.
Answer = Callable[[Sequence[Question]], Iterable[Fit]]


@dataclass(frozen=True)
class Study:
    """The scores that were asked for, in the order of the questions, and where they came from."""

    scores: list[Score]
    n_fitted: int
    n_stored: int
    store: Path


def ask(
    questions: Sequence[Question],
    answer: Answer,
    store: ScoreStore,
    *,
    metrics: Sequence[str] = (),
    view: View | None = None,
    again: bool = False,
) -> Study:
    """Answer every question from the store or by `answer`, keep each fit at once, and return all scores.

    metrics: names, or none for each task's headline.  again: fit although the answer is stored.
    """
    view = view or View()
    identities = [question.identity for question in questions]
    known = set() if again else store.has_fits(identities)
    scorer = _Scorer(store, metrics, view, identities)
    scores: list[Score] = []
    fits = iter(answer([question for question in questions if question.identity not in known]))
    try:
        with progress.bar("probing", len(questions), unit="fits") as advance:
            for question in questions:
                fit = None
                if question.identity not in known:
                    fit = next(fits)
                    if not store.add_fit(fit):  # another process was first: its predictions are the ones kept
                        fit = store.fit(question.identity)
                scores += scorer.scores(question, fit)
                advance(1)
    except KeyboardInterrupt:
        kept = len(store.has_fits(identities))
        message = f"{kept} of {len(identities)} fits are kept. The same command goes on from there."
        raise KeyboardInterrupt(message) from None
    n_stored = sum(identity in known for identity in identities)
    return Study(scores, len(questions) - n_stored, n_stored, store.path)


class _Scorer:
    """Finds the scores of fits in the store, and makes those that are not there from the kept predictions."""

    def __init__(self, store: ScoreStore, metrics: Sequence[str], view: View, identities: Sequence[str]) -> None:
        self.store, self.metrics, self.view = store, metrics, view
        self.cases: dict[str, LabelledRows[None]] = {}
        self.stored: dict[tuple[str, str], list[Score]] = {}
        current = revision()
        for score in store.scores_of(identities):
            same = all(score.versions.get(name) == value for name, value in current.items())
            if same and (score.level, score.by) == (view.level, view.by):
                self.stored.setdefault((score.fit, score.metric), []).append(score)

    def scores(self, question: Question, fit: Fit | None) -> list[Score]:
        """Return the scores of one question in all metrics; `fit` where it was just made."""
        found: list[Score] = []
        for metric in chosen_metrics(self.metrics, question.pair):
            scores = self.stored.get((question.identity, metric))
            if scores is None:
                fit = fit or self.store.fit(question.identity)
                if fit.cases not in self.cases:
                    self.cases[fit.cases] = self.store.cases(fit.cases)
                made = score_fit(question, fit, self.cases[fit.cases], metric, self.view)
                self.store.add_scores(made)
                scores = [score for score, _ in made]
            # The same fit may have been asked for under other names: of a dataset, or to tell two models apart.
            pair = question.pair
            found += [
                replace(score, dataset=pair.dataset, test_dataset=pair.test_dataset, model=pair.model)
                for score in scores
            ]
        return found


def chosen_metrics(asked: Sequence[str], pair: Pair) -> list[str]:
    """Return the metrics to show: the dataset's headline, those named, or with "all" every one its task defines."""
    defined = known.metrics_for(pair.task)
    if not asked:
        return [headline(pair)]
    return list(defined) if "all" in asked else [name for name in dict.fromkeys(asked) if name in defined]


def check_metrics(asked: Sequence[str], pairs: Sequence[Pair]) -> None:
    """Raise InputError for a metric that is unknown, or not defined for any of the datasets' tasks."""
    for name in asked:
        tasks = sorted({pair.task for pair in pairs})
        if name != "all" and not set(known.get(name).tasks) & set(tasks):
            defined = ", ".join(sorted({metric for task in tasks for metric in known.metrics_for(task)}))
            raise InputError(f"Metric '{name}' is not defined for {', '.join(tasks)}. Defined: {defined}")


def run_probe(
    cache_dir: str | os.PathLike[str] | None = None,
    *,
    models: Sequence[str] = (),
    datasets: Sequence[str] = (),
    fractions: Sequence[float] = (),
    shots: Sequence[int] = (),
    seeds: int = 5,
    protocol: str = "default",
    solver: str = "torch",
    metrics: Sequence[str] = (),
    select: str = "folds",
    draw_file: str | os.PathLike[str] | None = None,
    by: str | None = None,
    level: str = "row",
    test_dataset: str | None = None,
    save: str | os.PathLike[str] | None = None,
    scores: str | os.PathLike[str] | None = None,
    device: str = "auto",
    everything: bool = False,
) -> Study:
    """Probe cached features: every model of every dataset, at every budget, for every seed.

    models, datasets: all that the cache holds without any.  fractions, shots: 1, 10 and 100 % without any.
    seeds: the number of draws of a budget.  metrics: the task's headline without any; "all" for all.
    select: "folds" chooses inside the budget, "val" on the validation split, whose labels are then counted.
    draw_file: read the draws from it where it exists, else write them to it.  save: a folder for the fitted probes.
    Raises InputError, CacheError and FitError.
    """
    recipe = get_protocol(protocol)
    recipe.check_select(select)
    cache = folders.cache_dir(cache_dir)
    pairs = find_pairs(
        Catalog(cache), models=models, datasets=datasets, test_dataset=test_dataset, select_val=select == "val",
        everything=everything,
    )  # fmt: skip
    for pair in pairs:
        recipe.check_task(pair.task, pair.dataset)
    check_metrics(metrics, pairs)
    drawn_to = Path(draw_file) if draw_file else None
    draws = DrawFile(drawn_to) if drawn_to and drawn_to.exists() else DrawSource()
    if drawn_to:
        check_draw_file(drawn_to, pairs)
    asked = draws.asked(fractions, shots, seeds)
    with ScoreStore(folders.scores_path(scores, cache)) as store:
        fitting = Fitting(recipe, solver, device)
        questions = [
            Question(pair, budget, seed, "probe", {**fitting.identity(), "select": select}, draw)
            for pair in pairs
            for budget, seed, draw in asked
        ]
        prober = Prober(fitting, store, draws, ProbeFolder(Path(save)).keep if save else None)
        study = ask(questions, prober, store, metrics=metrics, view=View(level, by), again=save is not None)
        if drawn_to and not drawn_to.exists():
            save_draws(drawn_to, questions, store)
        return study
