"""The options that load a dataset, gathered into one `DatasetSettings` for the command."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import fields
from typing import Any, TypeVar

import click

from mt.datasets.settings import DatasetSettings
from mt.terminal import options
from mt.types import TASKS

F = TypeVar("F", bound=Callable[..., Any])

_OPTIONS = (
    click.option("--task", type=click.Choice(TASKS), help="Task of folder: and table:.  [default: inferred]"),
    click.option("--group-regex", metavar="REGEX", help="For folder: and table:, find the patient in a path."),
    click.option("--seed", default=0, show_default=True, help="Seed of splits drawn for folder: and table:."),
    click.option(
        "--intensity",
        default="auto",
        show_default=True,
        metavar="RULE",
        help="What becomes black and white: auto (as the file says), full, minmax, percentile:LOW,HIGH, window:C,W.",
    ),
    click.option(
        "--frame",
        metavar="first|middle|N|all",
        help="Which of several pages or frames; all: one row per frame.  [default: refuse such files]",
    ),
    click.option("--voi", metavar="N|NAME", help="Which window of a DICOM file.  [default: the first]"),
    click.option(
        "--max-pixels",
        type=click.IntRange(min=1),
        metavar="N",
        help="Refuse images of more pixels.  [default: 89478485]",
    ),
    click.option(
        "--decoder",
        type=click.Choice(["pillow", "device"]),
        default="pillow",
        show_default=True,
        help="What decodes JPEG files; device: a CUDA card (nvJPEG), whose pixels differ from Pillow's.",
    ),
    click.option(
        "--column",
        "columns",
        multiple=True,
        metavar="NAME",
        help="Keep a DICOM attribute with each row (repeatable): sex, age, view, modality, ..., or all.",
    ),
    click.option("--hash-groups", is_flag=True, help="For table:, store the patient hashed, never as written."),
    click.option(
        "--hash-ids", is_flag=True, help="Store ids and groups hashed: file names can hold names of patients."
    ),
    click.option(
        "--uncertain", type=click.Choice(["ignore", "0", "1"]), help="For table:, what -1 in a label column means."
    ),
    click.option("--blank", type=click.Choice(["ignore", "0"]), help="For table:, what an empty label cell means."),
    click.option(
        "--separator",
        metavar="NAME",
        help="For table:, what separates cells: comma, semicolon, tab, pipe or one character.  [default: detected]",
    ),
    click.option("--image-column", metavar="NAME", help="For table:, the paths.  [default: image, filename, ...]"),
    click.option(
        "--label-column",
        "label_columns",
        multiple=True,
        metavar="NAME",
        help="For table:, the column of class names, or of 0 and 1 (repeatable).  [default: label, diagnosis, ...]",
    ),
    click.option(
        "--group-column", metavar="NAME|none", help="For table:, the patient.  [default: group, patient, case_id, ...]"
    ),
    click.option(
        "--missing-group", type=click.Choice(["own"]), help="For table:, own: a row without a patient is its own."
    ),
)


def dataset_settings(command: F) -> F:
    """Add the options that `load_dataset` takes; the command gets `settings`, `data_dir` and `download`."""

    @functools.wraps(command)
    def with_settings(*args: object, **values: object) -> Any:
        given: dict[str, Any] = {field.name: values.pop(field.name) for field in fields(DatasetSettings)}
        return command(*args, settings=DatasetSettings(**given), **values)

    download = click.option("--download", is_flag=True, help="Fetch the files where the licence allows (medmnist).")
    for option in reversed((options.data_dir, download, *_OPTIONS)):
        with_settings = option(with_settings)
    return with_settings  # type: ignore[return-value]
