"""A study: one file that says which datasets, models, budgets and methods; everything else follows from it.

datasets = ["pcam", "folder:photos"]      names that `mt datasets` lists; paths are relative to the file
models = ["simclr", "dino"]               names that `mt models` lists
methods = ["probe", "dvme"]               probe, concat, average, dvme, fine-tune     [default: probe]
fractions = [0.01, 0.1, 1.0]              or shots = [1, 5, 25]                       [default: these fractions]
seeds = 5                                 draws of each budget                        [default: 5]
protocols = ["default"]                   of the probes                               [default: default]
[fuse]                                    fractions, shots, seeds of fusing and fine-tuning  [default: those above]
[featurize]                               image_size, data_dir, precision
[report]                                  out
"""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import Any

from mt.errors import InputError, MtError, unknown
from mt.fuse.rivals import METHODS as FUSING

METHODS = ("probe", *FUSING, "fine-tune")
SHIPPED = ("paper", "demo")


@dataclass(frozen=True)
class Draws:
    """Which label budgets, and how many draws of each; 1, 10 and 100 % without any."""

    fractions: tuple[float, ...] = ()
    shots: tuple[int, ...] = ()
    seeds: int = 5

    @property
    def count(self) -> int:
        """Draws of all budgets together: all labels can be drawn in one way only."""
        fractions = self.fractions or (() if self.shots else (0.01, 0.1, 1.0))
        return sum(1 if fraction == 1 else self.seeds for fraction in fractions) + len(self.shots) * self.seeds


@dataclass(frozen=True)
class Study:
    """What a study file asks for, checked.  draws: of the probes; fused: of fusing and fine-tuning."""

    path: Path
    datasets: tuple[str, ...]
    models: tuple[str, ...]
    methods: tuple[str, ...]
    draws: Draws
    fused: Draws
    protocols: tuple[str, ...] = ("default",)
    featurize: Mapping[str, Any] = field(default_factory=dict)
    report: Mapping[str, Any] = field(default_factory=dict)

    @property
    def fusing(self) -> tuple[str, ...]:
        """The methods that need several models."""
        return tuple(method for method in self.methods if method in FUSING)


def shipped(name: str) -> str:
    """Return the text of a study that comes with mt: "paper" or "demo"."""
    return (files("mt.study") / "studies" / f"{name}.toml").read_text(encoding="utf-8")


def load_study(path: Path) -> Study:
    """Read a study file.  Raises InputError naming the file, the key, what was expected and what was found."""
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise InputError(f"No study file {path}. Write the paper's to start from: mt study --paper") from None
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: expected TOML in UTF-8, found other bytes ({error.reason}).") from error
    return parse_study(text, path)


def parse_study(text: str, path: Path) -> Study:
    """Read a study's text; paths in it are meant from the folder of `path`.  Raises InputError likewise."""
    try:
        asked = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise InputError(f"{path}: expected TOML, found an error in it: {error}. See: https://toml.io") from error
    return _Reader(path, asked).study()


