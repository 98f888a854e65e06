"""Score databases for the report's tests: made-up predictions, kept and scored as every method's are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from mt.fuse.end_to_end.request import Settings
from mt.probe.budgets.draw import DrawSource
from mt.probe.protocols import PROTOCOLS
from mt.probe.questions import Budget, Pair, Question
from mt.probe.run import ask
from mt.probe.scores.scoring import Scorer
from mt.results.store import Fit, ScoreStore
from mt.types import LabelledRows
from tests.open_stores import open_store

BUDGETS = (0.01, 0.1, 1.0)
MODELS = {"simclr": 0.6, "swav": 0.9, "dino": 1.4}
N_TRAIN = 300


def filled(
    path: Path,
    *,
    task: str = "binary",
    dataset: str = "pcam",
    class_names: Sequence[str] = ("normal", "tumour"),
    models: Mapping[str, float] = MODELS,
    budgets: Sequence[float] = BUDGETS,
    seeds: int = 3,
    n_test: int = 120,
    method: str = "probe",
    outcome: Mapping[str, Any] | None = None,
    metrics: Sequence[str] = (),
    one_class: bool = False,
    code: int = 1,
    at_random: bool = False,
) -> ScoreStore:
    """Add a dataset to the store at `path`: predictions get better with `models[name]` and with the budget.

    at_random: the draws are random ones, of other rows.
    """
    store = open_store(path)
    k = len(class_names)
    labels = _labels(task, k, n_test) * (0 if one_class else 1)
    groups = [f"patient{i // 3}" for i in range(n_test)]
    cases = store.add_cases(LabelledRows(None, labels, groups, [f"case{i:05d}" for i in range(n_test)]))
    pool = store.add_cases(LabelledRows(None, _labels(task, k, N_TRAIN), ids=[f"train{i}" for i in range(N_TRAIN)]))

    def answer(question: Question) -> Fit:
        fraction = question.budget.fraction or 0
        rng = np.random.default_rng([code, len(question.pair.model), int(1000 * fraction), question.seed])
        p = _probabilities(labels, task, k, models[question.pair.model] * (1 + fraction), rng)
        rows = np.arange(round(N_TRAIN * fraction))
        whole = {**outcome_of(task, class_names, len(rows)), **(outcome or {})}
        if at_random:
            rows, whole = N_TRAIN - 1 - rows, {**whole, "realised": {**whole["realised"], "draw": "random"}}
        return Fit(question.identity, pool, cases, rows, p, whole)

    questions = [
        Question(_pair(dataset, model, task), Budget(budget), seed, method, {"protocol": "default"}, code)
        for model in models
        for budget in budgets
        for seed in range(1 if budget == 1 else seeds)
    ]
    ask(questions, partial(map, answer), Scorer(store, metrics), DrawSource())
    return store


def _pair(dataset: str, model: str, task: str) -> Pair:
    def entry(split: str) -> Any:
        fingerprints = {
            "backbone": f"backbone-{model}",
            "dataset": f"dataset-{dataset}",
            "split": f"{split}-{dataset}",
            "file": f"file-{split}-{dataset}-{model}",
        }
        return SimpleNamespace(split=split, fingerprints=fingerprints, n_rows=N_TRAIN, manifest={"task": task})

    return Pair(dataset, dataset, model, (entry("train"),), (entry("test"),))


def _labels(task: str, k: int, n: int) -> Any:
    rng = np.random.default_rng(0)
    if task == "multilabel":
        return (rng.random((n, k)) < 0.4).astype(np.int8)
    return rng.integers(0, k, n)


def _probabilities(labels: Any, task: str, k: int, strength: float, rng: np.random.Generator) -> Any:
    if task in ("binary", "multilabel"):
        logits = strength * (2.0 * labels - 1) + rng.normal(0, 1.5, labels.shape)
        return (1 / (1 + np.exp(-logits))).astype(np.float32)
    logits = strength * np.eye(k)[labels] + rng.normal(0, 1, (len(labels), k))
    p = np.exp(logits)
    return (p / p.sum(axis=1, keepdims=True)).astype(np.float32)


def tuned(**settings: Any) -> dict[str, Any]:
    """Return the record of a fit that was trained end to end."""
    recipe = {"name": "unfrozen", **Settings(**{"precision": "float32", **settings}).recipe(), "start": "start"}
    chosen = {"recipe": recipe, "lr": 1e-4, "epochs": 2, "C": 1.0}
    return {"protocol": "end-to-end", "select": "holdout", "settings": chosen}


def outcome_of(task: str, class_names: Sequence[str], n_labels: int) -> dict[str, Any]:
    realised = {
        "unit": "row",
        "n_units": n_labels,
        "n_rows": n_labels,
        "n_groups": None,
        "rows": [n_labels // 2, n_labels - n_labels // 2],
        "groups": None,
        "forced": [],
        "missing": [],
    }
    return {
        "task": task,
        "class_names": list(class_names),
        "protocol": "default",
        "solver": "torch",
        "select": "folds",
        "settings": {"C": 0.1},
        "selection": {},
        "flags": [],
        "n_labels": n_labels,
        "realised": realised,
        "versions": {"mt": "0.1.0", "protocol": PROTOCOLS["default"].fingerprint[:12], "torch": "2.6.0", "solver": 1},
    }
