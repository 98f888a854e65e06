"""Protocols and fusions on few labels, on every real image set that a package brings: differences, with their errors.

    python -m benchmarks.few_labels FOLDER protocols [SET ...]     # about half an hour on two cores
    python -m benchmarks.few_labels FOLDER fusion [SET ...]        # one set takes minutes per budget
    python -m benchmarks.few_labels FOLDER table                   # what has been measured, as Markdown

FOLDER keeps images, features and one line of JSON per score, so a run resumes where it was interrupted.  Features are
those of EfficientNet-Lites at 32 or 64 pixels.  Draws are those of `mt probe`; all methods see the same ones.
`protocols` uses the first model; `fusion` concatenates all three.  `recommended` is the one of concatenation and blend
with the lower out-of-fold log loss.
"""

from __future__ import annotations

import json
import sys
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks._class_sets import EVERY_SET
from benchmarks._image_sets import GROUP_REGEX
from mt.cache.catalog import Catalog
from mt.datasets.settings import DatasetSettings
from mt.featurize import FeaturizeRequest, extract
from mt.probe.budgets.draw import draw
from mt.probe.methods.propagation import UnlabelledPool
from mt.probe.protocols import PROTOCOLS, Fitting
from mt.probe.questions import Pair, find_pairs
from mt.probe.run import Features, fit_probes
from mt.types import Array

MODELS = ("efficientnet-lite0", "efficientnet-lite1", "efficientnet-lite2")
LABELS = {"protocols": (20, 50, 100, 200), "fusion": (100, 300)}
PIXELS = {"tissue": 64, "retina": 64, "photographs": 64, "faces": 64, "faces-swapped": 64}
DRAWS = 20
REFERENCES = {"default": ("blend", "blend-four", "propagate"), "concat": ("blend of all", "recommended")}
COLUMNS = ("roc_auc", "log_loss", "accuracy")
Line = dict[str, Any]


def main() -> None:
    """Measure, or print what has been measured."""
    if __name__ != "__main__" or len(sys.argv) < 3:
        print(__doc__)
        return
    folder, what, *names = sys.argv[1:]
    scores = Path(folder) / "scores.jsonl"
    if what == "table":
        print_tables(read(scores))
        return
    if what not in MEASURES:
        raise SystemExit(f"No measure '{what}'. Known: {', '.join(MEASURES)}, table")
    for name in names or EVERY_SET:
        pairs = featurized(name, Path(folder))
        for line in MEASURES[what](name, pairs, read(scores)):
            with scores.open("a") as file:
                file.write(json.dumps(line) + "\n")


def read(scores: Path) -> list[Line]:
    return [json.loads(line) for line in scores.read_text().splitlines()] if scores.exists() else []


def featurized(name: str, folder: Path) -> list[Pair]:
    """Return the cached features of a set, one pair per model."""
    image_set = EVERY_SET[name]
    dataset = image_set.dataset(folder / "sets")
    settings = DatasetSettings(group_regex=None if image_set.cut is None else GROUP_REGEX)
    size = PIXELS.get(name, image_set.size)
    extract(FeaturizeRequest([dataset], MODELS, cache_dir=folder / "cache", image_size=size, settings=settings))
    pairs = find_pairs(Catalog(folder / "cache"), models=MODELS)
    return [pair for pair in pairs if pair.dataset.partition("[")[0] in (name, f"folder:{name}")]


def protocols(name: str, pairs: Sequence[Pair], known: Sequence[Line]) -> Iterator[Line]:
    """Yield the scores of the protocols on one model's features, all draws of a budget together."""
    features = Features.load(pairs[0])
    pool = UnlabelledPool(features.train.embeddings, features.train.ids)
    for n in LABELS["protocols"]:
        for protocol in ("default", *REFERENCES["default"]):
            if any((one["set"], one["n"], one["method"]) == (name, n, protocol) for one in known):
                continue
            fitting = Fitting(PROTOCOLS[protocol]).on(features.train.task, features.n_classes)
            draws = [(features.drawn(rows_of(features, n, seed)), seed) for seed in range(DRAWS)]
            for (_, seed), fitted in zip(draws, fit_probes(draws, fitting, pool=pool), strict=True):
                p = fitted.probe.probabilities(features.test.embeddings)
                yield line(name, n, seed, protocol, features, p, **fitted.settings)