class _Reader:
    """Checks a study's keys and values one by one, so that every complaint names its place."""

    def __init__(self, path: Path, asked: Mapping[str, Any], where: str = "") -> None:
        self.path, self.asked, self.where = path, asked, where

    def study(self) -> Study:
        self._known_keys(_KEYS)
        draws = self._draws(Draws())
        study = Study(
            path=self.path,
            datasets=tuple(map(self._located, self._several("datasets", str, "names of datasets", check=_dataset))),
            models=self._several("models", str, "names of backbones", check=_model),
            methods=self._several("methods", str, "names of methods", default=("probe",), check=_method),
            draws=draws,
            fused=self._fused(draws),
            protocols=self._several("protocols", str, "names of protocols", default=("default",), check=_protocol),
            featurize=self._table("featurize", _FEATURIZE),
            report=self._table("report", _REPORT),
        )
        if study.fusing and len(study.models) < 2:
            raise self._wrong("models", f"at least two backbones for {', '.join(study.fusing)}", list(study.models))
        return study

    def _draws(self, default: Draws) -> Draws:
        """Return the budgets and seeds; naming fractions or shots replaces both of the default."""
        fractions = self._several("fractions", float, "numbers above 0 and at most 1", default=(), check=_fraction)
        shots = self._several("shots", int, "whole numbers of at least 1", default=(), check=_count)
        if not fractions and not shots:
            fractions, shots = default.fractions, default.shots
        return Draws(fractions, shots, self._seeds(default.seeds))

    def _fused(self, draws: Draws) -> Draws:
        table = self.asked.get("fuse", {})
        if not isinstance(table, dict):
            raise self._wrong("fuse", "a table [fuse]", table)
        reader = _Reader(self.path, table, where="fuse.")
        reader._known_keys(_DRAWS)
        return reader._draws(draws)

    def _several(
        self,
        key: str,
        kind: type,
        expected: str,
        *,
        default: tuple[Any, ...] | None = None,
        check: Callable[[Any], None],
    ) -> tuple[Any, ...]:
        """Return a list's values, once each; a key without a default must be there and hold something."""
        if key not in self.asked:
            if default is None:
                raise InputError(f"{self.path}: '{key}' is missing: expected a list of {expected}.")
            return default
        values = self.asked[key]
        if not isinstance(values, list) or (not values and default is None):
            raise self._wrong(key, f"a list of {expected}", values)
        for place, value in enumerate(values, start=1):
            numeric = kind is float and isinstance(value, int)
            if isinstance(value, bool) or not (isinstance(value, kind) or numeric):
                raise self._wrong(f"{key}, value {place}", expected, value)
            try:
                check(value)
            except MtError as error:
                raise InputError(f"{self.path}: {self.where}{key}, value {place}: {error}") from error
        return tuple(dict.fromkeys(kind(value) for value in values))

    def _seeds(self, default: int) -> int:
        value = self.asked.get("seeds", default)
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise self._wrong("seeds", "a whole number of at least 1", value)
        return value

    def _table(self, name: str, known: Mapping[str, type]) -> dict[str, Any]:
        table = self.asked.get(name, {})
        if not isinstance(table, dict):
            raise self._wrong(name, f"a table [{name}]", table)
        _Reader(self.path, table, where=f"{name}.")._known_keys(known)
        for key, value in table.items():
            if isinstance(value, bool) or not isinstance(value, known[key]):
                expected = {int: "a whole number", str: "text in quotes"}[known[key]]
                raise self._wrong(f"{name}.{key}", expected, value)
            if isinstance(value, int) and value < 1:
                raise self._wrong(f"{name}.{key}", "a whole number of at least 1", value)
        return dict(table)

    def _known_keys(self, known: Collection[str]) -> None:
        for key in self.asked:
            if key not in known:
                said = unknown("key", key, known, see="mt study --help")
                raise InputError(f"{self.path}: {self.where}{key}: {said}")

    def _located(self, name: str) -> str:
        """Return a dataset's name with its path, if it has one, relative to the study file."""
        kind, colon, place = name.partition(":")
        if not colon or kind not in ("folder", "table"):
            return name
        return f"{kind}:{(self.path.absolute().parent / Path(place).expanduser())}"

    def _wrong(self, key: str, expected: str, found: Any) -> InputError:
        return InputError(f"{self.path}: {self.where}{key}: expected {expected}, found {found!r}.")


_DRAWS = ("fractions", "shots", "seeds")
_KEYS = ("datasets", "models", "methods", *_DRAWS, "protocols", "fuse", "featurize", "report")
_FEATURIZE = {"image_size": int, "data_dir": str, "precision": str}
_REPORT = {"out": str}


def _dataset(name: str) -> None:
    from mt.datasets import split_name

    split_name(name)


def _model(name: str) -> None:
    from mt.backbones.registry import find_spec

    find_spec(name)


def _method(name: str) -> None:
    if name not in METHODS:
        raise unknown("method", name, METHODS, see="mt study --help")


def _protocol(name: str) -> None:
    from mt.probe.protocols.registry import get_protocol

    get_protocol(name)


def _fraction(value: float) -> None:
    if not 0 < value <= 1:
        raise InputError(f"expected a number above 0 and at most 1 (0.01 is 1 %), found {value:g}.")


def _count(value: int) -> None:
    if value < 1:
        raise InputError(f"expected a whole number of at least 1, found {value}.")
