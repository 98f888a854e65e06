"""The answer in words: one sentence per dataset, its verdict, and the table across datasets and budgets."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from mt.report.answer.findings import BudgetAnswer, FusionGain, leading
from mt.report.panels import PanelCell
from mt.report.short_names import ShortNames
from mt.report.tables import number

INSIDE = "the model chosen inside the budget"  # how the base of a gain is called


@dataclass(frozen=True)
class Sentence:
    """What a dataset's numbers say: the sentence, and what can be concluded.  conclusive: whether anything can."""

    dataset: str
    text: str
    verdict: str
    conclusive: bool


def sentence(found: Sequence[BudgetAnswer], names: ShortNames) -> Sentence:
    """Return the sentence of one dataset, made of its answers at every budget."""
    one = leading(found)
    parts = [_best(one, names), *_fusing(one, names)]
    verdicts = [verdict(one, names), *_inconclusive([other for other in found if other is not one])]
    return Sentence(one.panel.title, "; ".join(parts) + ".", " ".join(verdicts), not one.doubts)


def verdict(one: BudgetAnswer, names: ShortNames) -> str:
    """Return what can be concluded of the best model, or why nothing can."""
    if one.doubts:
        return f"Nothing can be concluded at {_labels(one)}: {'; '.join(one.doubts)}."
    best = _listed([names(cell.name) for cell in one.best])
    if len(one.best) > 1:
        return f"{best} have the same mean."
    if not one.level:
        return f"{best} is significantly better than {_all_of(one.others)}."
    level = _listed([names(name) for name in one.level]) if len(one.level) <= 3 else f"{len(one.level)} models"
    return f"Of {one.others} other model{_s(one.others)}, {level} cannot be distinguished from {best}."


def _inconclusive(others: Sequence[BudgetAnswer]) -> list[str]:
    """Return at which other budgets nothing can be concluded, a sentence per reason."""
    reasons: dict[tuple[str, ...], list[str]] = {}
    for one in others:
        if one.doubts:
            reasons.setdefault(one.doubts, []).append(f"{one.labels:,}")
    return [
        f"Nothing can be concluded at {_listed(where)} labels: {'; '.join(doubts)}."
        for doubts, where in reasons.items()
    ]


def _best(one: BudgetAnswer, names: ShortNames) -> str:
    """Return which model is best, and its score."""
    where = f"at {_labels(one)}"
    if not one.best:
        return f"no best model {where}"
    best, cell = _listed([names(c.name) for c in one.best]), one.best[0]
    says = "is the only model" if not one.others else "are best" if len(one.best) > 1 else "is best"
    return f"{best} {says} {where}, {one.panel.metric_label} {score(cell)}"


def score(cell: PanelCell) -> str:
    """Return a score and its 95 % interval over test cases: `0.910 [0.860, 0.950]`."""
    if cell.low is None or cell.high is None:
        return number(cell.mean)
    return f"{number(cell.mean)} [{number(cell.low)}, {number(cell.high)}]"


def _fusing(one: BudgetAnswer, names: ShortNames) -> list[str]:
    """Return what fusing gains, and how many labels would gain as much."""
    if not one.fused:
        return ["fusing was not tried"]
    if one.gain is None:
        why = "too few labels to choose a single model by" if one.unchosen else "no shared draws and test cases"
        return [f"what fusing gains cannot be concluded: {why}"]
    gain = one.gain
    shown = round(gain.value, 3)
    does = "gains" if shown > 0 else "loses" if shown < 0 else "changes nothing,"
    against = f"{'over' if shown > 0 else 'against'} {_base(gain, names)}"
    return [f"fusing ({names(gain.fused.name)}) {does} {gain.said} {against}{_weight(gain)}", *_as_many(gain)]


def _base(gain: FusionGain, names: ShortNames) -> str:
    """Return which model a gain is over, and its score."""
    base = number(gain.base_score)
    return f"{names(gain.base.name)}, which the test cases chose ({base})" if gain.by_test else f"{INSIDE} ({base})"


