"""What a protocol is: a complete recipe for probing, with its source, its fingerprint, and how it is printed."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from mt.cache.fingerprint import digest
from mt.errors import InputError
from mt.types import SINGLE_LABEL

REVISION = 3  # raised whenever the numbers of any protocol change


@dataclass(frozen=True)
class Logistic:
    """L2 logistic regression over one or more C, ascending; `C * sum(loss) + 0.5 * ||w||^2`."""

    kind: ClassVar[str] = "Logistic"
    Cs: tuple[float, ...]
    max_iter: int = 1000
    tol: float = 1e-5
    dtype: Literal["float32", "float64"] = "float32"
    class_weight: Literal["balanced"] | None = None


@dataclass(frozen=True)
class Head:
    """A linear layer trained by gradient steps; every (learning rate, weight decay) is one candidate.

    start_sd: weights start normal with this standard deviation and without bias; None is torch.nn.Linear's own start.
    """

    kind: ClassVar[str] = "Head"
    optimizer: Literal["adam", "adamw", "sgd"]
    learning_rates: tuple[float, ...]
    batch: int
    epochs: int | None = None
    steps: int | None = None
    weight_decays: tuple[float, ...] = (0.0,)
    momentum: float = 0.0
    cosine: bool = False
    patience: float | None = None
    runs: int = 1
    start_sd: float | None = None


@dataclass(frozen=True)
class Neighbours:
    """A vote of the k nearest training rows by cosine similarity."""

    kind: ClassVar[str] = "Neighbours"
    ks: tuple[int, ...]
    vote: Literal["weighted", "majority"]
    temperature: float = 0.07


@dataclass(frozen=True)
class Validation:
    """Where the labels that choose a setting come from, always inside the budget unless `--select val` is given.

    kind: "folds" (stratified group folds, all rows predicted out of fold), "holdout" (a share of the budget) or "none".
    seed: of the hold-out; None is the draw's own.  ties: which of equally good C (or k) is taken.
    """

    kind: Literal["folds", "holdout", "none"]
    folds: int = 5
    fraction: float = 0.0
    seed: int | None = None
    ties: Literal["smaller", "larger"] = "smaller"


@dataclass(frozen=True)
class Protocol:
    """One recipe.  All fields but the prose enter the identity of a score."""

    name: str
    title: str
    source: str
    method: Logistic | Head | Neighbours
    validation: Validation
    scaling: Literal["standardize", "none", "l2"]
    selection_metric: Literal["log_loss", "accuracy", "balanced_accuracy", "macro_f1"] | None
    tasks: tuple[str, ...] = SINGLE_LABEL
    validation_source: str = ""
    embedding: str = "the backbone's own, from the cache"
    published: str = ""
    deviations: tuple[str, ...] = ()

    @property
    def fingerprint(self) -> str:
        """The sha256 of every setting that changes a number, and of the revision of our code.

        The method enters by its `kind`, which must not change when its class is renamed.
        """
        settings = dataclasses.asdict(self)
        for prose in ("title", "source", "validation_source", "embedding", "published", "deviations"):
            del settings[prose]
        return digest({"revision": REVISION, "kind": self.method.kind, **settings})

    def check_select(self, select: str) -> None:
        """Refuse a validation split if the protocol chooses nothing: its labels would be counted but not used."""
        if select == "val" and self.validation.kind == "none":
            raise InputError(
                f"Protocol '{self.name}' chooses nothing; remove --select val, or take another protocol: "
                "mt probe --list-protocols"
            )

    def check_task(self, task: str, dataset: str) -> None:
        """Refuse a dataset whose task the protocol is not defined for."""
        if task not in self.tasks:
            raise InputError(
                f"Protocol '{self.name}' is defined for {', '.join(self.tasks)}, and {dataset} is {task}. "
                "See: mt probe --list-protocols"
            )


def describe(protocol: Protocol) -> dict[str, Any]:
    """Return everything a protocol states, as JSON, settings included."""
    return {
        **dataclasses.asdict(protocol),
        "kind": protocol.method.kind.lower(),
        "hash": protocol.fingerprint,
    }


def stated(protocol: Protocol) -> list[tuple[str, str]]:
    """Return the lines of `mt probe --list-protocols` on one protocol."""
    method = {name: value for name, value in dataclasses.asdict(protocol.method).items() if value is not None}
    settings = ", ".join(f"{name} {_short(value)}" for name, value in method.items())
    lines = [
        ("what", protocol.title),
        ("source", protocol.source),
        ("method", f"{protocol.method.kind}: {settings}"),
        ("validation source", protocol.validation_source),
        ("selection metric", protocol.selection_metric or "none"),
        ("embedding", protocol.embedding),
        ("scaling", protocol.scaling),
        ("tasks", ", ".join(protocol.tasks)),
        ("published", protocol.published),
        ("known deviations", "; ".join(protocol.deviations) or "none"),
        ("hash", protocol.fingerprint[:12]),
    ]
    return [(name, value) for name, value in lines if value]


def _short(value: Any) -> str:
    if not isinstance(value, tuple):
        return f"{value:g}" if isinstance(value, float) else str(value)
    return ", ".join(_short(part) for part in value)
