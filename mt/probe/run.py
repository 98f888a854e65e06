"""The evaluation: questions are answered from the score database, or by fitting, storing and scoring.

`ask` serves every method (probes, fusion): its caller passes a function that yields one `Fit` per question.
`run_probe`, which `mt probe` calls, asks linear probes; its `Prober` reads a pair's features once, then fits its draws.
"""

from __future__ import annotations

import pkgutil
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mt.cache.catalog import Catalog, Entry
from mt.errors import FitError
from mt.probe.bags import BaggedFeatures, Bags, bag_recipe
from mt.probe.budgets.draw import Draw, DrawSource
from mt.probe.budgets.draw_file import check_draw_file, save_draws
from mt.probe.budgets.random_draws import draw_source
from mt.probe.labelled import labelled
from mt.probe.method_settings import Logistic, Propagate
from mt.probe.methods.attention import AttentionProbe, check_protocol, fit_attention
from mt.probe.methods.propagation import UnlabelledPool
from mt.probe.protocols import Fitted, Fitting, get_protocol
from mt.probe.questions import ATTENTION, Bagging, Pair, Question, find_pairs, suggest_folds, with_bags
from mt.probe.request import Answers, Foldable, ProbeRequest, decisions_of
from mt.probe.saved import ModelFolder, parts_of_probe
from mt.probe.scores.declared import declare_primary, metrics_asked
from mt.probe.scores.scoring import Scorer, View, check_metrics, row_flags
from mt.probe.solver.request import is_streamed
from mt.results.store import Fit, Score, ScoreStore
from mt.system import files
from mt.terminal import progress
from mt.types import MISSING, Array, CaseFeatures, LabelledRows

if TYPE_CHECKING:
    from mt.probe.cross_validation.fold_answers import CrossValidation
    from mt.probe.decisions.decided import Decider, Decisions
    from mt.probe.memory.streamed_features import Streaming

# Yields one fit per question, in order, each as soon as it is fitted; questions that repeat a draw are omitted.
Answering = Callable[[Sequence[Question]], Iterable[Fit]]


def ask(
    questions: Sequence[Question],
    answer: Answering,
    scorer: Scorer,
    draws: DrawSource,
    *,
    again: bool | Collection[str] = False,
    doing: str = "probing",
) -> Answers:
    """Answer every question from the store or by `answer`, store each fit at once, and return all scores.

    Draws that take every row are the same draw: of such questions on one budget, only the first is answered.
    again: fit even if the answer is stored: True for all questions, or the identities of some.
    doing: the label of the progress bar.  KeyboardInterrupt is raised with the number of stored fits in its message.
    """
    store, identities = scorer.store, [question.identity for question in questions]
    known = set() if again is True else store.has_fits(identities) - set(again or ())
    scorer.find(identities)
    for question in questions:
        if question.identity in known:  # registered before `answer` draws for later questions
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
    """Yield every answered question with its fit, stored; None instead of a fit that was stored before."""
    fits = iter(answer([question for question in questions if question.identity not in known]))
    waiting: Fit | None = None
    for question in questions:
        if question.identity in known:
            yield question, None
            continue
        waiting = waiting or next(fits, None)
        if waiting is not None and waiting.identity == question.identity:
            # If another process stored this fit first, its predictions are used.
            yield question, waiting if store.add_fit(waiting) else store.fit(question.identity)
            waiting = None


@dataclass(frozen=True)
class Planned:
    """What a request asks, before anything is fitted.

    folded: the evaluation by test folds.  streaming: opens features that are read chunk by chunk.  None: not asked for.
    """

    cache: Path
    pairs: list[Pair]
    questions: list[Question]
    draws: DrawSource
    fitting: Fitting
    decisions: Decisions | None
    folded: CrossValidation | None
    streaming: Streaming | None


