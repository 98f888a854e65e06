"""The evaluation: questions are answered from the score database, or by fitting, keeping and scoring.

`ask` serves every method (probes, fusion): it needs a function that answers questions with a `Fit` each.
`run_probe` is the linear probe's use of it, and what `mt probe` calls.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from mt.cache.catalog import Catalog
from mt.errors import InputError
from mt.probe.answer import Prober
from mt.probe.budgets.draw import DrawSource
from mt.probe.budgets.draw_file import DrawFile, check_draw_file, save_draws
from mt.probe.methods.base import Fitting
from mt.probe.protocols import get_protocol
from mt.probe.questions import Pair, Question, find_pairs
from mt.probe.request import ProbeRequest
from mt.probe.saved import ModelFolder
from mt.probe.scores import metrics as known
from mt.probe.scores.scoring import View, headline, revision, score_fit
from mt.results.store import Fit, Score, ScoreStore
from mt.system import folders
from mt.terminal import progress
from mt.types import LabelledRows

# Yields one fit per question, in their order, each as soon as it is there; questions that repeat a draw are omitted.
Answering = Callable[[Sequence[Question]], Iterable[Fit]]


@dataclass(frozen=True)
class Answers:
    """The scores that were asked for, in the order of the questions, and where they came from."""

    scores: list[Score]
    n_fitted: int
    n_stored: int
    store: Path


def ask(
    questions: Sequence[Question],
    answer: Answering,
    scorer: Scorer,
    draws: DrawSource,
    *,
    again: bool = False,
    doing: str = "probing",
) -> Answers:
    """Answer every question from the store or by `answer`, keep each fit at once, and return all scores.

    Draws that took every row are one draw: of such questions on one budget only the first is answered.
    again: fit although the answer is stored.  doing: what the progress bar says.
    """
    store, identities = scorer.store, [question.identity for question in questions]
    known = set() if again else store.has_fits(identities)
    scorer.find(identities)
    for question in questions:
        if question.identity in known:  # before `answer` draws for later questions
            draws.repeats(question, scorer.realised.get(question.identity, {}))
    scores, n_fitted, n_stored = list[Score](), 0, 0
    try:
        with progress.bar(doing, len(questions), unit="fits") as advance:
            for question, fit in _answered(questions, known, answer, store):
                found = scorer.scores(question, fit)
                if not (found and draws.repeats(question, found[0].realised)):
                    scores += found
                    n_fitted, n_stored = n_fitted + (fit is not None), n_stored + (fit is None)
                advance(1)
    except KeyboardInterrupt:
        kept = len(store.has_fits(identities))
        message = f"{kept} of {len(identities)} fits are kept. Run the same command again to resume."
        raise KeyboardInterrupt(message) from None
    return Answers(scores, n_fitted, n_stored, store.path)


def _answered(
    questions: Sequence[Question], known: set[str], answer: Answering, store: ScoreStore
) -> Iterator[tuple[Question, Fit | None]]:
    """Yield every question that is answered, with its fit if that is new, kept in the store."""
    fits = iter(answer([question for question in questions if question.identity not in known]))
    waiting: Fit | None = None
    for question in questions:
        if question.identity in known:
            yield question, None
            continue
        waiting = waiting or next(fits, None)
        if waiting is not None and waiting.identity == question.identity:
            # Where another process was first, its predictions are the ones kept.
            yield question, waiting if store.add_fit(waiting) else store.fit(question.identity)
            waiting = None


class Scorer:
    """Finds the scores of fits in the store, and makes those that are missing from the kept predictions.

    metrics: names, or empty for each task's headline.
    """

    def __init__(self, store: ScoreStore, metrics: Sequence[str] = (), view: View | None = None) -> None:
        self.store, self.metrics, self.view = store, metrics, view or View()
        self._cases: dict[str, LabelledRows[None]] = {}
        self.realised: dict[str, Mapping[str, Any]] = {}  # what the draws of stored fits got, by identity
        self._stored: dict[tuple[str, str], list[Score]] = {}
        self._made: dict[tuple[str, str, View], list[Score]] = {}

    def find(self, identities: Sequence[str]) -> None:
        """Read the scores that are stored for these fits, made by this revision, in this view."""
        self._stored.clear()
        current = revision()
        for score in self.store.scores_of(identities):
            self.realised[score.fit] = score.realised
            same = all(score.versions.get(name) == value for name, value in current.items())
            if same and (score.level, score.by) == (self.view.level, self.view.by):
                self._stored.setdefault((score.fit, score.metric), []).append(score)

    def scores(self, question: Question, fit: Fit | None) -> list[Score]:
        """Return the scores of one question in all metrics, and keep those that were missing.

        fit: given if it was just made.
        """
        found: list[Score] = []
        for metric in chosen_metrics(self.metrics, question.pair):
            scores = self._stored.get((question.identity, metric))
            if scores is None:
                scores = self._make(question, fit or self.store.fit(question.identity), metric, self.view)
                self.store.add_scores(scores)
            # The same fit may have been asked for under other names: of a dataset, or to tell two models apart.
            pair = question.pair
            found += [
                replace(score, dataset=pair.dataset, test_dataset=pair.test_dataset, model=pair.model)
                for score in scores
            ]
        self._made.clear()
        return found

    def headline(self, question: Question, fit: Fit) -> list[Score]:
        """Return the scores of a new fit in its dataset's headline metric; keeps nothing."""
        return self._make(question, fit, headline(question.pair), View())

    def _make(self, question: Question, fit: Fit, metric: str, view: View) -> list[Score]:
        key = fit.identity, metric, view
        if key not in self._made:
            if fit.cases not in self._cases:
                self._cases[fit.cases] = self.store.cases(fit.cases)
            self._made[key] = score_fit(question, fit, self._cases[fit.cases], metric, view)
        return self._made[key]


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


def run_probe(request: ProbeRequest) -> Answers:
    """Probe cached features: every model of every dataset, at every budget, for every seed.

    Raises InputError, CacheError and FitError.
    """
    recipe = get_protocol(request.protocol)
    recipe.check_select(request.select)
    cache = folders.cache_dir(request.cache_dir)
    pairs = find_pairs(
        Catalog(cache, request.files), models=request.models, datasets=request.datasets,
        test_dataset=request.test_dataset, select_val=request.select == "val", everything=request.everything,
    )  # fmt: skip
    for pair in pairs:
        recipe.check_task(pair.task, pair.dataset)
    check_metrics(request.metrics, pairs)
    drawn_to = Path(request.draw_file) if request.draw_file else None
    draws = DrawFile(drawn_to) if drawn_to and drawn_to.exists() else DrawSource()
    if drawn_to:
        check_draw_file(drawn_to, pairs)
    fitting = Fitting(recipe, request.solver, request.device)
    how = {**fitting.identity(), "select": request.select}
    questions = [
        Question(pair, budget, seed, "probe", how, draw)
        for pair in pairs
        for budget, seed, draw in draws.asked(request.fractions, request.shots, request.seeds)
    ]
    with ScoreStore(folders.scores_path(request.scores, cache)) as store:
        scorer = Scorer(store, request.metrics, View(request.level, request.by))
        folder = ModelFolder(Path(request.save), scorer.headline) if request.save else None
        prober = Prober(fitting, store, draws, folder)
        answers = ask(questions, prober, scorer, draws, again=folder is not None)
        if drawn_to and not drawn_to.exists():
            save_draws(drawn_to, questions, draws, store)
        return answers