def fusion(name: str, pairs: Sequence[Pair], known: Sequence[Line]) -> Iterator[Line]:
    """Yield the scores of concatenation and of blend on all models, and of the one that the budget recommends."""
    each = [Features.load(pair) for pair in pairs]
    first = each[0]
    for other in each[1:]:
        for ours, theirs in ((first.train.ids, other.train.ids), (first.test.ids, other.test.ids)):
            if list(ours) != list(theirs):
                raise SystemExit(f"The feature files of {name} list other images or another order. Delete the cache.")
    train, test = (
        np.concatenate([getattr(one, split).embeddings for one in each], axis=1) for split in ("train", "test")
    )
    widths = tuple(one.train.dim for one in each)
    for n in LABELS["fusion"]:
        for seed in range(DRAWS):
            place = name, n, seed, "recommended"
            if any((one["set"], one["n"], one["seed"], one["method"]) == place for one in known):
                continue
            rows = np.sort(rows_of(first, n, seed))  # the file's order, as `drawn` has it
            budget, found = first.drawn(rows).with_features(train[rows]), []
            for method, protocol in (("concat", "default"), ("blend of all", "blend-four")):
                fitting = Fitting(PROTOCOLS[protocol], widths=widths).on(first.train.task, first.n_classes)
                (fitted,) = fit_probes([(budget, seed)], fitting)
                assert fitted.folded is not None  # every set has one label per row
                held_out = float(np.nanmean(fitted.folded.losses()))
                p = fitted.probe.probabilities(test)
                found.append(line(name, n, seed, method, first, p, out_of_fold=held_out, **fitted.settings))
            chosen = min(found, key=lambda one: one["out_of_fold"])
            yield from (*found, {**chosen, "method": "recommended", "chosen": chosen["method"]})


def rows_of(features: Features, n: int, seed: int) -> Array:
    """Return the rows of a draw of about n labels."""
    train = features.train
    return draw(
        train.labels,
        task=train.task,
        n_classes=features.n_classes,
        fraction=min(1.0, n / len(train.labels)),
        seed=seed,
        groups=train.groups,
        unit=train.manifest["budget_unit"],
    ).rows


def line(name: str, n: int, seed: int, method: str, features: Features, p: Array, **facts: Any) -> Line:
    """Return the scores of a fit's predictions."""
    from sklearn.metrics import accuracy_score, log_loss, roc_auc_score

    y, p = features.cases.y, p.astype(np.float64)
    p = np.column_stack([1 - p, p]) if p.ndim == 1 else p
    known = np.maximum(p, 1e-7) / np.maximum(p, 1e-7).sum(axis=1, keepdims=True)
    each = [roc_auc_score(y == number, p[:, number]) for number in range(p.shape[1])]
    values = (np.mean(each), log_loss(y, known, labels=range(p.shape[1])), accuracy_score(y, p.argmax(axis=1)))
    scores = {column: float(value) for column, value in zip(COLUMNS, values, strict=True)}
    return {"set": name, "classes": p.shape[1], "n": n, "seed": seed, "method": method, **scores, **facts}


MEASURES = {"protocols": protocols, "fusion": fusion}


def print_tables(lines: Sequence[Line]) -> None:
    """Print the mean differences from each reference over the draws, with their standard errors."""
    for reference, methods in REFERENCES.items():
        cells: dict[tuple[str, int], dict[str, dict[int, Line]]] = defaultdict(lambda: defaultdict(dict))
        for one in lines:
            cells[one["set"], one["n"]][one["method"]][one["seed"]] = one
        print(f"| set, labels | {reference} | " + " | ".join(methods) + " |")
        print("|---" * (2 + len(methods)) + "|")
        for (name, n), found in cells.items():
            if reference in found:
                first = found[reference]
                means = " / ".join(f"{mean_of(first, column):.3f}" for column in COLUMNS[:2])
                shown = [difference(found[method], first) if method in found else "" for method in methods]
                print(f"| {name}, {n} | {means} | " + " | ".join(shown) + " |")
        print()


def mean_of(found: dict[int, Line], column: str) -> float:
    """Return the mean of a column over the draws."""
    return float(np.mean([one[column] for one in found.values()]))


def difference(one: dict[int, Line], first: dict[int, Line]) -> str:
    """Return the mean differences in AUC and log loss with standard errors, on the draws that both have."""
    seeds = sorted(one.keys() & first.keys())
    parts = []
    for column in COLUMNS[:2]:
        values = np.array([one[seed][column] - first[seed][column] for seed in seeds])
        parts.append(f"{values.mean():+.4f} ± {values.std(ddof=1) / len(values) ** 0.5:.4f}")
    return ", ".join(parts)


if __name__ == "__main__":
    main()
