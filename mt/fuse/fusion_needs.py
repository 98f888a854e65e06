"""What fits on several models hold in memory at once, estimated from the sizes of feature files before any is read.

A study with a fit that needs more than there is, or than `--memory` allows, is refused in one line before it fits
anything.  The estimates are of the largest step of each method, on the CPU; tests compare them with measured peaks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from mt.fuse.combined import fitting_of
from mt.fuse.dvme.coordinates import RESERVE, kept_directions
from mt.fuse.dvme.fit import BLEND_CLASSES, BLEND_ROWS, DVMEOptions, shape_of
from mt.fuse.dvme.logistic_starts import INNER_CS
from mt.fuse.dvme.network_inputs import most_rows
from mt.fuse.dvme.recipes import CHOICES, recipes_of
from mt.fuse.dvme.training import EVALUATED
from mt.fuse.rivals import OF_PROBES
from mt.probe.memory.needs import Size
from mt.probe.protocols import Fitting
from mt.probe.questions import Pair, Question
from mt.system.memory import check_memory

_FOLDS = 5
_COPIES = 9  # of all networks' numbers while they train: weights, gradients, Adam's two means, their start, a step
_LAYERS = 12  # values that a network holds per token's entry of a row


def check_fusions(questions: Sequence[Question], fitting: Fitting, memory: int | None, *, folds: bool) -> None:
    """Check that each fit needs at most ``memory`` bytes, or what there is.

    questions: on one model or several.  folds: whether the splits are joined, and tested by folds.  Raises InputError.
    """
    sizes = {FusedSize.of(question, folds=folds): question for question in questions}
    if not sizes:
        return
    largest = max(sizes, key=lambda size: size.of_fit(fitting))
    pair, budget = sizes[largest].pair, sizes[largest].budget
    what = f"{largest.what} on {largest.rows:,} rows x {largest.dim:,} of '{pair.dataset}' ({pair.model}, {budget})"
    fewer = "fewer labels (--fraction, --shots)"
    if len(largest.each) > 1:
        fewer += ", fewer models (--model), or a method that needs less (--method average)"
    check_memory(what, largest.of_fit(fitting), f"Use {fewer}, or set another limit: --memory AMOUNT", limit=memory)


@dataclass(frozen=True)
class FusedSize:
    """The sizes of one fit by a method on several models: those of a fit on each of them alone, in order."""

    method: str
    each: tuple[Size, ...]

    @classmethod
    def of(cls, question: Question, *, folds: bool) -> FusedSize:
        """Return the sizes of a question's fit."""
        pair = question.pair
        pairs = [
            Pair(pair.dataset, pair.test_dataset, pair.model, (train,), (test,))
            for train, test in zip(pair.train, pair.test, strict=True)
        ]
        return cls(question.method, tuple(Size.of(replace(question, pair=one), folds=folds) for one in pairs))

    @property
    def what(self) -> str:
        return "A probe" if self.method == "probe" else f"Method '{self.method}'"

    @property
    def rows(self) -> int:
        return self.each[0].rows

    @property
    def dim(self) -> int:
        return sum(size.dim for size in self.each)

    @property
    def whole(self) -> Size:
        """The sizes of a fit on all embeddings side by side."""
        return replace(
            self.each[0],
            dim=self.dim,
            itemsize=max(size.itemsize for size in self.each),
            copied=sum(size.copied for size in self.each),
        )

    def of_fit(self, fitting: Fitting) -> int:
        """Return the bytes that loading, fitting and predicting hold at once, at most."""
        whole = self.whole
        if self.method == "probe":
            return whole.of_fit(fitting)
        drawn = self.rows * sum(size.dim * size.itemsize for size in self.each)
        return whole.of_fit(fitting, fitted=drawn + self.of_method(fitting))

    def of_method(self, fitting: Fitting) -> int:
        """Return the bytes of the largest step of the method, beside the rows of its budget."""
        if self.method in OF_PROBES:
            return max(size.of_method(fitting) for size in self.each)
        whole = self.whole
        beside = (self.rows + whole.others) * self.dim * whole.itemsize  # the budget and the test cases side by side
        if self.method in ("concat", "blend"):
            return beside + whole.of_method(fitting_of(self.method, fitting))
        blend = 0
        if "blend" in CHOICES[self.method] and whole.classes >= BLEND_CLASSES and self.rows <= BLEND_ROWS:
            blend = whole.of_method(fitting_of("blend", fitting))
        return beside + self.rows * self.dim * 8 + max(blend, self._starts(fitting) + self._networks())

    def _starts(self, fitting: Fitting) -> int:
        """The logistic regressions of the folds and of their inner folds, at every C."""
        solutions = _FOLDS**2 * len(INNER_CS) * self.each[0].classes * self.dim * 8
        return self.whole.of_method(fitting) + 3 * solutions

    def _networks(self) -> int:
        """The networks of all folds that train together, what each thread sees of the rows, and a step or a look."""
        import torch

        rows, classes, models = self.rows, self.each[0].classes, len(self.each)
        recipes = [recipe for recipe in recipes_of(CHOICES[self.method]) if recipe.epochs]
        networks = _FOLDS * max(1, len(recipes))
        kept = [kept_directions(rows, size.dim) for size in self.each]
        seen = [few if few == size.dim else few + classes for few, size in zip(kept, self.each, strict=True)]
        outputs = classes if classes > 2 else 1
        width = shape_of(DVMEOptions(), [size.dim for size in self.each], rows, outputs, "multiclass").width
        numbers = width * (sum(seen) + 4 * width + models * width + outputs)
        a_row = sum(seen) + _LAYERS * models * width
        batch = networks * most_rows(max(recipe.batch for recipe in recipes)) if recipes else 0
        held = EVALUATED // sum(seen)
        directions = max(
            (
                rows * (size.dim + 3 * (few + RESERVE)) * 8
                for few, size in zip(kept, self.each, strict=True)
                if few < size.dim
            ),
            default=0,
        )
        rows_seen = (1 + min(torch.get_num_threads(), networks)) * rows * sum(seen) * 4
        own = 2 * networks * rows * classes * models * 4
        return (
            directions
            + rows_seen
            + own
            + _COPIES * networks * numbers * 4
            + max(batch, min(held, networks * rows)) * a_row * 4
        )
