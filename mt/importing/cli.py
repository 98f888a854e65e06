"""`mt cache import`: feature files made of embeddings that other programs computed.

It is a command of `mt cache`, but reads tables as `datasets` does, which `cache` must not import.  So the top-level
command line adds it to the group.
"""

from __future__ import annotations

import json
from typing import Literal

import click

from mt.cache.pooling import RULES
from mt.errors import InputError
from mt.importing.request import ImportRequest, LabelRules
from mt.terminal import options, progress
from mt.types import TASKS, Task


@click.command(
    "import",
    epilog="Example: mt cache import train=xtr.npy test=xte.npy --labels train=ytr.npy --labels test=yte.npy "
    "--dataset moles --model uni",
)
@click.argument("files", nargs=-1, metavar="[SPLIT=]FILE...")
@click.option("--dataset", metavar="NAME", help="Their dataset; if the cache has it, rows are joined by ids.")
@click.option("--model", metavar="NAME", help="What computed them; shown as 'NAME (imported)'.")
@click.option("--split", metavar="NAME", help="Split of all files: train, val or test.  [default: a column, or drawn]")
@click.option(
    "--labels",
    multiple=True,
    metavar="[SPLIT=]FILE",
    help="Ids, labels, splits, groups: CSV, Excel or parquet; or .npy of labels (repeatable).",
)
@click.option("--task", type=click.Choice(TASKS), help="Task of the labels.  [default: inferred]")
@click.option("--bag", metavar="COLUMN|file", help="The case of each row; file: each file is one case.")
@click.option("--pool", type=click.Choice(RULES), help="Make one row per case.  [default: keep the rows]")
@click.option("--key", metavar="NAME", help="The array, or the prefix of the columns, that holds the embeddings.")
@click.option("--id-column", metavar="NAME", help="Column of ids.  [default: id, slide_id, image, filename, ...]")
@click.option(
    "--label-column",
    "label_columns",
    multiple=True,
    metavar="NAME",
    help="Column of class names, or of 0 and 1 (repeatable).  [default: label, diagnosis, ...]",
)
@click.option("--group-column", metavar="NAME|none", help="Column of patients.  [default: group, patient, ...]")
@click.option("--missing-group", type=click.Choice(["own"]), help="own: a row without a patient is its own.")
@click.option("--uncertain", type=click.Choice(["ignore", "0", "1"]), help="What -1 in a label column means.")
@click.option("--blank", type=click.Choice(["ignore", "0"]), help="What an empty label cell means.")
@click.option("--shared", is_flag=True, help="Omit ids that lack embeddings or labels.")
@click.option(
    "--on-error",
    type=click.Choice(["raise", "skip"]),
    default="raise",
    show_default=True,
    help="A row with NaN or infinite values: raise (stop), or skip (keep the row without an embedding).",
)
@click.option("--dtype", type=click.Choice(["float32", "float16"]), help="Stored numbers.  [default: as in the files]")
@click.option("--seed", default=0, show_default=True, help="Seed of the test split drawn if no splits are named.")
@options.cache_dir
@options.as_json
def import_(
    files: tuple[str, ...],
    dataset: str | None,
    model: str | None,
    split: str | None,
    labels: tuple[str, ...],
    task: Task | None,
    bag: str | None,
    pool: str | None,
    key: str | None,
    id_column: str | None,
    label_columns: tuple[str, ...],
    group_column: str | None,
    missing_group: Literal["own"] | None,
    uncertain: Literal["ignore", "0", "1"] | None,
    blank: Literal["ignore", "0"] | None,
    shared: bool,
    on_error: str,
    dtype: str | None,
    seed: int,
    cache_dir: str | None,
    as_json: bool,
) -> None:
    """Make feature files of embeddings that other programs computed.

    FILES are .npy, .npz, .parquet, .csv, .pt, .safetensors or .h5 (TRIDENT, CLAM), or folders with one file per case.
    Nothing is unpickled.  See docs/import.md for recipes.
    """
    for value, option in ((files, "FILE"), (dataset, "--dataset"), (model, "--model")):
        if not value:
            raise InputError(f"{option} is missing. See: mt cache import --help")
    rules = LabelRules(task, id_column, label_columns, group_column, missing_group, uncertain, blank)
    request = ImportRequest(
        files,
        str(dataset),
        str(model),
        labels,
        split=split,
        key=key,
        bag=bag,
        pool=pool,
        dtype=dtype,
        shared=shared,
        skip_bad=on_error == "skip",
        seed=seed,
        rules=rules,
        cache_dir=cache_dir,
    )
    from mt.importing.run import import_features

    made = import_features(request)
    for one in made:
        facts = {"path": str(one.path), "split": one.split, "rows": one.rows, "dim": one.dim, "skipped": one.skipped}
        click.echo(json.dumps(facts) if as_json else f"{one.split:<6}{one.rows:>9,} x {one.dim:,}  {one.path}")
    for warning in dict.fromkeys(warning for one in made for warning in one.warnings):
        progress.note(f"Note: {warning}.")
