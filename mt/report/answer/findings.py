"""What a panel answers at each budget: the best model, the gain of fusion, and the labels that would gain as much.

Models are compared on the draws and test cases that they share.  The gain is one comparison that is fixed beforehand:
the first fusion of `FUSIONS` on the most models, minus the best single model chosen inside the budget.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from mt.probe.questions import Budget
from mt.probe.scores.metrics import METRICS
from mt.probe.scores.score_tables import Cell, Mark, comparisons, competing, marks
from mt.report.answer.paired_gain import PairedGain
from mt.report.labels_needed import Needed, labels_to_reach
from mt.report.panels import Panel, PanelCell, as_grid
from mt.results.store import ScoreStore

FUSIONS = ("dvme", "blend", "concat", "average")  # the first one that is there is called "fusing"
CHOSEN_INSIDE = "best-single"  # the best single model, chosen inside the budget
NOT_CHOSEN = frozenset({"fixed_C", "first_model"})  # its flags where no rows were held out to choose it by
SINGLE = "probe"
NO_RIVALS = (CHOSEN_INSIDE, "oracle")  # rows that are one of the single models: they have no rank of their own
_FEW = "fewer than"  # in the flags of scores that rest on few test cases


@dataclass(frozen=True)
class FusionGain(PairedGain):
    """Fusion minus one model at a budget; its interval is over draws and test cases.

    base: the best single model chosen inside the budget, or with `by_test` the best one on the test cases.
    reached: labels at which the base scores as high as fusion, None where its curve cannot be read.
    """

    reached: Needed | None = None
    by_test: bool = False

    @property
    def significant(self) -> bool:
        """Whether the 95 % interval excludes 0."""
        return self.low > 0 or self.high < 0

    @property
    def more(self) -> int | None:
        """Labels beyond the base's own that gain as much; None if nothing is gained or the curve ends before that."""
        if self.value <= 0 or self.reached is None or self.reached.sign:
            return None
        return max(1, self.reached.labels - self.base.n_labels)


@dataclass(frozen=True)
class BudgetAnswer:
    """The answer at one budget.

    best: the best single models, several where their means are equal; fusions where no single model is shown.
    level: other models that are not significantly worse, by max-T.  others: how many are compared with the best.
    fused: whether a fusion was fitted at this budget.  unchosen: whether a draw held too few labels to choose the best
    single model inside the budget, so that a gain over it would mean nothing.
    ranks: of every row that is compared, equal means share one.
    doubts: why nothing can be concluded; empty where something can.
    """

    panel: Panel
    budget: Budget
    best: tuple[PanelCell, ...]
    level: tuple[str, ...]
    others: int
    fused: bool
    unchosen: bool
    gain: FusionGain | None
    ranks: Mapping[str, int]
    doubts: tuple[str, ...]

    @property
    def labels(self) -> int:
        """Labels used: of the best model, or of any where none is best."""
        cells = self.best or tuple(cell for cell in self.panel.headline if cell.budget == self.budget)
        return cells[0].n_labels


def answers(store: ScoreStore, panel: Panel) -> list[BudgetAnswer]:
    """Return the answer at every budget, few labels first."""
    return [_answer(store, panel, budget) for budget in dict.fromkeys(cell.budget for cell in panel.headline)]


def leading(found: Sequence[BudgetAnswer]) -> BudgetAnswer:
    """Return the answer that a dataset's sentence is made of: the declared budget, where one was declared.

    Otherwise the fewest labels at which something can be concluded; where nothing can be concluded at any budget, the
    fewest labels at which models are compared, else the fewest.
    """
    declared = [one for one in found if _is_declared(one)]
    if declared:
        return declared[0]
    conclusive = [one for one in found if not one.doubts]
    compared = [one for one in found if one.best and one.others]
    return next(iter([*conclusive, *compared, *found]))


def _is_declared(one: BudgetAnswer) -> bool:
    """Return whether this is the declared budget, and its panel shows the declared metric."""
    stated = one.panel.declaration
    return stated is not None and (stated.primary.metric, stated.primary.budget) == (one.panel.metric, one.budget)


def _answer(store: ScoreStore, panel: Panel, budget: Budget) -> BudgetAnswer:
    cells = {cell.name: cell for cell in _unscaled(cell for cell in panel.headline if cell.budget == budget)}
    singles = [cell for cell in cells.values() if cell.method.method == SINGLE]
    models = singles or [cell for cell in cells.values() if cell.method.method not in NO_RIVALS]
    together, judged = _compared(store, models, budget)
    means = {name: cell.spread.mean for name, cell in together.items()}
    sign = 1 if METRICS[panel.metric].greater_is_better else -1
    best = [name for name, mean in means.items() if mean == (max if sign > 0 else min)(means.values())]
    ranked, _ = _compared(store, [cell for cell in cells.values() if cell.method.method not in NO_RIVALS], budget)
    return BudgetAnswer(
        panel=panel,
        budget=budget,
        best=tuple(cells[name] for name in best),
        level=tuple(name for name, mark in judged.items() if mark and name not in best),
        others=len(means) - 1 if means else 0,
        fused=any(cell.method.method.startswith(FUSIONS) for cell in cells.values()),
        unchosen=any(_is_unchosen(cell) for cell in cells.values()),
        gain=_gain(store, panel, list(cells.values())),
        ranks=_ranks({name: sign * cell.spread.mean for name, cell in ranked.items()}),
        doubts=tuple(_doubts(models, together)),
    )