def plan_probe(request: ProbeRequest) -> Planned:
    """Return what a request asks, without reading features.  Raises InputError; CacheError if test features lack."""
    streaming: Streaming | None = None
    if request.memory is not None:
        from mt.probe.memory import streamed_features

        streaming = streamed_features.Streaming.of(request)
    drawn_to = Path(request.draw_file) if request.draw_file else None
    ours = request.draw == "stratified" and drawn_to is None
    draws = DrawSource() if ours else draw_source(request.draw, drawn_to)
    folded = folded_of(request, draws)
    recipe = get_protocol(request.protocol)
    recipe.check_select(request.select)
    cache = files.cache_dir(request.cache_dir)
    pairs = find_pairs(
        Catalog(cache, request.files),
        models=request.models,
        datasets=request.datasets,
        test_dataset=request.test_dataset,
        select_val=request.select == "val",
        join=bool(request.test_folds),
        everything=request.everything,
    )
    pairs = with_bags(pairs, request.bag, request.pool)
    if request.pool == ATTENTION:
        check_protocol(recipe)
    for pair in pairs:
        recipe.check_task(pair.task, pair.dataset)
    if streaming:
        streaming.check(pairs)
    check_metrics(request.metrics, pairs)
    decided = request.threshold, request.calibrate, request.prevalence
    decisions = None if decided == (None, None, None) else decisions_of(*decided, pairs)
    draws = folded.draws if folded else draws
    if drawn_to:
        check_draw_file(drawn_to, pairs)
    fitting = Fitting(recipe, request.solver, request.device)
    how = {**fitting.identity(), "select": request.select}
    questions = [
        Question(pair, budget, seed, "probe", {**how, **_rows_recipe(pair, fitting)}, draw)
        for pair in pairs
        for budget, seed, draw in draws.asked(request.fractions, request.shots, request.seeds)
    ]
    return Planned(cache, pairs, questions, draws, fitting, decisions, folded, streaming)


def run_probe(request: ProbeRequest) -> Answers:
    """Probe cached features: every model of every dataset, at every budget, for every seed.

    Raises InputError, CacheError without test features, DamagedError for damaged ones, FitError for a single class.
    """
    if request.primary:
        request = replace(request, metrics=metrics_asked(request))
    planned = plan_probe(request)
    streaming = planned.streaming
    questions, draws, decisions, folded = planned.questions, planned.draws, planned.decisions, planned.folded
    with ScoreStore(files.scores_path(request.scores, planned.cache)) as store:
        if request.primary:
            declare_primary(request, planned.pairs, store)
        metrics = decisions.shown(request.metrics) if decisions else request.metrics
        scorer = Scorer(store, metrics, View(request.level, request.by))
        decider = decisions.decider(store) if decisions else None
        folder = ModelFolder(Path(request.save), scorer.headline, decider) if request.save else None
        prober: Answering = Prober(planned.fitting, store, draws, folder, streaming or open_cases, decider)
        if folded:
            prober = folded.answering(store, partial(Prober, planned.fitting, opened=folded.opened))
        prober = prober if streaming else _within(request.memory, planned, prober)
        answers = ask_decided(questions, prober, scorer, draws, decider, again=folder is not None)
        if request.draw_file and not Path(request.draw_file).exists():
            save_draws(Path(request.draw_file), questions, draws, store)
        if streaming:
            streaming.note()
        if answers.n_fitted and folded is None and not request.test_dataset:
            suggest_folds(planned.pairs)
        return answers


def _within(memory: int | None, planned: Planned, answer: Answering) -> Answering:
    """Return the same answers; fits that need more memory than `memory`, or than there is, are refused beforehand."""
    small = isinstance(planned.fitting.protocol.method, Logistic) and all(pair.is_small for pair in planned.pairs)
    if small and memory is None:
        return answer
    from mt.probe.memory.needs import within

    return within(memory, planned.fitting, answer, folds=planned.folded is not None)


def _rows_recipe(pair: Pair, fitting: Fitting) -> dict[str, Any]:
    """Return what a recipe says of its rows: how they become cases, and which train rows serve without their labels."""
    cases = bag_recipe(pair.bagging) if pair.bagging else {}
    return {**cases, "pool": pair.fingerprints["train"]} if isinstance(fitting.protocol.method, Propagate) else cases


def ask_decided(
    questions: Sequence[Question],
    answer: Answering,
    scorer: Scorer,
    draws: DrawSource,
    decider: Decider | None,
    *,
    again: bool = False,
    doing: str = "probing",
) -> Answers:
    """Answer every question as `ask` does; if scaling is asked for, answer each with scaled probabilities too.

    A fit that was stored without its out-of-fold scores is made again if a decision needs them.
    """
    if decider is None:
        return ask(questions, answer, scorer, draws, again=again, doing=doing)
    lacking = decider.out_of_fold.lacking([question.identity for question in questions])
    answers = ask(questions, answer, scorer, draws, again=again or lacking, doing=doing)
    decider.remember(questions)
    answers = replace(answers, decisions=decider.asked)
    if decider.asked.calibrate is None:
        return answers
    scaled = ask([decider.scaled_question(one) for one in questions], decider, scorer, draws, doing="scaling")
    return replace(
        answers,
        scores=[*answers.scores, *scaled.scores],
        n_fitted=answers.n_fitted + scaled.n_fitted,
        n_stored=answers.n_stored + scaled.n_stored,
    )


