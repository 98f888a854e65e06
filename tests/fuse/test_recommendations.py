"""What `mt fuse` recommends inside the budget, and the log loss to expect of taking the best single model."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from mt.fuse.tables import held_out_losses, loss_of_best_single, recommended
from mt.probe.questions import Budget

FOLDS, ROWS = 5, 20


def _selection(losses: np.ndarray[Any, Any], **facts: Any) -> dict[str, Any]:
    """Return the account of a choice among two C, whose second is better in every fold; losses (folds,)."""
    folds = [[-float(loss) - 1, -float(loss)] for loss in losses]
    scores = np.mean(folds, axis=0).tolist()
    return {"metric": "negative log_loss", "source": "folds", "scores": scores, "folds": folds, **facts}


def _noise(rng: np.random.Generator, models: int) -> list[dict[str, Any]]:
    """Return the accounts of models whose logits have nothing to do with the labels of the same rows."""
    sign = rng.choice([-1, 1], size=(FOLDS, ROWS))
    logits = rng.normal(scale=0.5, size=(models, FOLDS, ROWS))
    return [_selection(one) for one in np.logaddexp(0, -sign * logits).mean(axis=2)]


def test_the_best_of_several_models_of_noise_is_expected_to_have_the_loss_of_noise() -> None:
    """By simulation: the lowest held-out loss is too low by 9 standard errors and more, the corrected one is not."""
    rng = np.random.default_rng(0)
    chance = float(np.logaddexp(0, rng.normal(scale=0.5, size=1_000_000)).mean())
    studies = [_noise(rng, models=5) for _ in range(400)]
    lowest = np.array([min(-max(one["scores"]) for one in found) for found in studies])
    expected = np.array([loss_of_best_single(found) for found in studies], dtype=float)
    errors = [values.std(ddof=1) / len(values) ** 0.5 for values in (lowest, expected)]
    assert lowest.mean() < chance - 9 * errors[0]
    assert abs(expected.mean() - chance) < 2 * errors[1]


@pytest.mark.parametrize(
    ("losses", "expected"),
    [
        ([[0.5, 0.5, 0.5], [0.9, 0.9, 0.9]], 0.5),  # every two folds choose the first: nothing to correct
        ([[0.1, 0.8, 0.8, 0.7], [0.7, 0.7, 0.7, 0.7]], 0.6 + 0.6 / 4),  # without the first fold, the second model wins
        ([[0.4, 0.8]], 0.6),  # one model: no choice
    ],
)
def test_each_fold_is_judged_with_the_model_that_the_other_folds_choose(
    losses: list[list[float]], expected: float
) -> None:
    assert loss_of_best_single([_selection(np.array(one)) for one in losses]) == pytest.approx(expected)


def test_a_fold_that_cannot_be_scored_is_omitted() -> None:
    found = [_selection(np.array(one)) for one in ([0.1, 0.8, 0.8, 0.7], [0.7, 0.7, 0.7, 0.7])]
    for one in found:
        one["folds"].insert(2, None)
    assert loss_of_best_single(found) == pytest.approx(0.75)


@pytest.mark.parametrize(
    "facts", [{"source": "val"}, {"folds": []}, {"folds": [[-1.0, -0.5]]}, {"folds": [[-1.0, -0.5], None]}]
)
def test_without_two_folds_there_is_no_figure(facts: dict[str, Any]) -> None:
    assert loss_of_best_single([_selection(np.array([0.5, 0.6]), **facts)] * 2) is None


def test_without_held_out_rows_there_is_no_figure() -> None:
    assert loss_of_best_single([{}, {}]) is None
    assert loss_of_best_single([]) is None


def test_a_fusion_is_recommended_whatever_the_best_single_model_has() -> None:
    assert recommended({"best-single": 0.1, "concat": 0.5, "blend": 0.4}) == "blend"


class _Store:
    """Fits by name: what a store would return."""

    def __init__(self, fits: dict[str, Any]) -> None:
        self.fit = fits.__getitem__


@pytest.mark.parametrize(("pools", "known"), [(("a", "a"), True), (("a", "b"), False)])
def test_losses_are_those_of_all_models_and_of_probes_on_the_same_rows(pools: tuple[str, str], *, known: bool) -> None:
    """DVME without one model (--ablations) is another place; files in other orders have other folds."""
    selections = [_selection(np.array(one)) for one in ([0.1, 0.8, 0.8, 0.7], [0.7, 0.7, 0.7, 0.7])]
    recipe = {"settings": {"recipe": {"name": "start"}}, "selection": {"recipes": {"start": {"log_loss": 0.3}}}}
    rows = [
        *(("probe", f"m{number}", {"selection": one}, pools[number]) for number, one in enumerate(selections)),
        ("best-single", "m0 + m1 + m2", {"selection": {"models": {"m0": -0.6}}}, "a"),
        ("concat", "m0 + m1 + m2", {"selection": {"log_loss": 0.5}}, "a"),
        ("dvme", "m0 + m1", recipe, "a"),
    ]
    shared = {"dataset": "toy", "fraction": 0.5, "shots": None, "seed": 0, "protocol": "default", "scaling": ""}
    scores: Any = [
        SimpleNamespace(fit=str(number), method=method, model=model, **shared)
        for number, (method, model, _, _) in enumerate(rows)
    ]
    fits = {str(number): SimpleNamespace(outcome=row[2], pool=row[3]) for number, row in enumerate(rows)}
    store: Any = _Store(fits)
    found = held_out_losses(scores, store)
    budget = Budget(0.5, None)
    expected = {"concat": 0.5, **({"best-single": pytest.approx(0.75)} if known else {})}
    assert found["toy", "m0 + m1 + m2", budget] == {0: expected}
    assert found["toy", "m0 + m1", budget] == {0: {"dvme": 0.3}}
