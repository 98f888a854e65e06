"""Prints what a probe would do and what its scores can show: tables, or JSON lines."""

from __future__ import annotations

import json

import click

from mt.probe.planning.expected import CORRELATIONS, POWER, WITHIN
from mt.probe.planning.probe_plan import DatasetPlan, internal_fits, plans
from mt.probe.request import ProbeRequest
from mt.probe.scores.metrics import METRICS
from mt.terminal.progress import counted
from mt.types import FEW_UNITS

READING = (
    "± half the length of the 95 % interval over test cases, at the score of the first column. difference: between two "
    f"models on the same test cases, found with {100 * POWER:g} % power at 5 %, if their scores correlate as stated "
    "over samples of test cases. The spread over draws of the labels adds to both."
)
OF_GROUPS = f"Cases of a patient are assumed to have a correlation of {WITHIN:g}."
WITHOUT_FORMULA = "no expectation without a pilot; its width depends on more than the score"
PRECISE = "How exact this is: docs/intervals.md."


def print_plan(request: ProbeRequest, *, as_json: bool) -> None:
    """Print the plan of every dataset to stdout: tables, or JSON lines.  Fits nothing and writes nothing."""
    found = plans(request)
    if as_json:
        for one in found:
            for row in one.rows():
                click.echo(json.dumps(row))
        return
    for one in found:
        _print(one)
    if request.test_dataset is not None:
        fits, stored = internal_fits(request)
        click.echo(f"Comparison with the internal test: {counted(fits, 'fit')}, {stored} stored.")
    total, stored = (sum(getattr(b, name) for one in found for b in one.budgets) for name in ("n_fits", "n_stored"))
    click.echo(f"{counted(total, 'fit')}, {stored} of them stored. Run them: the same command without --dry-run")


def _print(plan: DatasetPlan) -> None:
    from rich.table import Table
    from rich.text import Text

    from mt.probe.tables import console, table_box

    out = console()
    out.print(f"{plan.title}: {_tested(plan)}", style="bold", markup=False)
    table = Table(box=table_box(out))
    for name in ("budget", "labels", "per class (first draw)", "fits", "stored"):
        table.add_column(name, overflow="fold")
    for one in plan.budgets:
        each = ", ".join(f"{name} {count:,}" for name, count in zip(plan.class_names, one.per_class, strict=True))
        table.add_row(*map(Text, (str(one.budget), f"{one.n_labels:,}", each, f"{one.n_fits:,}", f"{one.n_stored:,}")))
    out.print(table)
    for metric, expected in plan.expected.items():
        label = METRICS[metric].label
        if not expected:
            none = f"no interval: {plan.refused[metric]}" if plan.refused[metric] else WITHOUT_FORMULA
            out.print(f"{label}: {none}.", markup=False)
            continue
        table = Table(box=table_box(out))
        table.add_column(label)
        for name in ("±", *(f"difference, correlation {rho:g}" for rho in CORRELATIONS)):
            table.add_column(name)
        for each_one in expected:
            numbers = (each_one.half_width, *each_one.detectable)
            table.add_row(f"{each_one.score:g}", *(f"{number:.3f}" for number in numbers))
        out.print(table)
    for line in _notes(plan):
        out.print(line, style="bold" if line.startswith("Fewer") else "dim", markup=False)
    out.print()


def _tested(plan: DatasetPlan) -> str:
    """Return in words the number of models, of test cases, and of cases of the rarest class."""
    what = "patients or groups as cases" if plan.level == "group" else "test cases"
    how = f" by {plan.folds} cross-validation" if plan.folds else ""
    units = f" of {plan.n_units:,} patients or groups" if plan.grouped and plan.level == "row" else ""
    k = plan.rarest
    rare = f"; '{plan.class_names[k]}' is rarest: {plan.counts[k]:,} cases"
    rare += f" of {plan.units[k]:,} patients or groups" if units else ""
    models = f"{counted(len(plan.models), 'model')}"
    return f"{models}, {plan.n_cases:,} {what}{units}{how}{rare}"


def _notes(plan: DatasetPlan) -> list[str]:
    notes = [READING + (f" {OF_GROUPS}" if plan.grouped else "") + f" {PRECISE}"]
    if plan.folds:
        notes.append("Each fit is one per test fold; the dependence of folds is in the widths.")
    if plan.units[plan.rarest] < FEW_UNITS:
        kind = "groups" if plan.grouped else "cases"
        notes.append(f"Fewer than {FEW_UNITS} test {kind} of the rarest class: few conclusions are possible.")
    return notes
