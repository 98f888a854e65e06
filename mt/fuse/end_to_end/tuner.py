"""Answers a question with end-to-end training: finds the images behind its features, fits, predicts the test cases."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mt.backbones import Backbone
from mt.backbones.recorded import described, load_described
from mt.cache.content import ContentIndex
from mt.datasets import Dataset
from mt.datasets.readers.made_from import check_unchanged
from mt.errors import FitError, InputError
from mt.fuse.aligned import AlignedFeatures
from mt.fuse.dvme.recipes import recipes_of
from mt.fuse.end_to_end.augment import augmentation_for
from mt.fuse.end_to_end.checkpoint import Checkpoints
from mt.fuse.end_to_end.choice.fit import Fitter, TunedFit
from mt.fuse.end_to_end.choice.planning import Effort, plan_for
from mt.fuse.end_to_end.images import Images, dataset_of
from mt.fuse.end_to_end.loop import Kept
from mt.fuse.end_to_end.request import FinetuneRequest, Settings
from mt.fuse.end_to_end.saved import save_tuned
from mt.fuse.end_to_end.trainable.families import CONVOLUTIONAL
from mt.fuse.end_to_end.trainable.limits import check_trainable
from mt.fuse.end_to_end.warm_start import recipe_names
from mt.fuse.end_to_end.work import Work, predict
from mt.fuse.fuser import REVISION as FUSE_REVISION
from mt.fuse.fuser import attention_by_class
from mt.probe.budgets.draw import Draw, DrawSource
from mt.probe.methods.linear import link
from mt.probe.protocols import Fitting
from mt.probe.questions import Pair, Question
from mt.probe.run import open_cases
from mt.probe.saved import ModelFolder
from mt.probe.scores.scoring import Scorer, row_flags
from mt.results.store import Fit
from mt.system.device import decoders
from mt.system.ranks import Ranks
from mt.terminal import progress
from mt.types import Array, LabelledRows

REVISION = 13  # of end-to-end training; raised whenever its numbers change
_COMPARED = 4  # images whose embeddings are compared with the cached ones
_REPEATED = 1e-3  # probabilities of one training on two machines differ by less, if by rounding only
# Relative distance that rounding explains, by the precision of the features.  In bfloat16 `efficientnet-lite0` at 32
# pixels is at 0.1; other images of one set are at 0.5 and more (lite0 and lite1, ten sets).
_CLOSE = {"float32": 0.01, "tf32": 0.05, "float16": 0.05, "bfloat16": 0.2}


@dataclass(frozen=True)
class TunedSource:
    """What the questions on one dataset share: features, backbones, and the dataset of images."""

    joined: AlignedFeatures
    backbones: list[Backbone]
    dataset: Dataset


class Tuner:
    """Trains one network per question.

    folder: holds one folder of checkpoints per fit, removed when the fit is in the store.
    weights: by model's name, if not the published ones.
    """

    def __init__(
        self,
        request: FinetuneRequest,
        folder: Path,
        ranks: Ranks,
        device: torch.device,
        *,
        fitting: Fitting,
        scorer: Scorer,
        draws: DrawSource,
        weights: Mapping[str, str | None],
    ) -> None:
        self.settings, self.machine, self.data_dir = request.settings, request.machine, request.data_dir
        self.folder, self.ranks, self.device = folder, ranks, device
        self.fitting, self.store, self.draws, self.weights = fitting, scorer.store, draws, weights
        save = request.cached.save
        self.saved = ModelFolder(Path(save), scorer.headline) if save else None
        self._loaded: tuple[Pair, TunedSource] | None = None
        self._study: Effort | None = None

    def plan(self, questions: Sequence[Question]) -> None:
        """Add up what the fits will see; the first one says how long all of them will take."""
        effort, n_candidates = Effort(), len(self.settings.learning_rates) or len(CONVOLUTIONAL.rates)
        for _, group in groupby(questions, key=lambda question: question.pair):
            asked = list(group)
            train = open_cases(asked[0].pair.train[0], None)
            n_cases = len(asked[0].pair.test[0].open().ids)
            for question in asked:
                rows = self.draws.draw(train, question.budget, question.seed).rows
                groups = None if train.groups is None else np.asarray(train.groups)[rows]
                budget = LabelledRows[tuple[Array, ...]]((), train.labels[rows], groups)
                plan = plan_for(
                    budget,
                    self.settings,
                    task=train.task,
                    n_classes=len(train.class_names),
                    seed=question.seed,
                    n_candidates=n_candidates,
                )
                effort += plan.effort(n_cases)
        self._study = effort

    def __call__(self, question: Question) -> bool:
        """Train, predict, and store the fit; only the first rank writes.

        Return whether a network was fitted: False for a draw that repeats another, and for one that is stored by now.
        """
        loaded = self._load(question.pair)
        first = loaded.joined.first
        drawn = self.draws.draw(first.train, question.budget, question.seed)
        if self.draws.repeats(question, drawn.realised):
            return False
        budget = loaded.joined.drawn(drawn.rows)
        work = self._work(question, loaded, budget.ids)
        test = replace(work, images=Images(loaded.dataset, first.cases.ids, work.images.recipes))
        _check_images(work, loaded.backbones, budget.X)
        _check_images(test, loaded.backbones, loaded.joined.test)
        kept = Kept(checkpoints_of(self.folder, question.identity), work)
        with kept.files.alone() if self.ranks.first else contextlib.nullcontext():
            if self.ranks.broadcast(self._is_stored(question) if self.ranks.first else None):
                return False  # by a process that had the lock before
            self._fit(question, loaded, drawn, budget, test, kept)
        return True

    def _is_stored(self, question: Question) -> bool:
        """Return whether the store has the fit and, where networks are saved, its network lies there."""
        return bool(self.store.has_fits([question.identity])) and (not self.saved or self.saved.holds(question))

    def _fit(
        self,
        question: Question,
        loaded: TunedSource,
        drawn: Draw,
        budget: LabelledRows[tuple[Array, ...]],
        test: Work,
        kept: Kept,
    ) -> None:
        """Train, predict the images of `test`, store and save, and remove the checkpoints."""
        first = loaded.joined.first
        models, self._study, study = [backbone.model for backbone in loaded.backbones], None, self._study
        fitted = Fitter(budget, models, kept.work, kept, n_cases=len(first.cases.ids), study=study).fit()
        began = time.perf_counter()
        probabilities, received = self._predict(fitted, test, loaded)
        cost = {**fitted.cost, "seconds_predicting": round(time.perf_counter() - began, 1)}
        if not self.ranks.first:
            return
        outcome = {
            **self._facts(question, loaded, probabilities, fitted),
            "n_labels": len(drawn.rows),
            "realised": drawn.realised,
            "attention": attention_by_class(question.pair, loaded.joined, received),
            "cost": cost,
        }
        progress.note(
            f"  {cost['images']:,} images seen, {cost['images_choosing']:,} of them to choose, in "
            f"{cost['seconds']:.0f} s; {len(first.cases.ids):,} predicted in {cost['seconds_predicting']:.0f} s; "
            f"{_said(fitted.settings)}"
        )
        pool, cases = self.store.add_cases(first.pool), self.store.add_cases(first.cases)
        fit = Fit(question.identity, pool, cases, drawn.rows, probabilities, outcome)
        try:
            if self.saved:
                save_tuned(self.saved, question, fitted, fit)
        finally:
            if not self.store.add_fit(fit):
                self._compare_with_stored(fit)
        kept.files.remove()

    def _compare_with_stored(self, fit: Fit) -> None:
        """Say so where a fit that was made again, to save its network, predicts otherwise than the stored one."""
        stored = self.store.fit(fit.identity).probabilities
        if not np.allclose(stored, fit.probabilities, atol=_REPEATED):
            progress.note(
                f"  this training predicts otherwise than the one whose scores are stored (by up to "
                f"{np.abs(stored - fit.probabilities).max():.2g}): its network is saved with scores of its own"
            )

    def _load(self, pair: Pair) -> TunedSource:
        if self._loaded is None or self._loaded[0] is not pair:
            self._loaded = None
            joined = AlignedFeatures.load(pair)
            backbones = [load_described(about, self.weights.get(about["name"])) for about in described(pair.train)]
            check_trainable(backbones, self.settings)
            for line in dict.fromkeys(note for backbone in backbones for note in backbone.notes):
                progress.note(line)
            index = ContentIndex()
            dataset = dataset_of(pair.train[0], Path(self.data_dir) if self.data_dir else None, index=index)
            for entry in (*pair.train, *pair.test):
                check_unchanged(dataset, entry, index)
            if dataset.kind == "unknown" and self.settings.augment == "auto" and self.ranks.first:
                progress.note(
                    f"{dataset.shown}: the kind of image is not known, so training does not mirror any. "
                    "If a mirrored image keeps its label: --augment flip (patches, microscopy: right-angles)."
                )
            self._loaded = pair, TunedSource(joined, backbones, dataset)
        return self._loaded[1]

    def _work(self, question: Question, loaded: TunedSource, ids: Sequence[str]) -> Work:
        recipes = [backbone.preprocess for backbone in loaded.backbones]
        return Work(
            images=Images(loaded.dataset, ids, recipes, memory=self.machine.memory),
            augmentation=augmentation_for(self.settings.augment, loaded.dataset.kind),
            settings=self.settings,
            machine=self.machine,
            device=self.device,
            ranks=self.ranks,
            workers=self.machine.workers or decoders(),
            task=loaded.joined.task,
            n_classes=loaded.joined.first.n_classes,
            seed=question.seed,
        )

    def _predict(self, fitted: TunedFit, test: Work, loaded: TunedSource) -> tuple[Array, Array]:
        """Return the test cases' probabilities, (n,) for binary, else (n, K), and the attention (n, M).

        Raises FitError for a network that predicts no numbers.
        """
        start = fitted.start
        out = np.tile(start.base, (len(test.images.ids), 1))
        received = np.full((len(out), len(loaded.backbones)), 1 / len(loaded.backbones))
        if fitted.network is not None:
            logits, received = predict(fitted.network, test, np.arange(len(out)))
            out[:, start.outputs] = link(logits, start.task)
        if wrong := np.count_nonzero(np.isnan(out).any(axis=1)):
            lower = min(rate for rates in fitted.settings["lr"] for rate in rates) / 10
            raise FitError(
                f"Predictions of {wrong} of {len(out)} test images are not numbers. "
                f"Lower the rate: --lr {lower:g}, or compute in full precision: --precision float32"
            )
        return (out[:, 1] if start.task == "binary" else out).astype(np.float32), received

    def _facts(self, question: Question, loaded: TunedSource, p: Array, fitted: TunedFit) -> dict[str, Any]:
        """Return the facts of a fit that are stored with its scores, except those of the draw."""
        first = loaded.joined.first
        setting = self.fitting.on(first.train.task, first.n_classes)
        return {
            "task": setting.task,
            "class_names": list(first.train.class_names),
            "protocol": "end-to-end",
            "solver": self.fitting.solver_name,
            "select": "holdout" if fitted.selection else "fixed",
            "settings": fitted.settings,
            "selection": fitted.selection,
            "flags": [*fitted.flags, *row_flags(first, p)],
            "versions": {**setting.versions(), "fuse": FUSE_REVISION, "unfrozen": REVISION},
        }


def checkpoints_of(folder: Path, identity: str) -> Checkpoints:
    """Return the checkpoints of the fit with this identity, below a folder of many fits' checkpoints."""
    return Checkpoints(folder / identity[:16])


