"""Small real feature files, written by the FeatureWriter, of every task."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mt.cache.catalog import feature_path
from mt.cache.feature_file.format import Status
from mt.cache.feature_file.write import Existing, FeatureWriter
from mt.cache.names import digest
from mt.probe.request import Answers, ProbeRequest
from mt.probe.run import run_probe
from mt.results.store import ScoreStore
from mt.types import LabelledRows
from tests.open_stores import open_store

HEADLINE = {"binary": "roc_auc", "multiclass": "accuracy", "ordinal": "quadratic_kappa", "multilabel": "mean_auc"}
BLOCK = 64
QUICK: dict[str, Any] = {"protocol": "clip", "fractions": [0.5], "seeds": 2}  # of `probed`: fits in no time


def probed(cache: Path, **asked: Any) -> Answers:
    """Return the answers to the request that these options make."""
    return run_probe(ProbeRequest(cache, **asked))


def store_of(study: Answers) -> ScoreStore:
    return open_store(study.store)


def seed_of(*names: str) -> list[int]:
    return [zlib.crc32(name.encode()) for name in names]


def embeddings_and_labels(
    dataset: str, model: str, split: str, *, n: int, dim: int, task: str, n_classes: int, signal: float
) -> tuple[np.ndarray, np.ndarray]:
    """Return (n, dim) float32 embeddings around a mean per class, and labels that depend on dataset and split alone."""
    rng = np.random.default_rng(seed_of(dataset, split))
    means = np.random.default_rng(seed_of(model)).normal(size=(n_classes, dim))
    if task == "multilabel":
        labels = (rng.random((n, n_classes)) < np.linspace(0.2, 0.5, n_classes)).astype(np.int8)
        mean = labels @ means
    else:
        labels = rng.permutation(np.arange(n) % n_classes).astype(np.int64)
        mean = means[labels]
    noise = np.random.default_rng(seed_of(dataset, split, model)).normal(size=(n, dim))
    return (5 + signal * mean + noise).astype(np.float32), labels


def write_features(
    cache: Path,
    dataset: str = "toy",
    model: str = "m1",
    split: str = "train",
    *,
    n: int = 120,
    dim: int = 8,
    task: str = "binary",
    n_classes: int = 2,
    signal: float = 0.7,
    grouped: bool = False,
    labels: np.ndarray | None = None,
    embeddings: np.ndarray | None = None,
    columns: dict[str, Any] | None = None,
    ids: list[str] | None = None,
    content: str = "",
    shuffled: bool = False,
    hashes: list[bytes] | None = None,
    seen: str = "",
    unreadable: Sequence[int] = (),
    **manifest: Any,
) -> Path:
    """Write one complete feature file; `content` stands for the images' content in the dataset's fingerprint.

    shuffled: the same rows in another order.  hashes: what each row's image is known by, 16 bytes each.
    seen: stands for how the backbone sees images, in its fingerprint.  unreadable: rows without an embedding.
    """
    made = embeddings_and_labels(dataset, model, split, n=n, dim=dim, task=task, n_classes=n_classes, signal=signal)
    embeddings = made[0] if embeddings is None else embeddings
    labels = made[1] if labels is None else labels
    fingerprints = {
        "backbone": digest(["backbone", model, *([seen] if seen else [])]),
        "dataset": digest(["dataset", dataset, content]),
    }
    fingerprints["split"] = digest([fingerprints["dataset"], split])
    fingerprints["file"] = digest([fingerprints["backbone"], fingerprints["split"]])
    facts = {
        "format": "mt-features",
        "format_version": 1,
        "dataset": dataset,
        "location": None,
        "split": split,
        "backbone": model,
        "task": task,
        "class_names": [f"class {k}" for k in range(n_classes)],
        "metric": HEADLINE[task],
        "budget_unit": "row",
        "grouping": "patient" if grouped else None,
        "licence": "none",
        "fingerprints": fingerprints,
        "inputs": {"backbone": {"name": model}, "dataset": {"name": dataset}},
        "limit": None,
        "random_weights": False,
        "compute": {"device": "cpu"},
        "command": f"mt featurize --model {model} --dataset {dataset}",
        "warnings": [],
        **manifest,
    }
    groups = [f"{split}-patient-{row // 4}" for row in range(len(labels))] if grouped else None
    rows = LabelledRows(
        embeddings, labels, groups, ids or [f"{split}-{row}" for row in range(len(labels))], columns or {}
    )
    if shuffled:
        rows = rows.take(np.random.default_rng(1).permutation(len(labels)))
    embeddings = rows.X
    path = feature_path(cache, dataset, split, model, fingerprints["file"])
    with FeatureWriter.open(
        path,
        rows.with_features(None),
        facts,
        dim=embeddings.shape[1],
        block_rows=BLOCK,
        existing=Existing(overwrite=True),
        content=hashes,
    ) as writer:
        for block in list(writer.missing):
            part = slice(block * BLOCK, (block + 1) * BLOCK)
            status = np.ones(len(embeddings), dtype=np.uint8)
            status[list(unreadable)] = Status.UNREADABLE
            writer.write_block(block, embeddings[part], status[part])
        return writer.finish()


def write_pair(cache: Path, dataset: str = "toy", model: str = "m1", **options: Any) -> None:
    """Write the train and test features of one model on one dataset."""
    write_features(cache, dataset, model, "train", **options)
    write_features(cache, dataset, model, "test", **{**options, "n": 80})
