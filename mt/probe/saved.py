"""Fitted probes on disk, in the format of `mt.results.model_files`: scaling and weights, or neighbours."""

from __future__ import annotations

import csv
import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from mt.cache.names import slug
from mt.errors import InputError, MtError
from mt.probe.methods.attention import AttentionProbe
from mt.probe.methods.blend import MeanProbe
from mt.probe.methods.blend_four import ColumnsProbe, ProductProbe
from mt.probe.methods.gradient_heads import AveragedProbe
from mt.probe.methods.linear import CLIP, LinearProbe, Scaling
from mt.probe.methods.neighbours import NeighbourProbe
from mt.probe.methods.propagation import PropagatedProbe
from mt.results.model_files import (
    Tensors,
    check_classes,
    check_format,
    read_about,
    read_tensors,
    whole,
    write_model,
)
from mt.system import files
from mt.terminal.spreadsheet import inert

if TYPE_CHECKING:
    from mt.probe.bags import BaggedFeatures
    from mt.probe.decisions.decided import Decider
    from mt.probe.protocols import Fitted, Probe
    from mt.probe.questions import Question
    from mt.results.store import Fit, Score
    from mt.types import CaseFeatures

FORMAT = "mt-probe"
FORMAT_VERSION = 1


@dataclass(frozen=True)
class SavedProbe:
    """A probe read from its files.  about: its JSON, which also names the backbone and its fingerprint."""

    probe: Probe
    about: dict[str, Any]

    def predict_proba(self, X: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
        """Return (n, K) probabilities, one per class or label, for embeddings (n, dim) of the same backbone.

        They are scaled if the probe was saved with --calibrate.  Raises InputError for another shape.
        """
        if X.ndim != 2 or X.shape[1] != self.about["dim"]:
            raise InputError(
                f"The probe takes embeddings of '{self.about['model']}', (n, {self.about['dim']}); found {X.shape}."
            )
        p = self.probe.probabilities(X)
        if "calibration" in self.about:
            from mt.probe.decisions.scaling import Scaled

            p = Scaled.of(self.about["calibration"]).apply(p, self.about["task"])
        return np.column_stack([1 - p, p]) if p.ndim == 1 else p


class ModelFolder:
    """The folder that `--save` fills: two files per fit of any method.

    score: the function that returns the scores of a fit, for its JSON.
    decider: scales fits and chooses thresholds, which are saved too.
    """

    def __init__(
        self, folder: Path, score: Callable[[Question, Fit], Sequence[Score]], decider: Decider | None = None
    ) -> None:
        self.folder, self.score, self.decider = folder, score, decider

    def write(self, question: Question, fit: Fit, tensors: Tensors, about: Mapping[str, Any]) -> None:
        """Write a fitted model; `about` holds what its method needs to predict, and its format and version."""
        decided: dict[str, Any] = {}
        if self.decider:
            question, fit, decided = self.decider.to_save(question, fit)
        facts = {**facts_of(question, fit, self.score(question, fit)), **decided}
        if decided:
            about = {**about, "format_version": about["format_version"] + 1}  # mt.results.model_files
        write_model(self.folder / stem_of(question), tensors, {**about, **facts})

    def holds(self, question: Question) -> bool:
        """Say whether a question's model is here, both files of it whole."""
        stem = self.folder / stem_of(question)
        with suppress(MtError, LookupError):
            file, about = read_about(stem.with_name(f"{stem.name}.json"))
            read_tensors(file, about)
            return bool(about["fit"] == question.identity)
        return False

    def write_attention(self, question: Question, probe: AttentionProbe, test: BaggedFeatures) -> None:
        """Write the attention of each test instance beside the model, as a CSV file; that of a case sums to 1."""
        ids, bags = test.file.ids, test.bags
        question = self.decider.saved_question(question) if self.decider else question
        with (
            files.whole(self.folder / f"{stem_of(question)}.attention.csv") as aside,
            aside.open("w", encoding="utf-8", errors="surrogateescape", newline="") as file,
        ):
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(["id", "case", "attention"])
            for case, weights in enumerate(probe.attention(bags)):
                name, rows = inert(test.ids[case]), bags.rows_of(case).tolist()
                writer.writerows([inert(ids[row]), name, f"{w:.6g}"] for row, w in zip(rows, weights, strict=True))


def parts_of_probe(question: Question, train: CaseFeatures, fitted: Fitted) -> tuple[Tensors, dict[str, Any]]:
    """Return the tensors of a fitted probe, and the JSON that is also needed to predict with it."""
    tensors, rebuild = taken_apart(fitted.probe)
    return tensors, {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        **rebuild,
        **_bags_of(question),
        "model": train.backbone,
        "dim": train.dim,
        "recipe": dict(question.recipe),
        "fingerprints": question.pair.fingerprints,
        "backbone": train.manifest.get("inputs", {}).get("backbone"),
    }


def _bags_of(question: Question) -> dict[str, Any]:
    """Return how rows become the cases that the probe takes; empty if it takes rows."""
    bagging = question.pair.bagging
    return {} if bagging is None else {"bags": {"column": bagging.column, "pool": bagging.pool}}


def stem_of(question: Question) -> str:
    """Return the name of a fit's files without their suffix."""
    pair, budget = question.pair, str(question.budget).replace(" %", "pct").replace(" ", "-")
    names = "-".join(slug(name) for name in (pair.dataset, pair.model, question.method))
    return f"{names}-{budget}-seed{question.seed}-{question.identity[:8]}"


def facts_of(question: Question, fit: Fit, scores: Sequence[Score]) -> dict[str, Any]:
    """Return what every saved model says of its fit: data, budget, choice, and the scores on the test cases."""
    pair, outcome = question.pair, fit.outcome
    settings = pair.train[0].manifest.get("settings")
    return {
        **({"dataset_settings": settings} if settings else {}),
        "dataset": pair.dataset,
        "test_dataset": pair.test_dataset,
        "method": question.method,
        "fraction": question.budget.fraction,
        "shots": question.budget.shots,
        "seed": question.seed,
        "n_labels": outcome["n_labels"],
        "class_names": list(outcome["class_names"]),
        "fit": question.identity,
        "settings": outcome["settings"],
        "selection": outcome["selection"],
        "flags": list(outcome["flags"]),
        "scores": [
            {name: score.row()[name] for name in ("metric", "value", "low", "high", "interval", "n_test")}
            for score in scores
        ],
        "versions": outcome["versions"],
    }


def load_probe(path: str | os.PathLike[str]) -> SavedProbe:
    """Read a probe that `mt probe --save` wrote.  path: its .json file.

    Raises InputError for other files, newer versions, and a .json and tensors that do not belong together.
    """
    file, about = read_about(path)
    check_format(file, about, FORMAT, FORMAT_VERSION)
    with whole(file):
        probe = put_together(read_tensors(file, about), about)
        check_classes(about)
        return SavedProbe(probe, about)


def taken_apart(probe: Probe) -> tuple[Tensors, dict[str, Any]]:
    """Return the arrays of a probe, and the JSON that `put_together` needs to rebuild it."""
    if isinstance(probe, AveragedProbe):
        parts = [taken_apart(part) for part in probe.probes]
        tensors = {f"{number}.{name}": array for number, (t, _) in enumerate(parts) for name, array in t.items()}
        return tensors, {**parts[0][1], "averaged": len(parts)}
    if isinstance(probe, MeanProbe):
        every = [taken_apart(part) for part in probe.probes]
        tensors = {f"{number}.{name}": array for number, (t, _) in enumerate(every) for name, array in t.items()}
        kept = {"kind": "mean", "weights": list(probe.weights), "parts": [about for _, about in every]}
        return tensors, {**kept, **_shape_of(every[0][1])}
    if isinstance(probe, ProductProbe):
        tensors, about = taken_apart(MeanProbe(probe.probes, probe.weights))
        return {**tensors, "outputs": probe.outputs}, {**about, "kind": "product", "temperature": probe.temperature}
    if isinstance(probe, ColumnsProbe):
        tensors, about = taken_apart(probe.probe)
        return tensors, {"kind": "columns", "columns": [probe.first, probe.end], "of": about, **_shape_of(about)}
    if isinstance(probe, AttentionProbe):
        linear, shape = taken_apart(probe.linear)
        seen = {"instance_mean": probe.scaling.mean, "instance_scale": probe.scaling.scale}
        return {**linear, **seen, **dict(zip("VUw", probe.gate or (), strict=False))}, {**shape, "kind": "attention"}
    if isinstance(probe, LinearProbe):
        tensors = {"coef": probe.coef, "intercept": probe.intercept, "outputs": probe.outputs, "base": probe.base}
        rebuild: dict[str, Any] = {"kind": "linear"}
    elif isinstance(probe, NeighbourProbe):
        tensors = {"bank": probe.bank, "labels": probe.labels}
        rebuild = {"kind": "neighbours", "k": probe.k, "vote": probe.vote, "temperature": probe.temperature}
    elif isinstance(probe, PropagatedProbe):
        tensors = {"bank": probe.bank, "shares": probe.shares}
        rebuild = {"kind": "propagated", "k": probe.k, "temperature": probe.temperature}
    else:
        raise TypeError(f"no format for a {type(probe).__name__}")
    tensors |= {"mean": probe.scaling.mean, "scale": probe.scaling.scale}
    if probe.scaling.root is not None:
        tensors["root"] = probe.scaling.root.astype(np.uint8)
    clip = probe.scaling.clip if probe.scaling.clip < np.inf else None
    shared = {"task": probe.task, "n_classes": probe.n_classes, "unit_length": probe.scaling.unit, "clip": clip}
    if probe.scaling.widths:
        shared["widths"] = list(probe.scaling.widths)
    return tensors, {**rebuild, **shared}


def _shape_of(about: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a combination has in common with its parts."""
    return {name: about[name] for name in ("task", "n_classes")}


def put_together(tensors: Tensors, about: Mapping[str, Any]) -> Probe:
    """Return the probe that `taken_apart` took apart."""
    if about.get("averaged"):
        one = {key: value for key, value in about.items() if key != "averaged"}
        runs = []
        for number in range(about["averaged"]):
            runs.append(put_together(_part(tensors, number), one))
        return AveragedProbe(tuple(run for run in runs if isinstance(run, LinearProbe)))
    if about["kind"] in ("mean", "product"):
        parts = tuple(put_together(_part(tensors, number), part) for number, part in enumerate(about["parts"]))
        if about["kind"] == "mean":
            return MeanProbe(parts, tuple(about["weights"]))
        return ProductProbe(parts, tuple(about["weights"]), tensors["outputs"], about["temperature"])
    if about["kind"] == "columns":
        return ColumnsProbe(put_together(tensors, about["of"]), *about["columns"])
    if about["kind"] == "attention":
        linear = put_together(tensors, {**about, "kind": "linear"})
        assert isinstance(linear, LinearProbe)
        scaling = Scaling(tensors["instance_mean"], tensors["instance_scale"], clip=CLIP)
        return AttentionProbe(linear, scaling, (tensors["V"], tensors["U"], tensors["w"]) if "V" in tensors else None)
    clip = np.inf if about["clip"] is None else about["clip"]
    root = tensors["root"].astype(bool) if "root" in tensors else None
    widths = tuple(about.get("widths", ()))
    scaling = Scaling(tensors["mean"], tensors["scale"], unit=about["unit_length"], clip=clip, root=root, widths=widths)
    task, n_classes = about["task"], about["n_classes"]
    if about["kind"] == "linear":
        weights = (tensors[name] for name in ("coef", "intercept", "outputs", "base"))
        return LinearProbe(task, n_classes, scaling, *weights)
    if about["kind"] == "propagated":
        shape = about["k"], about["temperature"]
        return PropagatedProbe(task, n_classes, scaling, tensors["bank"], tensors["shares"], *shape)
    rule = {name: about[name] for name in ("k", "vote", "temperature")}
    return NeighbourProbe(task, n_classes, scaling, tensors["bank"], tensors["labels"], **rule)


def _part(tensors: Tensors, number: int) -> Tensors:
    """Return the tensors of one of several probes."""
    start = f"{number}."
    return {name.removeprefix(start): array for name, array in tensors.items() if name.startswith(start)}
