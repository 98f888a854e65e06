"""Options that several commands share: the same name, help and default everywhere."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, TypeVar

import click

from mt.errors import InputError

F = TypeVar("F", bound=Callable[..., Any])
Option = Callable[[F], F]


_UNITS = {"": 30, "G": 30, "M": 20, "T": 40}  # powers of two, as torch and Slurm count
_AMOUNT = re.compile(r"(\d+\.?\d*|\.\d+)\s*([GMT]?)(?:i?B)?", re.IGNORECASE)


class MemoryAmount(click.ParamType[int]):
    """An amount of memory, in bytes once parsed."""

    name = "AMOUNT"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        return value if isinstance(value, int) else bytes_of(value, param.opts[0] if param else "This option")


def bytes_of(amount: str, option: str) -> int:
    """Return an amount such as `4`, `4GB` or `512MB` in bytes; a number alone is in GB, and a GB is 2^30 bytes.

    Raises:
        InputError: the text is not an amount above zero; `option` is named.
    """
    match = _AMOUNT.fullmatch(amount.strip())
    found = int(float(match[1]) * (1 << _UNITS[match[2].upper()])) if match else 0
    if found < 1:
        raise InputError(f"{option} takes an amount of memory such as 4, 4GB or 512MB; got '{amount}'.")
    return found


cache_dir = click.option(
    "--cache-dir",
    type=click.Path(file_okay=False),
    envvar="MT_CACHE_DIR",
    show_envvar=True,
    help="Folder of feature files.  [default: the user's cache folder]",
)
scores = click.option(
    "--scores",
    type=click.Path(dir_okay=False),
    envvar="MT_SCORES",
    show_envvar=True,
    help="Score database.  [default: beside the cache; if that is read-only, the user's own]",
)
everything = click.option("--everything", is_flag=True, help="Use superseded, limited and random-weight features too.")
data_dir = click.option(
    "--data-dir",
    type=click.Path(file_okay=False),
    envvar="MT_DATA_DIR",
    show_envvar=True,
    help="Folder that holds the dataset's published files, or one folder per dataset.  [default: ./data]",
)
as_json = click.option("--json", "as_json", is_flag=True, help="Print one JSON object per line.")
trust_remote_code = click.option(
    "--trust-remote-code",
    multiple=True,
    metavar="REPOSITORY",
    help="Run the code that this repository (or folder) of an hf: model brings (repeatable).  [default: run none]",
)
models = click.option(
    "--model", "models", multiple=True, metavar="NAME", help="A backbone (repeatable). See: mt models"
)
datasets = click.option(
    "--dataset", "datasets", multiple=True, metavar="NAME", help="A dataset (repeatable). See: mt datasets"
)

engine = click.option(
    "--engine",
    default="local",
    show_default=True,
    metavar="local|ray[:HOST:PORT]",
    help="Featurize here, or on a Ray cluster: the one at HOST:PORT, or this machine's.",
)

fractions = click.option(
    "--fraction",
    "fractions",
    multiple=True,
    type=float,
    metavar="F",
    help="Share of the train labels to use, above 0 and at most 1 (repeatable).  [default: 0.01, 0.1 and 1]",
)
shots = click.option(
    "--shots", multiple=True, type=int, metavar="K", help="Labels per class, instead of --fraction (repeatable)."
)
seeds = click.option(
    "--seeds", default=5, show_default=True, metavar="N", help="Random draws per budget; the 100 % budget has one."
)
test_folds = click.option(
    "--test-folds",
    type=int,
    metavar="K",
    help="Join all splits, and test every image once by K folds that keep patients apart.  [default: the test split]",
)
repeats = click.option(
    "--repeats", default=1, show_default=True, metavar="R", help="Times that --test-folds are drawn again."
)
draw = click.option(
    "--draw",
    type=click.Choice(["stratified", "random", "random-groups"]),
    default="stratified",
    show_default=True,
    help="How rows are drawn: stratified by all train labels, or without labels: random rows, or random groups "
    "(patients).",
)
primary = click.option(
    "--primary",
    metavar="METRIC@BUDGET",
    help="Declare the primary metric and budget, as roc_auc@1%; it is kept, and all else is marked exploratory.",
)
margin = click.option(
    "--margin",
    type=float,
    metavar="D",
    help="Test non-inferiority and equivalence against --reference: at most D worse, within D either way.",
)
reference = click.option(
    "--reference", metavar="MODEL|METHOD", help="The row that --margin is measured from, by its model or its method."
)
metrics = click.option(
    "--metric",
    "metrics",
    multiple=True,
    metavar="NAME",
    help="A metric, or all (repeatable).  [default: the dataset's headline]",
)
threshold = click.option(
    "--threshold",
    metavar="RULE",
    help="Choose a threshold on out-of-fold scores and show what it achieves: youden, "
    "sensitivity:S, specificity:S, or cost:R (a miss is as bad as R false alarms).",
)
prevalence = click.option(
    "--prevalence", type=float, metavar="P", help="With --threshold: also PPV and NPV if a share P is positive."
)
calibrate = click.option(
    "--calibrate",
    type=click.Choice(["temperature", "platt"]),
    help="Also score probabilities scaled on out-of-fold scores.",
)


def required(values: tuple[str, ...], option: str, *, see: str) -> None:
    """Refuse a command that lacks an option it cannot guess.

    Raises:
        InputError: no value was given.
    """
    if not values:
        raise InputError(f"{option} is missing: expected at least one {option} NAME. See: {see}")
