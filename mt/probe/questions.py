"""What a run asks: which feature files belong together, which budgets, and the identity of every question.

Planning reads no features and imports nothing heavy, so a run whose answers are all stored stays quick.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from mt.cache.catalog import Catalog, Entry, chosen, settled
from mt.cache.names import bare_name, digest, is_named, typed, without_place
from mt.errors import CacheError, InputError, nearest
from mt.probe.labelled import has_labels
from mt.terminal import progress
from mt.types import TEST_BY_FOLDS

ATTENTION = "attention"  # the pooling that is fitted: mt.probe.methods.attention
REVISION = 1  # of what fits and predicts around the solver; raised whenever its numbers change
_SMALL = 64 << 20  # bytes of a feature file


@dataclass(frozen=True)
class Bagging:
    """How rows of a feature file become cases.

    column: the column whose value names a row's case, or "group".  pool: a rule of `mt.cache.pooling`, or "attention".
    """

    column: str
    pool: str


@dataclass(frozen=True)
class Pair:
    """The feature files of one method on one dataset: train and test of one model, or of several in order.

    dataset, model: the names that tables show.  val: empty unless the validation split chooses.
    bagging: how rows become cases; None where each row is a case.
    """

    dataset: str
    test_dataset: str
    model: str
    train: tuple[Entry, ...]
    test: tuple[Entry, ...]
    val: tuple[Entry, ...] = ()
    bagging: Bagging | None = None

    @property
    def task(self) -> str:
        return str(self.train[0].manifest["task"])

    @property
    def is_small(self) -> bool:
        """Whether its files are so small that a fit need not ask how much memory there is."""
        return all(entry.bytes < _SMALL for entry in (*self.train, *self.test, *self.val))

    @cached_property
    def fingerprints(self) -> dict[str, Any]:
        """The fingerprints of every file that a fit or its predictions come from, by split."""
        parts = {"train": self.train, "test": self.test, "val": self.val}
        return {
            split: [_identity_of(entry, self.bagging) for entry in entries]
            for split, entries in parts.items()
            if entries
        }


@dataclass(frozen=True)
class Budget:
    """How many labels a draw may use: a fraction of the train split, or a number of shots per class.

    Both are None for rows that a draw file lists without naming a budget.
    """

    fraction: float | None = None
    shots: int | None = None

    def __str__(self) -> str:
        if self.fraction is not None:
            return f"{100 * self.fraction:g} %"
        return "listed rows" if self.shots is None else f"{self.shots} shots"

    @property
    def kind(self) -> str:
        """The kind of its draws: "fractions", "shots" or "listed".  Only draws of one kind may share a curve."""
        return "fractions" if self.fraction is not None else "listed" if self.shots is None else "shots"

    @property
    def is_everything(self) -> bool:
        """Whether it takes all labels, so that there is only one draw of it."""
        return self.fraction == 1


@dataclass(frozen=True)
class Question:
    """One fit that is asked for: a method with its recipe on a pair's features, one budget, one seed.

    recipe: JSON that holds everything of the method that changes a number (protocol hash, solver revision, ...).
    draw: JSON that identifies how the rows are drawn: the revision of the algorithm, or the digest of a draw file.
    """

    pair: Pair
    budget: Budget
    seed: int
    method: str
    recipe: Mapping[str, Any]
    draw: Any

    @cached_property
    def identity(self) -> str:
        """The sha256 of everything that determines the predictions."""
        return digest(
            {
                "revision": REVISION,
                "method": self.method,
                "recipe": dict(self.recipe),
                "features": self.pair.fingerprints,
                "budget": {"fraction": self.budget.fraction, "shots": self.budget.shots},
                "seed": self.seed,
                "draw": self.draw,
            }
        )


def budgets(fractions: Sequence[float], shots: Sequence[int]) -> list[Budget]:
    """Return the budgets asked for, each once: fractions, then shots, both ascending; 1, 10 and 100 % by default.

    Raises InputError for a fraction outside (0, 1], or fewer than 1 shot.
    """
    for fraction in fractions:
        if not 0 < fraction <= 1:
            raise InputError(f"--fraction must be above 0 and at most 1 (0.01 is 1 %), got {fraction:g}.")
    for shot in shots:
        if shot < 1:
            raise InputError(f"--shots must be at least 1 label per class, got {shot}.")
    asked = [Budget(fraction=float(f)) for f in sorted(set(fractions))] + [Budget(shots=s) for s in sorted(set(shots))]
    return asked or [Budget(fraction=f) for f in (0.01, 0.1, 1.0)]


def seeds_of(budget: Budget, seeds: int) -> range:
    """Return the seeds of a budget's draws; all labels have only one draw."""
    return range(1 if budget.is_everything else seeds)