def method_name(n_models: int, settings: Settings) -> str:
    """Return what tables call the method: one model is the paper's fine-tuning baseline."""
    last, lora = settings.last, f", LoRA {settings.lora}" if settings.lora else ""
    if n_models == 1:
        return "fine-tune" + (f", last {last}" if last else "") + lora
    return "dvme, " + (f"last {last} unfrozen" if last else "unfrozen") + lora


def identity_of(settings: Settings, fitting: Fitting, n_models: int) -> dict[str, Any]:
    """Return what enters a question's identity: everything of training and warm start that changes a number."""
    recipes = [recipe.settings() for recipe in recipes_of(recipe_names(n_models))]
    return {
        "unfrozen": REVISION,
        "settings": settings.recipe(),
        "fuse": FUSE_REVISION,
        "recipes": recipes,
        "solver": fitting.identity()["solver"],
    }


def _said(settings: Mapping[str, Any]) -> str:
    """Return which networks predict, from the settings of a fit."""
    share, trained, trials = (settings.get(name, 0) for name in ("share", "trained", "trials"))
    said = f"share of the trained networks {share:g}"
    if not share:
        return f"{said}: {'every training failed, so ' if settings.get('epochs') else ''}the start is kept"
    said += f": {trained} on all labels"
    if failed := len(settings["lr"]) - trained:
        said += f" ({failed} failed and has no part)"
    return said + (f", and {trials} of trials, which together count as one" if trials else "")


@torch.no_grad()
def _check_images(work: Work, backbones: Sequence[Backbone], embeddings: Sequence[Array]) -> None:
    """Refuse images that differ from those the features were made from, even if their ids are equal.

    The first few are compared; embeddings: one matrix (n, d_m) per backbone, of all images of `work`.
    """
    rows = np.arange(min(_COMPARED, len(embeddings[0])))
    cpu = replace(work, device=torch.device("cpu"))
    for backbone, images, X in zip(backbones, cpu.inputs(work.images.pixels(rows), None), embeddings, strict=True):
        cached = torch.from_numpy(X[rows].astype(np.float32))
        distance = float((backbone.model(images) - cached).norm() / cached.norm().clamp_min(1e-12))
        if distance > _CLOSE[str(backbone.description["precision"])]:
            raise InputError(
                f"The images in {work.images.source} are not those that the '{backbone.name}' features were made from: "
                f"embeddings differ by {distance:.0%}. Name the right files with --data-dir, or run mt featurize again."
            )