def _unscaled(cells: Iterable[PanelCell]) -> list[PanelCell]:
    """Return the rows but those with scaled probabilities, which are not other models; all if none is left."""
    every = list(cells)
    return [cell for cell in every if not cell.scores[0].scaling] or every


def _compared(store: ScoreStore, cells: Sequence[PanelCell], budget: Budget) -> tuple[dict[str, Cell], dict[str, Mark]]:
    """Return the cells that share draws and test cases, on these draws, and their marks."""
    if not cells:
        return {}, {}
    grid = as_grid(cells)
    return competing(grid, budget, store), marks(grid, budget, store)


def _ranks(merits: Mapping[str, float]) -> dict[str, int]:
    """Return the rank of each row by how good it is: 1 is best, equal ones share the better rank."""
    return {name: 1 + sum(other > merit for other in merits.values()) for name, merit in merits.items()}


def _doubts(models: Sequence[PanelCell], together: Mapping[str, Cell]) -> list[str]:
    """Return why nothing can be concluded of these models."""
    if not together:
        return ["the score is not defined on these test cases"]
    if len(models) == 1:
        return ["one model has nothing to be compared with"]
    if len(together) == 1:
        return ["no two models share draws and test cases"]
    found = []
    if all(len(cell.scores) == 1 for cell in together.values()) and not _everything(together.values()):
        found.append("there is one draw of the labels, and another may order the models differently")
    few = dict.fromkeys(flag for cell in together.values() for flag in sorted(cell.flags) if flag.startswith(_FEW))
    return [*found, *(f"there are {flag.partition(':')[0]}" for flag in few)]


def _everything(cells: Iterable[Cell]) -> bool:
    """Say whether all labels were used, of which there is one draw."""
    return all(
        score.realised.get("everything", Budget(score.fraction, score.shots).is_everything)
        for cell in cells
        for score in cell.scores
    )


def _gain(store: ScoreStore, panel: Panel, cells: Sequence[PanelCell]) -> FusionGain | None:
    """Return what fusing gains at a budget; None where there is no fusion, or nothing to compare it with."""
    fused = _fusion(cells)
    if fused is None:
        return None
    base, by_test = _base(panel, fused, cells)
    if base is None:
        return None
    for pair in comparisons([as_grid([fused, base])], store):
        if math.isnan(pair.difference):
            return None
        reached = labels_to_reach(panel, panel.curve(base.name), fused, least=base.n_labels)
        return replace(FusionGain.of(pair, fused, base), reached=reached, by_test=by_test)
    return None


def _fusion(cells: Iterable[PanelCell]) -> PanelCell | None:
    """Return what is called "fusing": the first kind that is there, on the most models."""

    def merit(cell: PanelCell) -> tuple[int, bool, int, str]:
        kind = next(i for i, name in enumerate(FUSIONS) if cell.method.method.startswith(name))
        return kind, cell.method.method not in FUSIONS, -_n_models(cell), cell.name

    fusions = [
        cell
        for cell in cells
        if cell.method.method.startswith(FUSIONS) and _n_models(cell) > 1 and not math.isnan(cell.mean)
    ]
    return min(fusions, key=merit, default=None)


def _n_models(cell: PanelCell) -> int:
    return len(cell.method.model.split(" + "))


def _is_unchosen(cell: PanelCell) -> bool:
    return cell.method.method == CHOSEN_INSIDE and not NOT_CHOSEN.isdisjoint(cell.flags)


def _base(panel: Panel, fused: PanelCell, cells: Iterable[PanelCell]) -> tuple[PanelCell | None, bool]:
    """Return the best single model that fusion is compared with, and whether the test cases chose it.

    None where a budget held too few labels to choose it.
    """
    parts = fused.method.model.split(" + ")
    cells = [cell for cell in cells if cell.shares_draws(fused) and not math.isnan(cell.mean)]
    for cell in cells:
        if (cell.method.method, cell.method.model) == (CHOSEN_INSIDE, fused.method.model):
            return (None if _is_unchosen(cell) else cell), False
    singles = [cell for cell in cells if cell.method.method == SINGLE and cell.method.model in parts]
    sign = 1 if METRICS[panel.metric].greater_is_better else -1
    return max(singles, key=lambda cell: (sign * cell.mean, cell.name), default=None), True
