"""One budget -> the networks that predict: candidates race, the two best are tried on fifths, then trained on all.

Everything here sees the budget alone.  In the choice, the warm start too is fitted without the fifth held out.
Between the two best candidates nothing is chosen: a fifth says too little of which one is better.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from mt.errors import FitError, InputError
from mt.fuse.dvme.fit import FittedDVME
from mt.fuse.end_to_end.blended import Blended, StartBlend, mean_logits
from mt.fuse.end_to_end.checkpoint import Checkpoint
from mt.fuse.end_to_end.choice.held_out import FIFTHS
from mt.fuse.end_to_end.choice.planning import Effort, plan_for
from mt.fuse.end_to_end.choice.record import Record
from mt.fuse.end_to_end.choice.schedule import epochs_and_rows
from mt.fuse.end_to_end.choice.shares import HeldOut, Share, choose_share
from mt.fuse.end_to_end.loop import Kept, Run
from mt.fuse.end_to_end.network import EndToEnd, even_scale
from mt.fuse.end_to_end.trainable.families import CandidateRates, candidates
from mt.fuse.end_to_end.trainable.lora import merge
from mt.fuse.end_to_end.warm_start import Budget, cached_stage, network_from
from mt.fuse.end_to_end.work import Part, Work, predict
from mt.terminal import progress
from mt.types import Array

NO_FIFTH = Share(0.5, 1.0, {})  # without held-out rows: equal shares


@dataclass(frozen=True)
class TunedFit:
    """What predicts, its warm start, how both were chosen, and the cost in images and seconds.

    network is None if the budget holds only one class; then the start's base rates predict.
    """

    network: Blended | None
    start: FittedDVME
    settings: dict[str, Any]
    selection: dict[str, Any]
    flags: tuple[str, ...]
    cost: dict[str, float]


@dataclass(frozen=True)
class _Job:
    """One training: a candidate on some rows for a number of epochs; `held` are the rows that it is evaluated on.

    held: None on the whole budget.
    """

    candidate: CandidateRates
    start: FittedDVME
    rows: Array
    held: Array | None
    epochs: int
    label: str


@dataclass(frozen=True)
class _Done:
    """A job that is done, and its number among those of the fit."""

    job: _Job
    number: int


class Fitter:
    """Fits one budget, resuming from its checkpoint if there is one.

    n_cases: of the test split.  study: what this fit and the others that follow do, if this is the first of several.
    Both are for the estimate of the time alone.
    """

    def __init__(
        self,
        budget: Budget,
        backbones: Sequence[nn.Module],
        work: Work,
        kept: Kept,
        *,
        n_cases: int = 0,
        study: Effort | None = None,
    ) -> None:
        self.n_cases, self.study = n_cases, study
        self.budget, self.backbones, self.work, self.kept = budget, backbones, work, kept
        self.found = self._read()
        self.record = Record.of(self.found) if self.found else Record()
        self._began = time.perf_counter() - (self.found.facts["seconds"] if self.found else 0.0)
        settings = work.settings
        self.candidates = candidates(backbones, settings.learning_rates, adapters=settings.lora is not None)
        self.plan = plan_for(
            budget,
            settings,
            task=work.task,
            n_classes=work.n_classes,
            seed=work.seed,
            n_candidates=len(self.candidates),
        )
        self.images = {"choosing": 0, "training": 0}
        self._runs = 0

    def fit(self) -> TunedFit:
        """Return what was trained on the whole budget, mixed with its start as chosen."""
        with torch.random.fork_rng(devices=[]):
            if self.found and self.work.ranks.first:
                progress.note("  resumes from its last checkpoint")
            began = time.perf_counter()
            start = self._start(self.budget)
            seconds = time.perf_counter() - began
            recipe = {"name": "unfrozen", **self.work.settings.recipe(), "start": start.choice.recipe.name}
            if start.model is None:
                nothing = {"recipe": recipe, "lr": None, "epochs": 0, "share": 0.0}
                return TunedFit(None, start, nothing, {}, start.choice.flags, self._cost())
            self._estimate(start, seconds)
            best, raced, chosen, tried = self._choose()
            network, share = self._blended(start, best, chosen, tried)
        flags = set(start.choice.flags)
        if share.share:
            flags.discard("too_few_to_train")  # the cached stage trained no network; this one did
        else:
            flags.add("training_failed" if chosen.share else "start_kept")
        if share is NO_FIFTH:
            flags.add("fixed_schedule")
        settings = {
            "recipe": recipe,
            "lr": [list(one.backbones) for one in best],
            "head_lr": best[0].head,
            "epochs": self.plan.schedule.whole if chosen.share else 0,
            "share": share.share,
            "temperature": share.temperature,
            "trained": len(network.trained),
            "trials": len(network.trials),
            "C": start.choice.C,
        }
        selection = {
            "metric": "log_loss",
            "source": f"{len(tried) // len(best)} of {FIFTHS} fifths of the budget",
            "candidates": raced,
            "shares": share.losses,
            **share.scaling(),
        }
        found = selection if share.losses else {}
        return TunedFit(network.eval(), start, settings, found, tuple(sorted(flags)), self._cost())

    def _read(self) -> Checkpoint | None:
        """Read the checkpoint.  Raises InputError for one that is not that of the first rank."""
        found, files = self.kept.files.read(), self.kept.files
        facts = None if found is None else found.facts
        if self.work.ranks.broadcast(facts) != facts:
            raise InputError(
                f"Processes read different checkpoints in {files.folder}. Name a folder that all of them see: "
                "--checkpoints DIR"
            )
        return found

    @property
    def seconds(self) -> float:
        """The seconds that the fit has taken, including earlier runs that it resumed."""
        return time.perf_counter() - self._began

    def _cost(self) -> dict[str, float]:
        return {
            "images": sum(self.images.values()),
            "images_choosing": self.images["choosing"],
            "seconds": round(self.seconds, 1),
        }

    def _start(self, budget: Budget) -> FittedDVME:
        """Fit the cached stage on the first rank, and send it to the others."""
        work, start = self.work, None
        if work.ranks.first:
            start = cached_stage(budget, work.task, work.n_classes, seed=work.seed, device=str(work.device))
        return work.ranks.broadcast(start)

    def _choose(self) -> tuple[list[CandidateRates], dict[str, float], Share, list[_Done]]:
        """Return the best candidates of the race, every one's held-out loss there, their share, and their trials."""
        refits = self.plan.schedule.refits
        first = self.candidates[:refits]
        if self.work.settings.fixed:
            return first, {}, Share(1.0, 1.0, {}), []
        pairs = [(self._start(self.budget.take(rows)), rows, held) for rows, held in self.plan.fifths]
        taught = [
            (start, rows, held)
            for start, rows, held in pairs
            if start.model is not None and len(self._part(start, held).rows)
        ]
        if not taught:
            return first, {}, NO_FIFTH, []
        racing, task = self.candidates, self.work.task
        raced: dict[str, float] = {}
        for one_round in self.plan.schedule.rounds:
            racing = racing[: one_round.candidates]
            tried = [self._try(self._trial(one, taught[0], one_round.passes, f"trying {one.label}")) for one in racing]
            losses = [choose_share([self._held_out([one])], task).lowest for one in tried]
            raced |= {one.label: loss for one, loss in zip(racing, losses, strict=True)}
            order = np.argsort(losses, kind="stable")
            racing, tried = [racing[place] for place in order], [tried[place] for place in order[:refits]]
            lost = set(range(self._runs)) - {one.number for one in tried}  # later runs may come from a checkpoint
            self.record.drop_networks(lost)
        best, found = racing[:refits], [tried]
        for number, fifth in enumerate(taught[1:], start=2):
            label, passes = f"fifth {number} of {len(taught)}", self.plan.schedule.passes
            found.append([self._try(self._trial(one, fifth, passes, f"{label}, {one.label}")) for one in best])
        share = choose_share([self._held_out(tried) for tried in found], task)
        return best, raced, share, list(itertools.chain(*found))

    def _held_out(self, tried: Sequence[_Done]) -> HeldOut:
        """Return the held-out cases of a fifth; trained are all that were tried on it together."""
        found = [self.record.held_out[one.number] for one in tried]
        if len(found) == 1:
            return found[0]
        trained = mean_logits([one.trained for one in found], [1 / len(found)] * len(found), self.work.task)
        return replace(found[0], trained=trained)

    def _trial(
        self, candidate: CandidateRates, fifth: tuple[FittedDVME, Array, Array], passes: float, label: str
    ) -> _Job:
        """Return a trial of a number of passes over a fifth's rows; less than one pass is one over some of them."""
        start, rows, held = fifth
        epochs, used, _ = epochs_and_rows(passes, len(rows))
        if used < len(rows):
            rows = np.sort(np.random.default_rng(self.work.seed).choice(rows, used, replace=False))
        return _Job(candidate, start, rows, held, epochs, label)

    def _blended(
        self, start: FittedDVME, best: Sequence[CandidateRates], share: Share, tried: Sequence[_Done]
    ) -> tuple[Blended, Share]:
        """Train the best candidates on the whole budget, if they have a share.

        Those whose training failed have no part; if no other is left, the share becomes 0.
        """
        trained, trials = [], []
        if share.share:
            done = [self._train(one, start) for one in best]
            trained = [one for one in self._networks(done, start) if not self._failed(one, start, share)]
            if trained:
                trials = self._networks(tried, start)
            else:
                share = replace(share, share=0.0, temperature=1.0, unscaled=None)
        before = self._network(start) if share.share < 1 else None
        if before is not None:
            merge(before)
        return Blended(
            before,
            trained,
            self.work.task,
            share=share.share,
            temperature=share.temperature,
            blend=StartBlend.of(start),
            trials=trials,
        ), share

    def _train(self, candidate: CandidateRates, start: FittedDVME) -> _Done:
        """Train a candidate on the whole budget, unless the checkpoint holds what came out of it."""
        everything, number = np.arange(len(self.budget.y)), self._runs
        job = _Job(candidate, start, everything, None, self.plan.schedule.whole, f"training {candidate.label}")
        if number in self.record.outcomes:
            self._count(job)
        else:
            self._run(job)
        return _Done(job, number)

    def _networks(self, done: Sequence[_Done], start: FittedDVME) -> list[EndToEnd]:
        """Return the networks that came out of jobs, except those that do not know every label of the budget."""
        networks = []
        for one in done:
            if one.number in self.record.outcomes and np.array_equal(one.job.start.outputs, start.outputs):
                run = self._begun(one.job)
                run.restore(self.record.outcomes[one.number], run.position())
                networks.append(run.finished())
        return networks

    def _failed(self, trained: EndToEnd, start: FittedDVME, share: Share) -> bool:
        """Return whether training failed: its loss on its own rows exceeds every held-out loss of trial and start.

        At the rates that few labels need, training sometimes ends at chance, even after a good trial.
        """
        if not share.losses:
            return False
        part = self._part(start, np.arange(len(self.budget.y)))
        logits = torch.from_numpy(predict(trained, self.work, part.rows)[0])
        seen = HeldOut(logits, logits, torch.from_numpy(part.y).long())
        return not choose_share([seen], self.work.task).lowest <= max(share.losses.values())  # NaN is a failure too

    def _try(self, trial: _Job) -> _Done:
        """Do a trial and predict its held-out rows, unless the checkpoint holds both."""
        assert trial.held is not None
        number = self._runs
        if number < len(self.record.held_out):
            self._count(trial)
            return _Done(trial, number)
        network = self._run(trial)
        held = self._part(trial.start, trial.held)
        before = Blended(self._network(trial.start), (), self.work.task, share=0.0, blend=StartBlend.of(trial.start))
        logits = [torch.from_numpy(predict(one, self.work, held.rows)[0]) for one in (before, network)]
        self._check(logits[1], held, trial.candidate)
        self.record.held_out.append(HeldOut(logits[0], logits[1], torch.from_numpy(held.y).long()))
        return _Done(trial, number)

    def _begun(self, job: _Job) -> Run:
        """Return a run in training, before its first step."""
        network = self._network(job.start)
        parts = zip(self.budget.X, job.start.inputs.scalings, strict=True)
        network.begin([even_scale(X[job.rows], scaling.mean) for X, scaling in parts])
        return Run(network, self.work, self._part(job.start, job.rows), job.candidate, epochs=job.epochs)

    def _run(self, job: _Job) -> EndToEnd:
        """Train one network, resuming from its checkpoint if there is one."""
        number = self._runs
        self._count(job)
        run = self._begun(job)
        if self.found and self.found.facts["run"] == number:
            run.restore(self.found.tensors, self.found.facts["position"])
        self.kept.tensors = self.record.tensors()
        ranks = self.work.ranks
        with progress.bar(job.label, job.epochs if ranks.first else 0, unit="epochs", done=run.epoch) as go:
            while run.epoch < job.epochs:
                self.kept.facts = {"run": number, "seconds": self.seconds}
                run.train_epoch(self.kept)
                self.kept.end_epoch(run)
                go(1)
        if job.held is None or self.plan.schedule.keeps_trials:
            self.record.outcomes[number] = run.outcome()
        return run.finished()

    def _count(self, job: _Job) -> None:
        self._runs += 1
        self.images["training" if job.held is None else "choosing"] += job.epochs * len(job.rows)

    def _network(self, start: FittedDVME) -> EndToEnd:
        return network_from(start, self.backbones, self.work.settings, seed=self.work.seed)

    def _part(self, start: FittedDVME, rows: Array) -> Part:
        """Return the rows whose labels the start knows, with its numbering of labels."""
        y, outputs = self.budget.y[rows], start.outputs
        if self.work.task == "multilabel":
            return Part(rows, y[:, outputs])
        known = np.isin(y, outputs)
        return Part(rows[known], np.searchsorted(outputs, y[known]))

    def _check(self, logits: Tensor, held: Part, candidate: CandidateRates) -> None:
        """Raise FitError for logits that are not numbers."""
        finite = torch.isfinite(logits).all(dim=1).numpy()
        if not finite.all():
            ids = ", ".join(self.work.images.ids[row] for row in held.rows[~finite])
            lower = candidate.lower
            raise FitError(f"Predictions of held-out images are not numbers, on {ids}. Lower the rate: {lower}")

    def _estimate(self, start: FittedDVME, seconds: float) -> None:
        """Print how long the fit will take, estimated from a timed step and from the seconds of fitting the start."""
        n, work, plan = len(self.budget.y), self.work, self.plan
        part = self._part(start, np.arange(min(n, work.settings.batch)))
        network = self._network(start)
        network.begin([1.0] * network.n_models)
        run = Run(network, work, part, self.candidates[0], epochs=1)
        rate = run.images_per_second() * work.ranks.world
        if work.ranks.first:
            choosing, training = plan.images
            minutes = plan.effort(self.n_cases).minutes(rate, seconds)
            progress.note(
                f"  {n} labels: about {choosing:,} images to choose and {training:,} to train, at {rate:.0f} images/s, "
                f"and {self.n_cases:,} to predict with at most {progress.counted(plan.networks, 'network')}: "
                f"about {minutes} min"
            )
            if self.study and self.study.fits > 1:
                fits, images, minutes = self.study.fits, self.study.images, self.study.minutes(rate, seconds)
                progress.note(f"  all {fits} fits: about {images:,} images at most: about {minutes} min")