def find_pairs(
    catalog: Catalog,
    *,
    models: Sequence[str] = (),
    datasets: Sequence[str] = (),
    test_dataset: str | None = None,
    select_val: bool = False,
    join: bool = False,
    everything: bool = False,
) -> list[Pair]:
    """Return train and test features that belong together: the same backbone and, unless test_dataset, dataset content.

    select_val: take the validation split too.  join: take it if there is one, since all splits will be joined; if
    there is no test split, the train split takes its place.
    everything: use superseded, limited and random-weight features too.

    Raises InputError if the cache lacks something that was asked for, or if the classes of the test dataset differ;
    CacheError if a train split has no test (or validation) split.  Omits a test split without any label, with a note.
    """
    every = [entry for entry in catalog.entries(everything=True) if entry.complete]
    _check_asked(catalog.cache_dir, every, models, datasets, everything=everything)

    def features(split: str, names: Sequence[str]) -> list[Entry]:
        return chosen(every, datasets=names, models=models, splits=[split], everything=everything)

    trains = features("train", datasets)
    trains = trains if everything else settled(trains, datasets)
    tests = features("test", [test_dataset] if test_dataset else datasets)
    if test_dataset:
        tests = tests if everything else settled(tests, [test_dataset])
        trains = [train for train in trains if not _is_of(train, test_dataset)] or trains
    vals = features("val", datasets) if select_val or join else []
    if not everything:
        _note_sizes(trains, every)
    names = _names(trains)
    pairs = []
    for train in trains:
        if join:
            test, val = (_partners(train, tests) or [train])[-1], tuple(_partners(train, vals)[-1:])
        else:
            test = _partner(train, tests, "test", test_dataset)
            val = (_partner(train, vals, "val", None),) if select_val else ()
        if test_dataset:
            _check_same_classes(train, test)
        dataset, model = names[train.path]
        pairs.append(Pair(dataset, test.dataset if test_dataset else dataset, model, (train,), (test,), val))
    return sorted(pairs if join else _scorable(pairs), key=lambda pair: (pair.dataset, pair.model))


def _note_sizes(taken: Sequence[Entry], every: Sequence[Entry]) -> None:
    """Say which features of other image sizes those that are taken supersede."""
    for entry in taken:
        sizes = {
            _image_size(other): None
            for other in every
            if "superseded" in other.flags and _names_of(other) == _names_of(entry)
        }
        others = [f"at {size} px" for size in sizes if size not in (None, _image_size(entry))]
        if others:
            progress.note(
                f"{entry.backbone} on '{entry.dataset}': features at {_image_size(entry)} px are taken, the newest; "
                f"those {' and '.join(others)} are superseded. Take all: --everything"
            )


def _image_size(entry: Entry) -> int | None:
    size: int | None = (entry.manifest.get("inputs", {}).get("backbone") or {}).get("image_size")
    return size


def _names_of(entry: Entry) -> tuple[object, ...]:
    """Return the names of a file's dataset, split and backbone: a newer file of the same supersedes it."""
    return entry.dataset, entry.manifest.get("location"), entry.split, entry.backbone


def _scorable(pairs: Sequence[Pair]) -> list[Pair]:
    """Return the pairs whose test split holds a label.  Raises InputError where none does."""
    lacking = {pair.test[0].path for pair in pairs if pair.test[0].has_unlabelled and not has_labels(pair.test[0])}
    if not lacking:
        return list(pairs)
    found = [pair for pair in pairs if pair.test[0].path not in lacking]
    without = {pair.test_dataset: pair.test[0].n_rows for pair in pairs if pair.test[0].path in lacking}
    names = ", ".join(f"{rows:,} of '{name}'" for name, rows in without.items())
    why = (
        f"Nothing to score: no test row has a label ({names}). Score on folds of the labelled rows: --test-folds 5; "
        "predict for such rows: mt predict"
    )
    if not found:
        raise InputError(why)
    progress.note(why)
    return found


