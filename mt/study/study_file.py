"""A study: one file that says which datasets, models, budgets and methods; everything else follows from it.

datasets = ["pcam", "folder:photos"]      names that `mt datasets` lists; paths are relative to the file; settings may
                                          stand in brackets: "folder:photos[seed=3]"
models = ["simclr", "dino"]               names that `mt models` lists
methods = ["probe", "dvme"]               probe, concat, average, dvme, fine-tune     [default: probe]
fractions = [0.01, 0.1, 1.0]              or shots = [1, 5, 25]                       [default: these fractions]
seeds = 5                                 draws of each budget                        [default: 5]
draw = "stratified"                       or "random", "random-groups"                [default: stratified]
test_folds = 5                            without a test split: test every image once by K folds  [default: none]
repeats = 3                               times that test folds are drawn again         [default: 1]
primary = "roc_auc@1%"                    declares what decides; all else is exploratory
margin = 0.02                             tests non-inferiority and equivalence against `reference`
reference = "dino"                        a model or a method of the study
threshold = "youden"                      chosen on out-of-fold scores; a rule as `mt probe --threshold` takes it
prevalence = 0.02                         with a threshold: also PPV and NPV at this prevalence
calibrate = "temperature"                 or "platt": also score scaled probabilities
protocols = ["default"]                   of the probes                               [default: default]
[fuse]                                    fractions, shots, seeds of fusing and fine-tuning  [default: those above]
[featurize]                               image_size, data_dir, precision, on_error
[data."folder:photos"]                    task, group_regex, seed of one dataset, as `mt featurize` takes them
[report]                                  out
"""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Mapping
from functools import partial
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StrictInt,
    StrictStr,
    ValidationError,
    ValidationInfo,
)
from pydantic_core import PydanticCustomError

from mt.cache.names import mapped_place
from mt.datasets.registry import OnError
from mt.datasets.settings import DatasetSettings
from mt.errors import InputError, MtError, unknown
from mt.fuse.rivals import METHODS as FUSING
from mt.fuse.rivals import rows_of
from mt.study.complaints import complaint
from mt.types import TASKS

METHODS = ("probe", *FUSING, "fine-tune")
DRAWS = ("stratified", "random", "random-groups")
SCALINGS = ("temperature", "platt")
SHIPPED = ("paper", "demo")
DEFAULT_FRACTIONS = (0.01, 0.1, 1.0)


def _checked(check: Callable[[str], object]) -> AfterValidator:
    """Return a validator that calls `check`; the message of the MtError that it raises becomes the complaint."""

    def validated(name: str) -> str:
        try:
            check(name)
        except MtError as error:
            raise PydanticCustomError("mt", "{said}", {"said": str(error)}) from error
        return name

    return AfterValidator(validated)


def _dataset(name: str) -> None:
    from mt.datasets import named_settings, split_name
    from mt.datasets.settings import DatasetSettings

    split_name(named_settings(name, DatasetSettings())[0])


def _model(name: str) -> None:
    from mt.backbones.registry import find_spec

    find_spec(name)


def _protocol(name: str) -> None:
    from mt.probe.protocols import get_protocol

    get_protocol(name)


def _primary(text: str) -> None:
    from mt.probe.scores.declared import Primary

    Primary.parsed(text)


def _threshold(text: str) -> None:
    from mt.probe.decisions.thresholds import ThresholdRule

    ThresholdRule.parse(text)


def _one_of(kind: str, known: tuple[str, ...], name: str) -> None:
    if name not in known:
        raise unknown(kind, name, known, see="mt study --help")


def _number(value: Any) -> Any:
    """Refuse `true` and text where a number is meant; TOML's whole numbers are numbers too."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise PydanticCustomError("number", "a number")
    return value


def _path(place: str, info: ValidationInfo) -> str:
    """Return a path of the file as an absolute one: it is relative to the study file."""
    file: Path = info.context["path"]  # type: ignore[index]  # `parse_study` gives it
    return str(file.absolute().parent / Path(place).expanduser())


def _located(name: str, info: ValidationInfo) -> str:
    """Return a dataset's name with its path, if it has one, as an absolute one."""
    return mapped_place(name, lambda place: _path(place, info))


