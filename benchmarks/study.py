"""A whole label-efficiency study against scikit-learn's fits of the same study.

    python -m benchmarks.study
    python -m benchmarks.study --scale 0.1    # on a tenth of the rows
    python -m benchmarks.study --full         # every backbone on every dataset

The study has five backbones, four datasets, 1, 10 and 100 % of the labels, 5 seeds, 13 values of C and 5 folds.  The
features are random with a realistic spectrum.  Their numbers are the published sizes of the datasets, with at most
20,000 train rows.

Our time covers all of `mt probe`: reading, drawing, fitting, predicting, and scoring with intervals.  Imports count
once.  Without `--full` one backbone of each width is timed; its time is multiplied by the number of backbones of that
width.  scikit-learn's time covers its fits alone.  It is estimated: per width, dataset and budget, from the fits at
C = 1e-3, 1 and 1e3 on the rows of one draw.
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import tempfile
import warnings
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from benchmarks._pairs import machine, row, seconds
from benchmarks._spectra import features, labels
from mt.cache.catalog import Catalog, feature_path
from mt.cache.feature_file.write import FeatureWriter
from mt.cache.names import digest
from mt.probe.budgets.draw import draw
from mt.probe.methods.linear import Scaling
from mt.probe.request import ProbeRequest
from mt.probe.run import run_probe
from mt.types import LabelledRows

FRACTIONS = (0.01, 0.1, 1.0)
SEEDS = 5
N_C = 13
FOLDS = 5
SAMPLED_C = (1e-3, 1.0, 1e3)
BLOCK = 4096
BACKBONES = {"one": 1536, "two": 2048, "three": 1536, "four": 2048, "five": 1536}
SAMPLED = ("one", "two")  # one of each width


@dataclass(frozen=True)
class Study:
    """One dataset: numbers of train and test rows, task, number of classes or labels, images per patient."""

    name: str
    train: int
    test: int
    task: str
    n_classes: int
    metric: str
    per_group: int

    def scaled(self, scale: float) -> Study:
        """Return the study with this share of its rows, but at least 300 for training and 100 for testing."""
        return Study(
            self.name,
            max(300, int(self.train * scale)),
            max(100, int(self.test * scale)),
            self.task,
            self.n_classes,
            self.metric,
            self.per_group,
        )


STUDIES = (
    Study("pcam", 20_000, 32_768, "binary", 2, "roc_auc", 40),
    Study("aptos2019", 2_929, 733, "ordinal", 5, "quadratic_kappa", 1),
    Study("pneumonia", 4_708, 624, "multiclass", 3, "accuracy", 2),
    Study("nih-cxr14", 20_000, 25_596, "multilabel", 14, "mean_auc", 4),
)


def main() -> None:
    """Print our time, the estimate for scikit-learn, and their ratio, per dataset and for the whole study."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--scale", type=float, default=1.0, help="share of the rows, to try it out")
    parser.add_argument("--full", action="store_true", help="time every backbone")
    chosen = parser.parse_args()
    print(f"  {machine()}")
    ours, theirs = seconds(imports), 0.0
    for study in (study.scaled(chosen.scale) for study in STUDIES):
        folder = Path(tempfile.mkdtemp(prefix="mt-study-"))
        try:
            took = 0.0
            for number, (backbone, times) in enumerate(timed(full=chosen.full).items()):
                write(folder, study, backbone, BACKBONES[backbone], seed=number)
                request = ProbeRequest(folder, models=[backbone], fractions=FRACTIONS, seeds=SEEDS)
                took += times * seconds(partial(run_probe, request))
            estimate = scikit_learn(folder, study)
        finally:
            shutil.rmtree(folder)
        ours, theirs = ours + took, theirs + estimate
        row(f"{study.name}: ours {took:.0f} s, scikit-learn about {estimate:,.0f} s", estimate / took, reach="-")
    row(f"the whole study: ours {ours:.0f} s, scikit-learn about {theirs:,.0f} s", theirs / ours, reach=">= 30")


def imports() -> None:
    """Import what a probe imports."""
    import sklearn.metrics  # noqa: F401

    import mt.probe.solver.request  # noqa: F401