def _is_of(entry: Entry, dataset: str) -> bool:
    return is_named(entry.dataset, entry.manifest.get("location"), dataset)


def _identity_of(entry: Entry, bagging: Bagging | None) -> dict[str, Any]:
    """Return what identifies a file's numbers: its fingerprints, and the number of rows (`--limit` reduces it).

    With `bagging`, cases get a split fingerprint of their own, different from the one of the rows.
    """
    prints = {**entry.fingerprints, "rows": entry.n_rows}
    if bagging is None:
        return prints
    return {**prints, "split": digest([prints["split"], bagging.column]), "bag": bagging.column, "pool": bagging.pool}


def with_bags(pairs: Sequence[Pair], column: str | None, pool: str | None) -> list[Pair]:
    """Return the pairs with rows grouped into cases, if that was asked for; the model's name then states the pooling.

    column: None takes the column that imported instances have.  pool: None is `mean` if a column is named.
    Omits, with a note, files of instances if no pooling is asked for, and files without bags if it is.
    Raises InputError if no pair remains.
    """
    wanted = column is not None or pool is not None
    kept = []
    for pair in pairs:
        own = pair.train[0].manifest.get("bag")
        if not wanted:
            kept += [] if own else [pair]
        elif (by := column or own) is not None:
            rule = pool or "mean"
            kept.append(replace(pair, model=f"{pair.model}, {rule} per {by}", bagging=Bagging(by, rule)))
    without = [f"'{pair.model}' of '{pair.dataset}'" for pair in pairs if not _has(kept, pair)]
    if without and wanted:
        why = f"{', '.join(without[:3])}: no column names the case of each row. Name one: --bag COLUMN"
    else:
        why = (
            f"{', '.join(without[:3])}: rows are instances of cases. Pool them: mt probe --pool mean, or "
            f"mt cache import --pool mean"
        )
    if not kept and without:
        raise InputError(why)
    if without:
        progress.note(f"Omitted: {why}")
    return kept


def suggest_folds(pairs: Sequence[Pair]) -> None:
    """Print each dataset's stored warning that it is small or has no test split, and that test folds would help."""
    said = [(pair.dataset, line) for pair in pairs for line in pair.train[0].manifest.get("warnings", ())]
    for dataset, line in dict.fromkeys(said):
        if TEST_BY_FOLDS in line:
            progress.note(f"{dataset}: {line}")


def _has(kept: Sequence[Pair], pair: Pair) -> bool:
    return any(one.train == pair.train for one in kept)


def _partners(train: Entry, entries: Sequence[Entry], dataset: str | None = None) -> list[Entry]:
    """Return those entries that have the train entry's backbone and `--limit`.

    dataset: None also requires the same dataset content; a name allows other content.
    """

    def belongs(entry: Entry) -> bool:
        same = dataset is not None or entry.fingerprints["dataset"] == train.fingerprints["dataset"]
        limits = ("limited" in entry.flags) == ("limited" in train.flags)
        return same and limits and entry.fingerprints["backbone"] == train.fingerprints["backbone"]

    return [entry for entry in entries if belongs(entry)]


def _partner(train: Entry, entries: Sequence[Entry], split: str, dataset: str | None) -> Entry:
    """Return the same backbone's features of another split, the last if several.  Raises CacheError if none."""
    found = _partners(train, entries, dataset)
    if not found:
        wanted = dataset or train.dataset
        by_folds = "" if dataset or split != "test" else "  Or test all images by folds: mt probe --test-folds 5"
        raise CacheError(
            f"The '{train.backbone}' features of '{train.dataset}' (train) have no finished '{split}' features of "
            f"'{wanted}' by the same backbone. Make them: {_featurize(train, dataset)}" + by_folds
        )
    return found[-1]


def _featurize(train: Entry, other: str | None) -> str:
    """Return the command that makes features like these, of their own dataset or another."""
    command = str(train.manifest.get("command") or f"mt featurize --model {train.backbone} --dataset {train.dataset}")
    return f"mt featurize --model {train.backbone} --dataset {other}" if other else command


def _check_same_classes(train: Entry, test: Entry) -> None:
    """Raise InputError for a test dataset of another task or other classes."""
    ours, theirs = ([entry.manifest[key] for key in ("task", "class_names")] for entry in (train, test))
    if ours != theirs:
        raise InputError(
            f"--test-dataset {test.dataset} needs the task and classes of {train.dataset}: "
            f"expected {ours[0]} {', '.join(ours[1])}; found {theirs[0]} {', '.join(theirs[1])}."
        )


