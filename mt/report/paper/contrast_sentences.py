"""Sentences on decisions and contrasts: thresholds, scaling, subgroups, internal against external tests."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

from mt.probe.contrasts.external import Drop
from mt.probe.contrasts.subgroups import SubgroupDifference
from mt.report.paper.escaped import md
from mt.report.paper.facts import ChosenThresholds, DatasetFacts
from mt.terminal.progress import counted

_OF_SCALING = {
    "temperature": "temperature scaling [@guo2017calibration] with Platt's targets [@platt1999probabilistic]",
    "platt": "Platt scaling [@platt1999probabilistic]",
}
_OF_RULES = {"youden": " (Youden's index [@youden1950index])"}


def decided(facts: DatasetFacts) -> list[str]:
    """Return how probabilities were scaled, and how thresholds were chosen."""
    kinds = dict.fromkeys(cell.scores[0].scaling for cell in facts.panel.headline)
    scaled = [
        f"Probabilities were also scaled, by {_OF_SCALING.get(kind, md(kind))}, fitted on out-of-fold scores of the "
        "label budget."
        for kind in kinds
        if kind
    ]
    return [*scaled, *(_thresholds(facts.thresholds) if facts.thresholds else ())]


def _thresholds(found: ChosenThresholds) -> Iterator[str]:
    rule, prevalence = found.decisions.rule, found.decisions.prevalence
    assert rule is not None
    wanted = found.n_chosen + sum(found.absent.values())
    yield (
        f"Thresholds were chosen by the rule {md(str(rule))}, {rule.meaning}{_OF_RULES.get(rule.kind, '')}, on "
        f"out-of-fold scores of the label budget: {found.n_chosen:,} of {wanted:,} were found."
    )
    for reason, count in found.absent.items():
        yield f"Without a threshold: {count:,} ({md(reason)})."
    yield (
        "At the thresholds, shares have Wilson's interval [@wilson1927probable], and likelihood ratios that of Donner "
        "and Zou [@donner2012closed]."
    )
    if prevalence is not None:
        yield f"Predictive values are also for a prevalence of {100 * prevalence:g} %."


def contrasted(facts: DatasetFacts) -> list[str]:
    """Return how subgroups were compared, and internal with external tests."""
    panel, drops = facts.panel, facts.contrasts.drops
    by_column: dict[str, list[SubgroupDifference]] = {}
    for one in facts.contrasts.subgroups:
        by_column.setdefault(str(one.subject.by), []).append(one)
    found = [_of_column(column, some, panel.metric_label) for column, some in by_column.items()]
    if drops:
        found.append(_of_drops(drops, panel.metric_label, panel.test_dataset))
    elif panel.dataset != panel.test_dataset:
        found.append("No internal test of the same fits is stored.")
    return [*found, *(md(one.said) for one in facts.contrasts.shared if one.said)]


def _of_column(column: str, some: Sequence[SubgroupDifference], metric: str) -> str:
    pairs = ", ".join(dict.fromkeys(md(f"{one.a} - {one.b}") for one in some))
    shown = sum(one.shown for one in some)
    return (
        f"Subgroups of {md(column)} were compared: differences of {metric} ({pairs}) for {_places(some)}. Intervals "
        "are by MOVER [@zou2008construction], which respects patients on both sides; for all differences of one budget "
        "together they have Bonferroni's correction [@dunn1961multiple], and p-values Holm's [@holm1979simple]. After "
        f"correction {shown:,} of {counted(len(some), 'interval')} exclude 0. {_without(some)}"
    ).strip()


def _of_drops(drops: Sequence[Drop], metric: str, test_dataset: str) -> str:
    return (
        f"Internal and external test: {metric} on the test split of the training dataset minus that on "
        f"{md(test_dataset)}, of the same draws, for {_places(drops)}. The two sets of test cases are taken as "
        "independent; intervals are by MOVER [@zou2008construction], and p-values are adjusted for the methods of one "
        f"budget [@holm1979simple]. {_without(drops)}"
    ).strip()


def _places(some: Sequence[SubgroupDifference | Drop]) -> str:
    rows, budgets = ({getattr(one, name) for one in some} for name in ("row_name", "budget"))
    return f"{counted(len(rows), 'method')} at {counted(len(budgets), 'budget')}"


def _without(some: Sequence[SubgroupDifference | Drop]) -> str:
    """Return how many have no interval, and why."""
    reasons = Counter(one.found.reason for one in some if one.found.reason)
    return " ".join(f"Without an interval: {count:,} ({md(reason)})." for reason, count in reasons.items())
