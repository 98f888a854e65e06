"""Subgroups and external tests on the page: differences of stored scores, as tables without charts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from mt.probe.contrasts.contrast_tables import numbers, p_values, with_interval
from mt.probe.contrasts.external import Drop, drops
from mt.probe.contrasts.subgroups import SubgroupDifference, subgroup_differences
from mt.probe.scores.score_tables import row_name, score_tables
from mt.probe.scores.scoring import revision
from mt.report.charts.figures import Section, table_section
from mt.report.panels import Panel
from mt.results.store import Score, ScoreStore

OF_SUBGROUPS = (
    "A method's score in one subgroup minus its score in the other, or in all others. [ ] 95 % interval over test "
    "cases and draws, patients on both sides respected; { } for all differences of one budget together (Bonferroni), "
    "* where it excludes 0. p is two-sided, and at most 0.05 if [ ] excludes 0; p (Holm) is adjusted for "
    "all differences of { }, and at most 0.05 where there is a *. An interval that holds 0 does not show that "
    "subgroups are served equally well."
)
OF_DROPS = (
    "The score on the test split of the training dataset minus that on this one, of the same draws. [ ] 95 % interval "
    "over both sets of test cases, taken as independent, and over draws. p is two-sided, and at most 0.05 if [ ] "
    "excludes 0; p (Holm) is adjusted for the methods of one budget."
)


def subgroup_section(store: ScoreStore, panel: Panel) -> Section | None:
    """Return the differences between subgroups in the headline metric, for the fits of a panel; None without any."""
    rows = [
        (one.row_name, str(one.budget), _sides(one), numbers(one), *p_values(one), "; ".join(one.flags))
        for one in differences_of(store, panel)
    ]
    columns = ("method", "budget", "difference of", "difference", "p", "p (Holm)", "note")
    return table_section("subgroups", "Differences between subgroups", OF_SUBGROUPS, columns, rows) if rows else None


def differences_of(store: ScoreStore, panel: Panel) -> list[SubgroupDifference]:
    """Return the differences between the subgroups that were scored, in the headline metric."""
    names = RowNames.of(panel)
    scores = [
        one
        for one in _current(store.scores_of({fit for fit, _ in names.by_row}))
        if one.by is not None and one.metric == panel.metric and one in names
    ]
    return subgroup_differences(score_tables(scores, store, name=names), store)


def drop_section(store: ScoreStore, panel: Panel) -> Section | None:
    """Return what methods lose on another dataset's test split; None on their own dataset, or without internal ones."""
    rows = [
        (one.row_name, str(one.budget), _both(one), with_interval(one.found), *p_values(one), "; ".join(one.flags))
        for one in drops_of(store, panel)
    ]
    columns = ("method", "budget", "internal, external", "difference", "p", "p (Holm)", "note")
    return table_section("drop", "Internal and external test", OF_DROPS, columns, rows) if rows else None


def drops_of(store: ScoreStore, panel: Panel) -> list[Drop]:
    """Return what methods lose on another dataset's test split, in the headline metric."""
    external = [score for cell in panel.headline for score in cell.scores]
    if all(score.dataset == score.test_dataset for score in external):
        return []
    internal = [score for score in _current(store.scores()) if score.metric == panel.metric]
    return drops(external, internal, store, name=RowNames.of(panel))


@dataclass(frozen=True)
class RowNames:
    """The names of a panel's rows, by fit and row: experiments on other features have names of their own."""

    by_row: dict[tuple[str, str], str]

    @classmethod
    def of(cls, panel: Panel) -> RowNames:
        return cls({(score.fit, row_name(score)): cell.name for cell in panel.headline for score in cell.scores})

    def __contains__(self, score: Score) -> bool:
        return (score.fit, row_name(score)) in self.by_row

    def __call__(self, score: Score) -> str:
        return self.by_row[score.fit, row_name(score)]


def _current(scores: Sequence[Score]) -> list[Score]:
    """Return the scores that the current revisions of metrics and scoring made."""
    wanted = revision()
    return [one for one in scores if all(one.versions.get(name) == value for name, value in wanted.items())]


def _sides(one: SubgroupDifference) -> str:
    level = "" if one.subject.level == "row" else " (per group)"
    return f"{one.subject.by}: {one.a} - {one.b}{level}"


def _both(one: Drop) -> str:
    return f"{one.found.a:.3f}, {one.found.b:.3f}"