def folded_of(request: Foldable, source: DrawSource) -> CrossValidation | None:
    """Return the evaluation by test folds; None if it is not asked for.  Raises InputError for excluded options."""
    if request.test_folds is None and request.repeats == 1:
        return None
    from mt.probe.cross_validation.fold_answers import CrossValidation
    from mt.probe.cross_validation.fold_draws import Folds

    return CrossValidation(Folds(request.checked_folds(), request.repeats), source)


# Opens the rows of one feature file.
Opening = Callable[[Entry, Bagging | None], CaseFeatures]


def open_cases(entry: Entry, bagging: Bagging | None) -> CaseFeatures:
    """Open the labelled rows of a feature file and verify every checksum; with `bagging`, one row is one case."""
    file = entry.open(verify=True)
    cases = file if bagging is None else BaggedFeatures(file, bagging)
    return labelled(cases) if entry.has_unlabelled else cases


# Fit draws together only if their features hold at most 4 Mi numbers in all: larger draws gain nothing from it.
TOGETHER = 4 << 20


@dataclass(frozen=True)
class Features:
    """The opened feature files of a pair: verified once, mapped into memory, shared by all of its draws."""

    pair: Pair
    train: CaseFeatures
    test: CaseFeatures
    val: CaseFeatures | None

    @classmethod
    def load(cls, pair: Pair, opened: Opening = open_cases) -> Features:
        """Open the files and check every block's checksum.  opened: the function that opens one entry.

        Raises DamagedError, which names the damaged rows, and FitError if all train labels are of one class.
        """
        val = opened(pair.val[0], pair.bagging) if pair.val else None
        features = cls(pair, opened(pair.train[0], pair.bagging), opened(pair.test[0], pair.bagging), val)
        labels = features.pool.y
        if not len(labels) or (labels.max(axis=0) <= np.where(labels == MISSING, 1, labels).min(axis=0)).all():
            raise FitError(
                f"'{pair.dataset}' has only one class in its {len(labels)} train labels: expected at least two. "
                "See: mt datasets check"
            )
        return features

    @property
    def n_classes(self) -> int:
        return len(self.train.class_names)

    @cached_property
    def pool(self) -> LabelledRows[None]:
        """The rows that draws are taken from."""
        return LabelledRows(None, self.train.labels, self.train.groups, self.train.ids)

    @cached_property
    def unlabelled(self) -> UnlabelledPool:
        """The train rows without their labels; their graph of neighbours serves all draws."""
        return UnlabelledPool(self.train.embeddings, self.train.ids)

    @cached_property
    def cases(self) -> LabelledRows[None]:
        """The test cases, with the metadata columns that define subgroups."""
        return LabelledRows(None, self.test.labels, self.test.groups, self.test.ids, self.test.columns)

    @cached_property
    def validation(self) -> LabelledRows[Array] | None:
        """The rows of the validation split, if they choose settings."""
        return None if self.val is None else LabelledRows(self.val.embeddings, self.val.labels)

    @cached_property
    def shared_groups(self) -> int:
        """The number of test groups that are also in the train split, or in the validation split if that chooses."""
        if self.pair.test_dataset != self.pair.dataset or self.cases.groups is None:
            return 0  # the same name is another patient in another dataset
        used = set(self.pool.groups or ()) | set((self.val.groups if self.val else None) or ())
        return len(used & set(self.cases.groups))

    def drawn(self, rows: Array) -> LabelledRows[Array]:
        """Return the budget of these train rows, in file order; if they are all rows, a view of the file."""
        every = self.pool.with_features(self.train.embeddings)
        return every if len(rows) == len(every) else every.take(np.sort(rows))


