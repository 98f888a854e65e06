"""Gradient-trained heads: torch.optim's own steps, all runs and settings side by side, the best epoch kept."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace
from typing import Any, Literal

import numpy as np
import pytest
import torch

from mt.probe.method_settings import Head
from mt.probe.methods.gradient_heads import AveragedProbe, _Best, _Judge, _Optimizer, _Training
from mt.probe.protocols import PROTOCOLS, Fitting
from mt.probe.run import fit_probe
from mt.probe.scores.metrics import score
from mt.types import LabelledRows
from tests.noting import noted
from tests.probe.brief import brief, changed, method_of


def data(n: int = 70, dim: int = 6) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    y = rng.permutation(np.arange(n) % 3)
    return (rng.normal(size=(3, dim))[y] + rng.normal(size=(n, dim))).astype(np.float32), y


def trained_by_torch(method: Head, rate: float, decay: float, X: np.ndarray, y: np.ndarray, seed: int) -> np.ndarray:
    """Return weights (K, d+1) of a plain torch loop with the same start and order of rows."""
    rng = np.random.default_rng([seed, 0])
    bound = 1 / math.sqrt(X.shape[1])
    start = rng.uniform(-bound, bound, (X.shape[1] + 1, 3))
    layer = torch.nn.Linear(X.shape[1], 3)
    with torch.no_grad():
        layer.weight.copy_(torch.from_numpy(start[:-1].T))
        layer.bias.copy_(torch.from_numpy(start[-1]))
    kinds = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW, "sgd": torch.optim.SGD}
    more = {"momentum": method.momentum} if method.optimizer == "sgd" else {}
    optimizer = kinds[method.optimizer](layer.parameters(), lr=rate, weight_decay=decay, **more)
    epochs = method.epochs
    assert epochs
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda e: (1 + math.cos(math.pi * e / epochs)) / 2 if method.cosine else 1.0
    )
    features, classes = torch.from_numpy(X), torch.from_numpy(y)
    for _ in range(epochs):
        for rows in torch.split(torch.from_numpy(rng.permutation(len(X))), method.batch):
            optimizer.zero_grad()
            torch.autograd.backward(torch.nn.functional.cross_entropy(layer(features[rows]), classes[rows]))
            optimizer.step()
        schedule.step()
    return torch.cat([layer.weight, layer.bias[:, None]], dim=1).detach().numpy()


@pytest.mark.parametrize("optimizer", ["adam", "adamw", "sgd"])
def test_steps_are_those_of_torch_with_all_settings_side_by_side(optimizer: Literal["adam", "adamw", "sgd"]) -> None:
    X, y = data()
    method = Head(optimizer, (1e-1, 1e-2), 16, epochs=6, weight_decays=(0.0, 0.1), momentum=0.9, cosine=True)
    settings = [(rate, decay) for rate in method.learning_rates for decay in method.weight_decays]
    fitting = Fitting(replace(PROTOCOLS["thunder"], method=method)).on("multiclass", 3)
    weights, _, _ = _Training(method, settings, np.arange(3), fitting, seed=4).run(X, y, None)
    for number, (rate, decay) in enumerate(settings):
        expected = trained_by_torch(method, rate, decay, X, y, seed=4)
        np.testing.assert_allclose(weights[0, number], expected, atol=2e-5)


def test_runs_differ_by_their_seed_and_are_averaged() -> None:
    X, y = data()
    fitted = fit_probe(LabelledRows(X, y), Fitting(brief("eva")).on("multiclass", 3), seed=0)
    assert isinstance(fitted.probe, AveragedProbe)
    coefs = [probe.coef for probe in fitted.probe.probes]
    assert len(coefs) == 5
    assert not np.allclose(coefs[0], coefs[1])
    mean = np.mean([probe.probabilities(X) for probe in fitted.probe.probes], axis=0)
    np.testing.assert_allclose(fitted.probe.probabilities(X), mean, atol=1e-6)


@pytest.mark.parametrize("at_once", [1 << 24, 200], ids=["at once", "by blocks"])
@pytest.mark.parametrize("metric", ["balanced_accuracy", "macro_f1"])
def test_held_out_scores_are_the_metrics_of_that_name(
    metric: str, at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mt.probe.methods.gradient_heads._ENTRIES", at_once)
    X, y = data()
    rng = np.random.default_rng(2)
    weights = torch.from_numpy(rng.normal(size=(2, 7, 4 * 3)).astype(np.float32))
    found = _Judge(X, y, np.arange(3), metric, torch.device("cpu")).scores(weights, 4)
    logits = np.einsum("nd,sdk->snk", np.hstack([X, np.ones((len(X), 1))]), weights.numpy()).reshape(2, len(X), 4, 3)
    for run in range(2):
        for number in range(4):
            p = np.eye(3)[logits[run, :, number].argmax(axis=1)]
            assert found[run, number] == pytest.approx(score(metric, y, p), abs=1e-6)


def test_each_setting_keeps_its_best_epoch_until_its_patience_is_over() -> None:
    keep = _Best(torch.zeros(1, 1, 4), n_settings=2, patience=2)
    going = []
    for epoch, scores in enumerate([[0.5, 0.1], [0.4, 0.2], [0.4, 0.3], [0.9, 0.2], [0.9, 0.2]], start=1):
        going.append(keep.update(torch.full((1, 1, 4), float(epoch)), torch.tensor([scores]), epoch))
    assert keep.weights[0, 0].tolist() == [1, 1, 3, 3]
    assert keep.epochs.tolist() == [[1, 3]]
    assert going == [True, True, True, True, False]


def training_of(protocol: str, **settings: Any) -> _Training:
    recipe = changed(protocol, **settings)
    method = method_of(recipe, Head)
    grid = list(itertools.product(method.learning_rates, method.weight_decays))
    return _Training(method, grid, np.arange(3), Fitting(recipe).on("multiclass", 3), seed=0)


def test_of_equally_good_settings_the_one_that_was_so_good_first_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    X, y = data()
    scores = np.array([[0.5, 0.8, 0.8, 0.8]])
    epochs = np.array([[0, 7, 3, 3]])
    weights = np.zeros((1, 4, 3, 7))
    monkeypatch.setattr(_Training, "run", lambda *_: (weights, scores, epochs))
    recipe = changed("thunder", learning_rates=(4.0, 3.0, 2.0, 1.0), weight_decays=(0.0,))
    fitting = Fitting(recipe).on("multiclass", 3)
    assert fit_probe(LabelledRows(X, y), fitting, seed=0).settings["learning_rate"] == 2.0


def test_dino_starts_from_small_normal_weights_without_bias() -> None:
    X, y = data(dim=400)
    weights, _, _ = training_of("dino-linear", learning_rates=(0.0,), epochs=1).run(X, y, None)
    assert weights[..., :-1].std() == pytest.approx(0.01, rel=0.1)
    assert (weights[..., -1] == 0).all()


def test_steps_are_at_most_those_that_were_published(monkeypatch: pytest.MonkeyPatch) -> None:
    X, y = data(100)
    steps: list[int] = []
    monkeypatch.setattr(_Optimizer, "step", noted(_Optimizer.step, lambda *_: steps.append(1)))
    training_of("eva", batch=32, steps=11, runs=1).run(X, y, None)
    assert len(steps) == 8  # two whole epochs of four


@pytest.mark.parametrize("name", ["eva", "thunder"])
def test_held_out_labels_choose_the_epoch_and_teach_nothing(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    X, y = data(90)
    seen: list[torch.Tensor] = []
    original = _Judge.scores

    def watched(self: _Judge, weights: torch.Tensor, n_settings: int) -> torch.Tensor:
        seen.append(weights.clone())
        return original(self, weights, n_settings)

    monkeypatch.setattr(_Judge, "scores", watched)
    method = {"epochs": 4, "steps": None, "patience": None}
    for held in (y[60:], (y[60:] + 1) % 3):
        training_of(name, **method).run(X[:60], y[:60], (X[60:], held))
    before, after = seen[:4], seen[4:]
    assert all(torch.equal(one, other) for one, other in zip(before, after, strict=True))


def test_the_best_setting_is_chosen_on_held_out_rows_of_the_budget() -> None:
    X, y = data()
    fitted = fit_probe(LabelledRows(X, y), Fitting(brief("thunder")).on("multiclass", 3), seed=0)
    scores = fitted.selection["scores"]
    assert len(scores) == 9
    assert fitted.selection["source"] == "holdout"
    best = int(np.argmax(scores))
    assert fitted.settings == {
        "learning_rate": (1e-3, 1e-4, 1e-5)[best // 3],
        "weight_decay": (0, 1e-3, 1e-4)[best % 3],
    }


def test_without_rows_to_hold_out_the_last_epoch_is_kept_and_flagged() -> None:
    X, y = data(3)
    fitted = fit_probe(LabelledRows(X, y), Fitting(brief("thunder")).on("multiclass", 3), seed=0)
    assert "no_validation" in fitted.flags
    assert fit_probe(LabelledRows(X, y), Fitting(brief("dino-linear")).on("multiclass", 3), seed=0).flags == ()


@pytest.mark.parametrize("name", ["eva", "thunder", "dino-linear"])
def test_a_head_learns(name: str) -> None:
    X, y = data(300)
    fitting = Fitting(changed(name, learning_rates=(0.02,), epochs=30)).on("multiclass", 3)
    p = fit_probe(LabelledRows(X, y), fitting, seed=0).probe.probabilities(X)
    assert score("accuracy", y, p) > 0.7
