"""What fits hold in memory at once, estimated from the sizes of feature files before any is read.

A fit that needs more than there is, or than `--memory` allows, is refused in one line.  The estimates are of the
largest step of each method, on the CPU; tests compare them with measured peaks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from mt.probe.method_settings import Blend, BlendFour, Head, Logistic, Neighbours, Propagate
from mt.probe.protocols import Fitting
from mt.probe.questions import Question
from mt.results.store import Fit
from mt.system.memory import available_memory, check_memory

ROW = 400  # bytes of a row beside its features: id, group and label as Python objects, and what scoring holds
_AT_ONCE = 1 << 24  # similarities, or logits, that are held at once
_FOLDS = 5

Answer = Callable[[Sequence[Question]], Iterable[Fit]]


def within(memory: int | None, fitting: Fitting, answer: Answer, *, folds: bool) -> Answer:
    """Return the same answers, after checking that every fit's memory is at most ``memory``, or what there is.

    folds: whether the splits are joined, and tested by folds.  Raises InputError.
    """

    def answered(questions: Sequence[Question]) -> Iterable[Fit]:
        sizes = {Size.of(question, folds=folds): question for question in questions if not question.pair.bagging}
        if sizes:
            largest = max(sizes, key=lambda size: size.of_fit(fitting))
            _check(sizes[largest], largest, fitting, memory, folds=folds)
        return answer(questions)

    return answered


def _check(question: Question, size: Size, fitting: Fitting, memory: int | None, *, folds: bool) -> None:
    name, pair = fitting.protocol.name, question.pair
    what = (
        f"Protocol '{name}' on {size.rows:,} rows x {size.dim:,} of '{pair.dataset}' ({pair.model}, {question.budget})"
    )
    streams = isinstance(fitting.protocol.method, Logistic) and not folds
    by_disk = "--memory" if streams else "--protocol default --memory"
    room = available_memory() // 2 if memory is None else memory
    instead = "Use fewer labels (--fraction, --shots)" + (
        "." if folds else f", or read the features from disk in every step: {by_disk} {_typed(room)}"
    )
    check_memory(what, size.of_fit(fitting), instead, limit=memory)


def _typed(amount: int) -> str:
    """Return an amount of memory as `--memory` takes it, rounded down."""
    return f"{amount >> 30}GB" if amount >= 1 << 30 else f"{max(1, amount >> 20)}MB"


@dataclass(frozen=True)
class Size:
    """The sizes of one fit.

    rows: of the budget.  train, others: rows of the train split, and of the other splits.  val: rows that choose.
    itemsize: bytes of a stored number.  copied: bytes of splits that are copied, as they lie in no file in this order.
    """

    rows: int
    train: int
    others: int
    val: int
    dim: int
    itemsize: int
    copied: int
    classes: int

    @classmethod
    def of(cls, question: Question, *, folds: bool) -> Size:
        """Return the sizes of a question's fit."""
        pair = question.pair
        train, test, val = pair.train[0], pair.test[0], pair.val[0] if pair.val else None
        itemsize = 2 if train.bytes < 3 * train.n_rows * train.dim else 4
        splits = [train, test, *([val] if val else [])]
        copied = [entry for entry in splits if folds or entry.has_unlabelled or entry.n_skipped]
        total = sum(entry.n_rows for entry in splits)
        n = total if folds else train.n_rows
        rows, budget = n, question.budget
        classes = len(train.manifest["class_names"])
        if budget.fraction is not None:
            rows = max(1, round(budget.fraction * n))
        elif budget.shots is not None:
            rows = min(n, budget.shots * classes)
        return cls(
            rows,
            n,
            total if folds else total - n,
            0 if folds or val is None else val.n_rows,
            train.dim,
            itemsize,
            (2 if folds else 1) * sum(entry.n_rows for entry in copied) * train.dim * itemsize,
            classes,
        )

    def of_fit(self, fitting: Fitting, *, fitted: int | None = None) -> int:
        """Return the bytes that loading, fitting and predicting hold at once, at most.

        fitted: those of the budget's rows and of their fit, if they are not a probe's.
        """
        if fitted is None:
            fitted = self.of_method(fitting) + (self.rows * self.dim * self.itemsize if self.rows < self.train else 0)
        probabilities = 6 * self.others * self.classes * 8
        return self.copied + (self.train + self.others) * ROW + probabilities + fitted

    def of_method(self, fitting: Fitting) -> int:
        method, held_out = fitting.protocol.method, fitting.protocol.validation
        repeats = held_out.repeats if self.rows < 10 * held_out.few * self.classes else 1
        logistic = fitting.protocol.logistic
        linear = self._logistic(logistic, repeats) if logistic else 0
        match method:
            case Neighbours():
                return self._neighbours(method)
            case Head():
                return self._head(method, fitting)
            case Propagate():
                return linear + self._propagation(method, repeats)
            case Blend():
                return linear + self._lda(method, repeats)
            case BlendFour():
                return linear + 2 * self._lda(method, repeats)
        return linear

    def _logistic(self, method: Logistic, repeats: int) -> int:
        """Scaled rows, the design, the problems solved at once, and logits of held-out rows at every C."""
        from mt.probe.solver.api import LOGIT_COPIES, MEMORY, SMALL, WEIGHT_COPIES, WIDE
        from mt.probe.solver.basis import PRODUCT_BYTES

        number = 8 if method.dtype == "float64" else 4
        rank, Cs = min(self.rows, self.dim) + 1, len(method.Cs)
        design = self.rows * rank * number
        problem = self.classes * (LOGIT_COPIES * self.rows + WEIGHT_COPIES * rank) * number
        fits = _FOLDS if Cs > 1 and not self.val else 1
        waves = max(1, Cs // -(-max(WIDE, SMALL // (self.rows * rank)) // (fits * self.classes)))
        solved = max(problem, min(max(MEMORY, design // 4), problem * fits * -(-Cs // waves)))
        wide = (3 * self.rows * self.dim + 4 * self.rows**2) * 8 if self.rows <= self.dim else 3 * self.dim**2 * 8
        exact = min(self.rows * self.dim * 8, PRODUCT_BYTES)
        judged = (2 * self.val or self.rows) * self.classes * 4 * (repeats + 1) * Cs if Cs > 1 else 0
        held = self.rows * self.dim * number + design + solved + wide + exact + judged + self.val * self.dim * 8
        return held + self._hessians(fits, rank, number, max(MEMORY, design // 4))

    def _hessians(self, fits: int, columns: int, number: int, memory: int) -> int:
        """What the last rounds of a solve hold: factors of Hessians, and rows that couple the classes of a whole one.

        The Hessians of all fits in the design's precision, if it is tall; then of one problem in float64.
        """
        from mt.probe.solver.rounds import CHEAP, HESSIAN_COPIES, TALL, WHOLE

        coefs = (1 if self.classes == 2 else self.classes) * columns
        if coefs <= CHEAP:
            return 0
        one, coupled = (coefs**2, self.rows * coefs) if coefs <= WHOLE else (columns * coefs, 0)
        tall = min(memory, (fits + HESSIAN_COPIES) * one * number) + coupled * number
        exact = HESSIAN_COPIES * one * 8 + coupled * 8
        return max(tall if self.rows >= TALL * columns else 0, exact if HESSIAN_COPIES * one * 8 <= memory else 0)

    def _neighbours(self, method: Neighbours) -> int:
        """The bank of unit length, a block of queries, and each k's votes on held-out rows."""
        held = self.val or self.rows
        votes = 2 * len(method.ks) * held * self.classes * 4
        similarities = 8 * min(_AT_ONCE, self.rows * max(self.rows, self.others))
        return self.rows * self.dim * (4 + self.itemsize) + similarities + votes

    def _head(self, method: Head, fitting: Fitting) -> int:
        """Rows as scaled and with a column of ones, all held at once, and the weights of all runs and settings."""
        settings = method.runs * len(method.learning_rates) * len(method.weight_decays)
        every, held = self.rows + self.val, fitting.protocol.validation.kind != "none"
        weights = 10 * settings * self.classes * (self.dim + 1) * 4
        logits = 24 * min(_AT_ONCE, every * settings * self.classes) if held else 0
        return every * self.dim * (self.itemsize * held + 12) + weights + logits

    def _propagation(self, method: Propagate, repeats: int) -> int:
        """All train rows of unit length, their graph, and a linear system with a column per fold and class."""
        graph = self.train * method.neighbours * 120
        system = 7 * self.train * _FOLDS * repeats * self.classes * 8
        return self.train * self.dim * 5 + graph + system + 8 * min(_AT_ONCE, self.train**2)

    def _lda(self, method: Blend | BlendFour, repeats: int) -> int:
        """Rows of unit length, covariances, and held-out probabilities of every shrinkage and temperature."""
        candidates = len(method.shrinkages) * len(method.temperatures) * repeats
        span = min(self.rows, self.dim)
        wide = 3 * self.rows * self.dim * 8 if self.rows < self.dim else 0
        return (
            self.rows * self.dim * 5 + wide + 4 * span**2 * 8 + candidates * (self.val or self.rows) * self.classes * 8
        )