def timed(*, full: bool) -> dict[str, int]:
    """Return the backbones to time, with the factor that each time is multiplied by."""
    if full:
        return dict.fromkeys(BACKBONES, 1)
    widths = list(BACKBONES.values())
    return {name: widths.count(BACKBONES[name]) for name in SAMPLED}


def write(folder: Path, study: Study, backbone: str, dim: int, *, seed: int) -> None:
    """Write the train and test features of one backbone; all backbones have the same labels."""
    n = study.train + study.test
    # The content of the images is common to all backbones: each has it in its own strongest directions.
    shown = features(n, 64, seed=7)[1]
    X, _ = features(n, dim, seed=seed, shared=shown)
    y = study_labels(study, shown)
    for split, rows in (("train", slice(0, study.train)), ("test", slice(study.train, n))):
        prints = {"backbone": digest(backbone), "dataset": digest(study.name), "split": digest([study.name, split])}
        prints["file"] = digest([backbone, study.name, split])
        manifest = {
            "dataset": study.name,
            "location": None,
            "split": split,
            "backbone": backbone,
            "task": study.task,
            "class_names": [str(k) for k in range(study.n_classes)],
            "metric": study.metric,
            "budget_unit": "row",
            "grouping": "patient",
            "licence": "none",
            "fingerprints": prints,
            "inputs": {},
            "limit": None,
            "random_weights": False,
            "compute": {},
            "command": "python -m benchmarks.study",
            "warnings": [],
        }
        numbers = np.arange(n)[rows]
        groups = [f"patient-{number // study.per_group}-{split}" for number in numbers]
        path = feature_path(folder, study.name, split, backbone, prints["file"])
        labelled = LabelledRows(None, y[rows], groups, [f"image-{number}" for number in numbers])
        with FeatureWriter.open(path, labelled, manifest, dim=dim, block_rows=BLOCK) as writer:
            for block in list(writer.missing):
                part = X[rows][block * BLOCK : (block + 1) * BLOCK]
                writer.write_block(block, part, np.ones(len(part), dtype=np.uint8))
            writer.finish()


def study_labels(study: Study, factors: np.ndarray) -> np.ndarray:
    """Return (n,) classes or (n, labels) zeros and ones, drawn from logistic models of the factors (n, k)."""
    if study.task == "multilabel":
        return labels(factors, "multilabel", study.n_classes).astype(np.int8)
    if study.task == "binary":
        return labels(factors, "binary")
    return labels(factors, "multiclass", study.n_classes)


def scikit_learn(folder: Path, study: Study) -> float:
    """Return the estimated seconds of scikit-learn's fits on this dataset."""
    total = 0.0
    for entry in Catalog(folder).entries(splits=["train"], models=SAMPLED):
        train = entry.open()
        share = sum(dim == train.dim for dim in BACKBONES.values())
        for fraction in FRACTIONS:
            rows = draw(
                train.labels, task=study.task, n_classes=study.n_classes, fraction=fraction, groups=train.groups
            ).rows
            X, y = train.embeddings[rows], train.labels[rows]
            one = statistics.mean(one_fit(X, y, C, study) for C in SAMPLED_C)
            draws = 1 if fraction == 1 else SEEDS
            # A fold's fit has four fifths of the rows; scikit-learn's time is about linear in them.
            total += share * draws * (N_C * FOLDS * (FOLDS - 1) / FOLDS + 1) * one
    return total


def one_fit(X: np.ndarray, y: np.ndarray, C: float, study: Study) -> float:
    """Return the seconds of one fit; for several labels, those of the most frequent label times their number."""
    from sklearn.linear_model import LogisticRegression

    Z = Scaling.learn(X, "standardize").apply(X, "float64")
    target = y[:, y.sum(axis=0).argmax()] if study.task == "multilabel" else y
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        took = seconds(lambda: LogisticRegression(C=C, max_iter=1000).fit(Z, target))
    return took * (study.n_classes if study.task == "multilabel" else 1)


if __name__ == "__main__":
    main()