def _weight(gain: FusionGain) -> str:
    if math.isnan(gain.low):
        return "" if gain.reason else ", without an interval"
    return "" if gain.significant else ", not significant"


def _as_many(gain: FusionGain) -> list[str]:
    """Return how many more labels would gain the base as much, where fusing gains anything."""
    if gain.value <= 0 or gain.reached is None or gain.reached.sign == "≤":
        return []
    if gain.more is not None:
        return [f"{gain.more:,} more label{_s(gain.more)} would gain that model as much as fusing"]
    most = gain.reached.labels - gain.base.n_labels
    if most <= 0:
        return [
            "no larger budget was measured, so it is unknown how many labels would gain that model as much as fusing"
        ]
    return [f"even {most:,} more label{_s(most)} would not gain that model as much as fusing"]


def more(gain: FusionGain) -> str:
    """Return how many more labels would gain as much, as a cell of a table.

    Empty where nothing is gained or no larger budget was measured.
    """
    if gain.value <= 0 or gain.reached is None or gain.reached.sign == "≤":
        return ""
    if gain.more is not None:
        return f"{gain.more:,}"
    most = gain.reached.labels - gain.base.n_labels
    return f"> {most:,}" if most > 0 else ""


@dataclass(frozen=True)
class OverviewRow:
    """One dataset at one budget.

    over: the score that the gain adds to, after the name of the model if test cases chose it.
    ranks: of every row of the page, empty where it was not compared.
    """

    dataset: str
    budget: str
    labels: str
    best: str
    score: str
    gain: str
    over: str
    more: str
    doubts: str
    ranks: tuple[str, ...]


def overview(found: Sequence[Sequence[BudgetAnswer]], names: ShortNames) -> tuple[list[str], list[OverviewRow]]:
    """Return the rows that have ranks, by mean rank, and the table: a row per dataset and budget."""
    every = [one for some in found for one in some]
    places: dict[str, list[int]] = {}
    for one in every:
        for name, rank in one.ranks.items():
            places.setdefault(name, []).append(rank)
    order = sorted(places, key=lambda name: (sum(places[name]) / len(places[name]), -len(places[name]), name))
    return order, [_row(one, order, names) for one in every]


def _row(one: BudgetAnswer, order: Sequence[str], names: ShortNames) -> OverviewRow:
    gain = one.gain
    level = f" (level: {len(one.level)} of {one.others})" if one.level and not one.doubts else ""
    return OverviewRow(
        dataset=one.panel.title,
        budget=str(one.budget),
        labels=f"{one.labels:,}",
        best=_listed([names(cell.name) for cell in one.best]) + level,
        score=score(one.best[0]) if one.best else "–",
        gain="–" if gain is None else gain.said + (" *" if gain.significant else ""),
        over="" if gain is None else f"over {_named(gain, names)}{number(gain.base_score)}",
        more="" if gain is None else more(gain),
        doubts="; ".join(one.doubts),
        ranks=tuple(_rank(one, name) for name in order),
    )


def _named(gain: FusionGain, names: ShortNames) -> str:
    return f"{names(gain.base.name)}, " if gain.by_test else ""


def _rank(one: BudgetAnswer, name: str) -> str:
    rank = one.ranks.get(name)
    return "" if rank is None else f"{rank}{'=' if list(one.ranks.values()).count(rank) > 1 else ''}"


def _labels(one: BudgetAnswer) -> str:
    return f"{one.labels:,} label{_s(one.labels)}"


def _all_of(others: int) -> str:
    return "the other model" if others == 1 else f"each of the {others} other models"


def _listed(names: Sequence[str]) -> str:
    return f"{', '.join(names[:-1])} and {names[-1]}" if len(names) > 1 else "".join(names)


def _s(number: int) -> str:
    return "" if number == 1 else "s"
