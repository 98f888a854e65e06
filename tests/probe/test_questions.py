"""Identities of questions stay the same: what any version stored is found again."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from mt.probe.protocols import PROTOCOLS, Fitting
from mt.probe.questions import Budget, Pair, Question

RECIPE = {"protocol": "p", "solver": ["torch", 7], "select": "folds"}


def a_pair() -> Pair:
    def entry(split: str) -> Any:
        fingerprints = {what: f"{what}-of-{split}" for what in ("backbone", "dataset", "split", "file")}
        return SimpleNamespace(split=split, n_rows=100, fingerprints=fingerprints, manifest={"task": "binary"})

    return Pair("toy", "toy", "m1", (entry("train"),), (entry("test"),))


@pytest.mark.parametrize(
    ("budget", "seed", "draw", "expected"),
    [
        (Budget(0.01), 0, {"order": 1}, "02f7b0168b0077b9778b3c87983336827987ef27691d99d464c0916c0a029618"),
        (Budget(shots=5), 3, {"order": 1}, "31502736fce27b3514379bc4e0f1491f88f66f78abf49516efcacc9f759b2b46"),
        (Budget(), 1, {"ids": "abc"}, "192820d61f43716fc32fdb6e1eb599e68251692611de025c42124e10a905aa94"),
    ],
    ids=["fraction", "shots", "listed"],
)
def test_the_identity_of_a_question_never_changes(budget: Budget, seed: int, draw: Any, expected: str) -> None:
    """Written by mt 0.1."""
    assert Question(a_pair(), budget, seed, "probe", RECIPE, draw).identity == expected


@pytest.mark.parametrize(
    ("name", "protocol", "solver"),
    [
        ("default", "d66b100493376184e4f0d42f64802679b89fc82f2041c3cfb8671d9ccaa02901", ["torch", 7]),
        ("clip", "c46e6139b73d7abc215897a1476c28684ed1fd9282264d8089bb75217e9733e7", ["torch", 7]),
        ("dino-knn", "193c44b9b4a6dacded252061ef95380aaf914ed979c497cb19f216eed77ffe1d", None),
    ],
)
def test_what_a_method_adds_to_an_identity_never_changes(name: str, protocol: str, solver: Any) -> None:
    """Written by mt 0.1; a protocol or solver whose numbers change gets a new revision, and a new line here."""
    assert Fitting(PROTOCOLS[name], "torch", "cpu").identity() == {"protocol": protocol, "solver": solver}
