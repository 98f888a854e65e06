"""`mt report --list`: the experiments in the score database."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import click

from mt.report.experiments import Experiment, data_titles
from mt.terminal import tables


def print_experiments(found: Sequence[Experiment], *, as_json: bool) -> None:
    """Print a row per experiment; `*` marks those that a report shows by default."""
    rows = list(map(_facts, found, [data_titles(found)] * len(found)))
    if as_json:
        for row in rows:
            click.echo(json.dumps(row))
        return
    headings = ("experiment", "dataset", "draws", "scores", "shown")
    shown = [
        (row["experiment"], row["dataset"], _draws(row["draws"]), f"{row['scores']:,}", "*" if row["shown"] else "")
        for row in rows
    ]
    tables.print_table(headings, shown, numbers=("scores",))


def _facts(one: Experiment, titles: dict[Any, str]) -> dict[str, Any]:
    """Return an experiment as one JSON object."""
    last = one.scores[-1]
    files = {split: [kept["file"] for kept in several] for split, several in last.fingerprints.items()}
    return {
        "experiment": one.name,
        "dataset": titles[one.data],
        "shown": one.shown,
        "grouped": one.grouped,
        "draws": {str(budget): len(seeds) for budget, seeds in one.draws.items()},
        "scores": len(one.scores),
        "n_test": last.n_test,
        "features": files,
    }


def _draws(draws: dict[str, int]) -> str:
    return ", ".join(f"{count} of {budget}" for budget, count in draws.items())