def _once(values: tuple[Any, ...]) -> tuple[Any, ...]:
    return tuple(dict.fromkeys(values))


DatasetName = Annotated[StrictStr, _checked(_dataset), AfterValidator(_located)]
ModelName = Annotated[StrictStr, _checked(_model)]
MethodName = Annotated[StrictStr, _checked(partial(_one_of, "method", METHODS))]
ProtocolName = Annotated[StrictStr, _checked(_protocol)]
TaskName = Annotated[StrictStr, _checked(partial(_one_of, "task", TASKS))]
PrimaryName = Annotated[StrictStr, _checked(_primary)]
ThresholdName = Annotated[StrictStr, _checked(_threshold)]
ScalingName = Annotated[StrictStr, _checked(partial(_one_of, "scaling", SCALINGS))]
FilePath = Annotated[StrictStr, AfterValidator(_path), Field(description="a path in quotes")]
DrawRule = Annotated[
    StrictStr, _checked(partial(_one_of, "draw", DRAWS)), Field(description=f"one of {', '.join(DRAWS)}")
]
Fraction = Annotated[float, BeforeValidator(_number), Field(gt=0, le=1)]
Count = Annotated[StrictInt, Field(ge=1)]
ONCE = AfterValidator(_once)
ABOVE_0 = Field(description="a number above 0, in the metric's unit")
SHARE = Field(description="a number between 0 and 1 (0.02 is 2 %)")
# Descriptions are what a complaint says was expected.
Fractions = Annotated[tuple[Fraction, ...], ONCE, Field(description="numbers above 0 and at most 1 (0.01 is 1 %)")]
Shots = Annotated[tuple[Count, ...], ONCE, Field(description="whole numbers of at least 1")]
Seeds = Annotated[Count, Field(description="a whole number of at least 1")]