class Prober:
    """Fits one protocol for every question; holds one pair's features at a time.

    folder: saves every fitted probe (`--save`).  opened: the function that opens one feature file.
    decider: gets the out-of-fold scores of every fit.
    """

    def __init__(
        self,
        fitting: Fitting,
        store: ScoreStore,
        draws: DrawSource,
        folder: ModelFolder | None = None,
        opened: Opening = open_cases,
        decider: Decider | None = None,
    ) -> None:
        self.fitting, self.store, self.draws, self.folder, self.opened = fitting, store, draws, folder, opened
        self.decider = decider
        self._loaded: tuple[Features, str, str] | None = None

    def __call__(self, questions: Sequence[Question]) -> Iterator[Fit]:
        """Yield the fits that answer the questions, in order; questions that repeat a draw are omitted.

        Consecutive small draws of one budget are fitted together.
        """
        for _, same in groupby(questions, key=lambda question: (id(question.pair), question.budget)):
            yield from self._fits(list(same))

    def _fits(self, questions: list[Question]) -> Iterator[Fit]:
        """Yield the fits of one budget's draws."""
        features = self._features(questions[0].pair)[0]
        fitting = self.fitting.on(features.train.task, features.n_classes)
        drawn = [(question, self.draws.draw(features.train, question.budget, question.seed)) for question in questions]
        wanted = [(question, draw) for question, draw in drawn if not self.draws.repeats(question, draw.realised)]
        numbers = features.train.dim * max((len(draw.rows) for _, draw in wanted), default=1)
        at_once = max(1, TOGETHER // numbers) if fitting.batched else 1
        for start in range(0, len(wanted), at_once):
            some = wanted[start : start + at_once]
            fits = fit_probes(
                [(features.drawn(draw.rows), question.seed) for question, draw in some],
                fitting,
                validation=features.validation,
                pool=self._pool(features),
            )
            for (question, draw), fitted in zip(some, fits, strict=True):
                if self.decider:
                    self.decider.keep_probe(
                        question,
                        features.drawn(draw.rows),
                        fitting,
                        fitted,
                        partial(fit_probe, fitting=fitting, seed=question.seed, validation=features.validation),
                    )
                yield self._fit(question, draw, fitting, fitted)

    def _pool(self, features: Features) -> UnlabelledPool | None:
        """Return all train rows, if the protocol uses them."""
        wanted = isinstance(self.fitting.protocol.method, Propagate)
        return features.unlabelled.checked(saving=self.folder is not None) if wanted else None

    def _fit(self, question: Question, drawn: Draw, fitting: Fitting, fitted: Fitted) -> Fit:
        """Return what is stored of a fitted probe: its test probabilities, settings and flags; save it if asked for."""
        features, pool, cases = self._features(question.pair)
        probabilities = fitted.probe.probabilities(features.test.embeddings)
        n_val = 0 if features.validation is None else len(features.validation.y)
        outcome = {
            "task": fitting.task,
            "class_names": list(features.train.class_names),
            "protocol": fitting.protocol.name,
            "solver": fitting.solver.name if fitting.solver else fitting.protocol.name,
            "select": "val" if n_val else fitting.protocol.validation.kind,
            "settings": fitted.settings,
            "selection": fitted.selection,
            "flags": [*fitted.flags, *row_flags(features, probabilities)],
            "realised": drawn.realised,
            "n_labels": len(drawn.rows) + n_val,
            "versions": fitting.versions(),
            **({"streamed": True} if is_streamed(features.train.embeddings) else {}),
        }
        fit = Fit(question.identity, pool, cases, drawn.rows, probabilities, outcome)
        if self.folder:
            self.folder.write(question, fit, *parts_of_probe(question, features.train, fitted))
            if isinstance(fitted.probe, AttentionProbe) and isinstance(features.test, BaggedFeatures):
                self.folder.write_attention(question, fitted.probe, features.test)
        return fit

    def _features(self, pair: Pair) -> tuple[Features, str, str]:
        if self._loaded is None or self._loaded[0].pair is not pair:
            self._loaded = None
            features = Features.load(pair, self.opened)
            self._loaded = features, self.store.add_cases(features.pool), self.store.add_cases(features.cases)
        return self._loaded


BudgetRows = LabelledRows[Array]


def fit_probe(budget: BudgetRows, fitting: Fitting, *, seed: int, validation: BudgetRows | None = None) -> Fitted:
    """Fit a protocol on one budget; `validation` holds the validation rows, if these choose the settings."""
    return fit_probes([(budget, seed)], fitting, validation=validation)[0]


def fit_probes(
    draws: Sequence[tuple[BudgetRows, int]],
    fitting: Fitting,
    *,
    validation: BudgetRows | None = None,
    pool: UnlabelledPool | None = None,
) -> list[Fitted]:
    """Fit a protocol on several budgets with their seeds; fitting them together does not change results."""
    method = fitting.protocol.method
    if isinstance(draws[0][0].X, Bags):
        return [fit_attention(budget, fitting, seed, validation) for budget, seed in draws]
    fit = pkgutil.resolve_name(method.fitter)
    pools = (pool,) if isinstance(method, Propagate) else ()
    fitted: list[Fitted] = fit(draws, fitting, method, validation, *pools)
    return fitted