def _names(entries: Sequence[Entry]) -> dict[Any, tuple[str, str]]:
    """Return the names of dataset and model of each file; equal names get the start of their fingerprint."""
    contents: dict[str, set[str]] = {}
    backbones: dict[tuple[str, str], set[str]] = {}
    for entry in entries:
        contents.setdefault(entry.dataset, set()).add(entry.fingerprints["dataset"])
        key = (entry.fingerprints["dataset"], entry.backbone)
        backbones.setdefault(key, set()).add(entry.fingerprints["backbone"])
    names = {}
    for entry in entries:
        dataset, model = entry.dataset, entry.backbone
        if len(contents[dataset]) > 1:
            dataset += f"@{entry.fingerprints['dataset'][:8]}"
        if len(backbones[entry.fingerprints["dataset"], entry.backbone]) > 1:
            model += f"@{entry.fingerprints['backbone'][:8]}"
        if "limited" in entry.flags:
            model += f" ({entry.n_rows} rows)"
        names[entry.path] = (dataset, model)
    return names


def _check_asked(
    cache: Path, every: Sequence[Entry], models: Sequence[str], datasets: Sequence[str], *, everything: bool
) -> None:
    """Raise InputError, with the command that helps, unless every name asked for has finished train features."""

    def has(**names: Sequence[str]) -> list[Entry]:
        return chosen(every, splits=["train"], everything=everything, **names)

    if not has():
        for name in datasets:
            _check_dataset(name)
        raise _nothing(cache, chosen(every, splits=["train"], everything=True), models, datasets)
    for name in datasets:
        if not has(datasets=[name]):
            made = f"--model {(models or ['dino'])[0]} --dataset {shlex.quote(name)}"
            if moved := has(datasets=[without_place(name)]):
                raise _elsewhere(cache, name, moved[0], made)
            _check_dataset(name)
            raise _absent(cache, f"--dataset {shlex.quote(name)}", _there(has(), name), made)
    for name in models:
        if not has(models=[name], datasets=datasets):
            where = (datasets or [has()[0].dataset])[0]
            close = nearest(name, sorted({entry.backbone for entry in has(datasets=datasets)}))
            meant = f"Did you mean '{close}'? " if close else ""
            raise _absent(cache, f"--model {name}", meant, f"--model {name} --dataset {shlex.quote(where)}")


def _check_dataset(name: str) -> None:
    """Raise InputError if no dataset of that name could be featurized."""
    from mt.datasets import check_dataset_name

    check_dataset_name(name)


def _there(entries: Sequence[Entry], name: str) -> str:
    """Return a sentence on the settings of a dataset for which there are features; empty if there are none."""
    same = [entry for entry in entries if _is_of(entry, bare_name(name))]
    names = " and ".join(dict.fromkeys(shlex.quote(typed(entry.dataset)) for entry in same))
    return f"There are: {names}. " if names else ""


def _elsewhere(cache: Path, name: str, other: Entry, arguments: str) -> InputError:
    """Return the error for a dataset that may be one whose features were made before it was moved or copied."""
    return InputError(
        f"No features in {cache} were made from {shlex.quote(name)}; those of {other.dataset} were made from "
        f"{other.manifest['location']}. If other images are meant: mt featurize {arguments}  If they are the same: "
        f"--dataset {shlex.quote(typed(other.dataset))}"
    )


def _absent(cache: Path, asked: str, there: str, arguments: str) -> InputError:
    return InputError(
        f"No finished train features for {asked} in {cache}. {there}"
        f"Make them: mt featurize {arguments}  See: mt cache list"
    )


def _nothing(cache: Path, omitted: Sequence[Entry], models: Sequence[str], datasets: Sequence[str]) -> InputError:
    """Return the error for a cache without anything to probe, naming the command that fills it."""
    model, dataset = (*models, "dino")[0], shlex.quote((*datasets, "pcam")[0])
    command = f"mt featurize --model {model} --dataset {dataset}"
    if omitted:
        flags = ", ".join(sorted({flag for entry in omitted for flag in entry.flags}))
        return InputError(
            f"{cache} holds only features that are omitted by default ({flags}). "
            f"Use them with --everything, or make others: {command}"
        )
    return InputError(f"No finished train features in {cache}. Make some: {command}")