class TomlTable(BaseModel):
    """A table of the file: unknown keys are refused, and nothing changes once it is read."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Draws(TomlTable):
    """Label budgets, and the number of draws of each; 1, 10 and 100 % if none are given."""

    fractions: Fractions = ()
    shots: Shots = ()
    seeds: Seeds = 5
    draw: DrawRule = "stratified"

    @property
    def count(self) -> int:
        """The number of draws over all budgets; the 100 % budget has one."""
        fractions = self.fractions or (() if self.shots else DEFAULT_FRACTIONS)
        return sum(1 if fraction == 1 else self.seeds for fraction in fractions) + len(self.shots) * self.seeds


class FusingDraws(TomlTable):
    """The budgets of fusing and fine-tuning, where they differ from those of the probes."""

    fractions: Fractions = ()
    shots: Shots = ()
    seeds: Annotated[Count | None, Field(description="a whole number of at least 1")] = None


class FeaturizeSettings(TomlTable):
    """How features are made, for every dataset of the study."""

    image_size: Annotated[Count | None, Field(description="a whole number of at least 1")] = None
    data_dir: Annotated[FilePath | None, Field(description="a path in quotes")] = None
    precision: Annotated[StrictStr, Field(description="text in quotes")] = "float32"
    on_error: Annotated[OnError, Field(description='"raise" or "skip"')] = "raise"


class DatasetTable(TomlTable):
    """How one dataset is read, as `mt featurize` takes it: a key for each of its options for a dataset."""

    task: Annotated[TaskName | None, Field(description=f"one of {', '.join(TASKS)}")] = None
    group_regex: Annotated[StrictStr | None, Field(description="a regular expression in quotes")] = None
    seed: Annotated[StrictInt, Field(description="a whole number")] = 0
    intensity: Annotated[StrictStr, Field(description="a rule in quotes, as --intensity takes it")] = "auto"
    frame: Annotated[StrictStr | StrictInt | None, Field(description="first, middle, all or a number")] = None
    voi: Annotated[StrictStr | StrictInt | None, Field(description="a window's number, or its name in quotes")] = None
    max_pixels: Annotated[Count | None, Field(description="a whole number of at least 1")] = None
    decoder: Annotated[StrictStr, Field(description='"pillow" or "device"')] = "pillow"
    columns: Annotated[tuple[StrictStr, ...], Field(description="names of DICOM attributes")] = ()
    hash_groups: Annotated[bool, Field(strict=True, description="true or false")] = False
    hash_ids: Annotated[bool, Field(strict=True, description="true or false")] = False
    uncertain: Annotated[StrictStr | None, Field(description='"ignore", "0" or "1"')] = None
    blank: Annotated[StrictStr | None, Field(description='"ignore" or "0"')] = None
    separator: Annotated[StrictStr | None, Field(description='"comma", "semicolon", "tab" or "pipe"')] = None
    image_column: Annotated[StrictStr | None, Field(description="a column in quotes")] = None
    label_columns: Annotated[tuple[StrictStr, ...], Field(description="names of columns")] = ()
    group_column: Annotated[StrictStr | None, Field(description='a column in quotes, or "none"')] = None
    missing_group: Annotated[StrictStr | None, Field(description='"own"')] = None
    data_dir: Annotated[FilePath | None, Field(description="a path in quotes")] = None
    download: Annotated[bool, Field(strict=True, description="true or false")] = False


class ReportSettings(TomlTable):
    """Where the report goes."""

    out: Annotated[FilePath, Field(validate_default=True)] = "report.html"


class StudyFile(TomlTable):
    """What a study file asks for, checked."""

    datasets: Annotated[tuple[DatasetName, ...], ONCE, Field(min_length=1, description="names of datasets")]
    models: Annotated[tuple[ModelName, ...], ONCE, Field(min_length=1, description="names of backbones")]
    methods: Annotated[tuple[MethodName, ...], ONCE, Field(min_length=1, description="names of methods")] = ("probe",)
    fractions: Fractions = ()
    shots: Shots = ()
    seeds: Seeds = 5
    draw: DrawRule = "stratified"
    test_folds: Annotated[StrictInt | None, Field(ge=2, description="a whole number of at least 2")] = None
    repeats: Annotated[Count, Field(description="a whole number of at least 1")] = 1
    primary: Annotated[PrimaryName | None, Field(description='"METRIC@BUDGET"')] = None
    margin: Annotated[Annotated[float, BeforeValidator(_number), Field(gt=0)] | None, ABOVE_0] = None
    reference: Annotated[StrictStr | None, Field(description="a model or a method in quotes")] = None
    threshold: Annotated[ThresholdName | None, Field(description="a rule in quotes, as --threshold takes it")] = None
    prevalence: Annotated[Annotated[float, BeforeValidator(_number), Field(gt=0, lt=1)] | None, SHARE] = None
    calibrate: Annotated[ScalingName | None, Field(description=f"one of {', '.join(SCALINGS)}")] = None
    protocols: Annotated[tuple[ProtocolName, ...], ONCE, Field(min_length=1, description="names of protocols")] = (
        "default",
    )
    fuse: FusingDraws = FusingDraws()
    featurize: FeaturizeSettings = FeaturizeSettings()
    data: Annotated[Mapping[DatasetName, DatasetTable], Field(description='tables [data."NAME"]')] = Field(
        default_factory=dict
    )
    report: ReportSettings

    @property
    def folds_name(self) -> str:
        """What its test folds are called, as in tables; empty on test splits."""
        from mt.probe.cross_validation.fold_draws import Folds

        return Folds(self.test_folds, self.repeats).name if self.test_folds else ""

    @property
    def draws(self) -> Draws:
        """The draws of the probes."""
        return Draws(fractions=self.fractions, shots=self.shots, seeds=self.seeds, draw=self.draw)

    @property
    def fused(self) -> Draws:
        """The draws of fusing and fine-tuning; naming fractions or shots replaces both of the probes'."""
        own = self.fuse if self.fuse.fractions or self.fuse.shots else self.draws
        return Draws(fractions=own.fractions, shots=own.shots, seeds=self.fuse.seeds or self.seeds, draw=self.draw)

    def settings_of(self, dataset: str) -> DatasetTable:
        """Return how a dataset is read; its `data_dir` is that of `[featurize]` unless its own table has one."""
        own = self.data.get(dataset, DatasetTable())
        return own.model_copy(update={"data_dir": own.data_dir or self.featurize.data_dir})

    @property
    def fusing(self) -> tuple[str, ...]:
        """The methods that need several models."""
        return tuple(method for method in self.methods if method in FUSING)


