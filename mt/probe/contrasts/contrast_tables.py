"""Prints differences between sets of test cases after the scores of a run: tables, or JSON lines."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import click

from mt.probe.contrasts.difference import Difference
from mt.probe.contrasts.subgroups import SubgroupDifference, subgroup_differences
from mt.probe.scores.metrics import METRICS
from mt.probe.scores.score_tables import score_tables
from mt.probe.scores.scoring import LEAST_UNITS
from mt.results.store import ScoreStore
from mt.terminal.progress import counted
from mt.terminal.tables import interval_text

if TYPE_CHECKING:
    from mt.probe.contrasts.external import Drop
    from mt.probe.request import Answers, ProbeRequest

READING = (
    "[ ] 95 % interval over test cases and draws; it accounts for patients with cases on both sides. { } the interval "
    "for all differences of one dataset, budget and metric together (Bonferroni). *: { } excludes 0. p: two-sided, "
    "at most 0.05 if [ ] excludes 0; p (Holm): adjusted for all differences of { }, at most 0.05 where there is a *. "
    "An interval that holds 0 does not show that subgroups are served equally well. There is no interval with fewer "
    f"than {LEAST_UNITS} patients (or cases) of a class on either side."
)


OF_DROPS = (
    "internal - external: the same draws and recipe, tested on the test split of the training dataset and on the other "
    "dataset. [ ] 95 % interval over both sets of test cases, taken as independent, and over draws. p: two-sided, at "
    "most 0.05 if [ ] excludes 0; p (Holm): adjusted for the rows of one budget and metric."
)


def print_subgroups(answers: Answers, *, as_json: bool) -> None:
    """Print the differences between the subgroups that were scored."""
    with ScoreStore(answers.store) as store:
        found = subgroup_differences(score_tables(answers.scores, store), store)
    if as_json:
        for one in found:
            click.echo(json.dumps(one.row()))
    elif found:
        _print_table(found)


def _print_table(found: Sequence[SubgroupDifference]) -> None:
    from rich.table import Table
    from rich.text import Text

    from mt.probe.tables import console, table_box

    out = console()
    out.print("Differences between subgroups", style="bold")
    table = Table(box=table_box(out))
    names = ("dataset", "metric", "budget", "row", "difference of", "units", "difference [95 %] {all together}")
    for name in (*names, "p", "p (Holm)", "note"):
        table.add_column(name, overflow="fold")
    for one in found:
        about = one.subject
        where = about.title.removesuffix(f", {about.by} = None"), METRICS[about.metric].label, str(one.budget)
        sides = f"{about.by}: {one.a} - {one.b}"
        units = " / ".join(map(str, one.found.units))
        table.add_row(
            *map(Text, (*where, one.row_name, sides, units, numbers(one), *p_values(one), "; ".join(one.flags)))
        )
    out.print(table)
    out.print(READING, style="dim", markup=False)
    out.print()


def numbers(one: SubgroupDifference) -> str:
    """Return a difference with both of its intervals: `+0.030 [-0.010, +0.080] {-0.030, +0.100}`."""
    text = with_interval(one.found)
    low, high = one.simultaneous
    if low == low:
        text += f" {{{low:+z.3f}, {high:+z.3f}}}" if one.n_family > 1 else ""
    return text + (" *" if one.shown else "")


def p_values(one: SubgroupDifference | Drop) -> tuple[str, str]:
    """Return p and Holm's p as text, empty without them."""
    return ("", "") if one.found.p != one.found.p else (f"{one.found.p:.4f}", f"{one.p_holm:.4f}")


def with_interval(found: Difference) -> str:
    """Return a difference with its interval: `+0.030 [-0.010, +0.080]`."""
    if found.value != found.value:
        return "not defined"
    return interval_text(found.value, found.low, found.high)


def print_drops(request: ProbeRequest, answers: Answers, *, as_json: bool) -> None:
    """Print what scores lose on the test dataset, and how many images and patients both datasets hold.

    The same fits are also scored on the test split of their own dataset, from the store or by fitting once more.
    """
    from mt.cache.catalog import Catalog
    from mt.errors import MtError
    from mt.probe.contrasts.external import drops, overlaps
    from mt.probe.run import run_probe
    from mt.probe.scores.declared import metrics_asked
    from mt.terminal import progress

    plain = replace(request, metrics=metrics_asked(request), primary=None, by=None, save=None, threshold=None)
    plain = replace(plain, prevalence=None)
    external = answers if request.by is None else run_probe(plain)
    trained = tuple(dict.fromkeys(score.dataset.partition("@")[0] for score in external.scores))
    try:
        internal = run_probe(replace(plain, test_dataset=None, datasets=request.datasets or trained))
    except MtError as error:
        progress.note(f"No comparison with an internal test: {error}")
        return
    progress.note(f"internal test: {counted(internal.n_stored, 'score')} from the store, {internal.n_fitted} fitted")
    entries = Catalog(request.cache_dir, request.files).entries(everything=True)
    shared = overlaps(external.scores, internal.scores, entries)
    with ScoreStore(answers.store) as store:
        found = drops(external.scores, internal.scores, store)
    if as_json:
        for row in [*(one.row() for one in found), *(one.row() for one in shared)]:
            click.echo(json.dumps(row))
        return
    _print_drops(found, [one.said for one in shared if one.said])


def _print_drops(found: Sequence[Drop], shared: Sequence[str]) -> None:
    from rich.table import Table
    from rich.text import Text

    from mt.probe.tables import console, table_box

    out = console()
    if found:
        out.print("Internal and external test", style="bold")
        table = Table(box=table_box(out))
        columns = ("datasets", "metric", "budget", "row", "internal", "external", "internal - external [95 %]")
        for name in (*columns, "p", "p (Holm)", "note"):
            table.add_column(name, overflow="fold")
        for one in found:
            about, found_one = one.subject, one.found
            where = f"{about.dataset} - {about.test_dataset}", METRICS[about.metric].label, str(one.budget)
            scores = f"{found_one.a:.3f}", f"{found_one.b:.3f}", with_interval(found_one)
            table.add_row(*map(Text, (*where, one.row_name, *scores, *p_values(one), "; ".join(one.flags))))
        out.print(table)
        out.print(OF_DROPS, style="dim", markup=False)
    for line in shared:
        out.print(line, style="bold", markup=False)
    out.print()