def shipped(name: str) -> str:
    """Return the text of a study that comes with mt: "paper" or "demo"."""
    return (files("mt.study") / "studies" / f"{name}.toml").read_text(encoding="utf-8")


def load_study(path: Path) -> StudyFile:
    """Read a study file.  Raises InputError naming the file, the key, what was expected and what was found."""
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise InputError(f"No study file {path}. Write the paper's to start from: mt study --paper") from None
    except IsADirectoryError:
        raise InputError(f"{path}: expected a study file, found a folder. See: mt study --help") from None
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: expected TOML in UTF-8, found other bytes ({error.reason}).") from error
    return parse_study(text, path)


def parse_study(text: str, path: Path) -> StudyFile:
    """Read a study's text; paths in it are relative to the folder of `path`.  Raises as `load_study` does."""
    try:
        asked = {"report": {}, **tomllib.loads(text)}
    except tomllib.TOMLDecodeError as error:
        raise InputError(f"{path}: expected TOML, found an error in it: {error}. See: https://toml.io") from error
    try:
        study = StudyFile.model_validate(asked, context={"path": path})
    except ValidationError as error:
        raise InputError(f"{path}: {complaint(StudyFile, error.errors()[0])}") from error
    if study.fusing and len(study.models) < 2:
        needed = f"at least two backbones for {', '.join(study.fusing)}"
        raise InputError(f"{path}: models: expected {needed}, found {list(study.models)!r}.")
    if study.test_folds is None and study.repeats > 1:
        raise InputError(f"{path}: repeats: {study.repeats} repeats of test folds need them: test_folds = 5.")
    _check_decisions(study, path)
    if study.test_folds and "fine-tune" in study.methods:
        raise InputError(f"{path}: test_folds: fine-tune trains from images, once per draw. Remove one of the two.")
    for name in study.data:
        if name not in study.datasets:
            said = unknown("dataset of this study", name, study.datasets, see="'datasets' in the file")
            raise InputError(f"{path}: data: {said}")
        _check_settings(study.data[name], f'{path}: data."{name}"')
    return study


def _check_decisions(study: StudyFile, path: Path) -> None:
    """Refuse a margin without a reference, and thresholds or scaling that cannot be computed.  Raises InputError."""
    if (study.margin is None) != (study.reference is None):
        lacks = "reference" if study.reference is None else "margin"
        raise InputError(f"{path}: margin and reference go together, and {lacks} is missing.")
    if study.reference is not None and study.reference not in (known := (*study.models, *rows_of(study.fusing))):
        raise InputError(f"{path}: reference: {unknown('row', study.reference, known, see='models and methods')}")
    if study.prevalence is not None and study.threshold is None:
        raise InputError(f'{path}: prevalence: PPV and NPV need a threshold. Add: threshold = "youden".')
    for key in ("threshold", "calibrate") if study.test_folds else ():
        if getattr(study, key) is not None:
            raise InputError(f"{path}: {key}: with test_folds a score pools several fits. Remove one of the two.")


def _check_settings(table: DatasetTable, where: str) -> None:
    """Refuse values that no dataset takes, before anything runs.  Raises InputError."""
    try:
        DatasetSettings(**table.model_dump(exclude={"data_dir", "download"}))
    except InputError as error:
        raise InputError(f"{where}: {error}") from None
