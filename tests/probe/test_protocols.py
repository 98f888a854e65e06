"""The presets: complete, immutable, identified by their settings, refused where they are not defined."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Literal

import numpy as np
import pytest

from mt.errors import InputError
from mt.probe.method_settings import Head, Logistic, Neighbours
from mt.probe.protocols import PROTOCOLS, get_protocol
from mt.probe.scores.metrics import METRICS
from mt.probe.tables import describe
from mt.types import TASKS
from tests.probe.brief import method_of
from tests.probe.features import probed, write_pair

# What every protocol's fingerprint was at protocol revision 3: a change here orphans all stored scores.
FINGERPRINTS = {
    "default": "d66b100493376184e4f0d42f64802679b89fc82f2041c3cfb8671d9ccaa02901",
    "blend": "4e6aaacf64d40ac4d14ced40318a8543f556fe77b4b85a8e5d46df329e6b1f3a",
    "blend-four": "47ef2baad0ff5009df797b8e8db73f11f8146263767174c6da7133e2d14a5b7d",
    "propagate": "6daeb1cd7fa077f66ad778dbc6e0eea9b5d4f1514a832fe0e75f222d7c46abc7",
    "dinov2-logreg": "26ebfcb888192d8b2cc5cfce86f03610cbc48625ee49d044d9bea92a24fefe16",
    "ssl-transfer": "f378919b1e24ce791d373dc0dcdc4862d4b3012308737b03ca4710812e4a99db",
    "clip": "c46e6139b73d7abc215897a1476c28684ed1fd9282264d8089bb75217e9733e7",
    "prism": "f4d2597df37d20976009864f0a9dc489fc4535c3eb2758a0b7d81f3f1518c5fd",
    "patho-bench": "f34c9453b66e4affa46cef61696c8124848b7c4859eb98bdf8939d169817c52b",
    "eva": "b9630fd67e8e7a44922bc08cbac5e6915d58230c10ab6788d31051d89820e186",
    "thunder": "1c2a9f49ce7a9e934ed9c067f088facfdac0a691aad3460f5f87168bc9b4fa41",
    "dino-linear": "45aa7562f6791bbf186cb2ad03e474c0dedb1e893545d657df6a8bdb660b47c0",
    "dino-knn": "193c44b9b4a6dacded252061ef95380aaf914ed979c497cb19f216eed77ffe1d",
    "thunder-knn": "b89de0e99f65fd6bfb832934180f695acbb0d1b21db1fa70753faf4b91ec8926",
}
NAMES = list(FINGERPRINTS)


def test_the_fingerprints_are_those_that_stored_scores_carry() -> None:
    assert {name: protocol.fingerprint for name, protocol in PROTOCOLS.items()} == FINGERPRINTS


def test_the_presets_by_name() -> None:
    assert list(PROTOCOLS) == NAMES
    with pytest.raises(InputError, match="Did you mean 'dino-knn'"):
        get_protocol("dinoknn")


@pytest.mark.parametrize("name", NAMES)
def test_a_preset_states_everything(name: str) -> None:
    protocol = PROTOCOLS[name]
    assert protocol.name == name
    assert protocol.source
    assert protocol.title
    assert protocol.embedding
    assert protocol.validation_source
    assert set(protocol.tasks) <= set(TASKS)
    assert (protocol.selection_metric is None) == (protocol.validation.kind == "none")
    assert protocol.selection_metric is None or protocol.selection_metric in METRICS
    with pytest.raises(dataclasses.FrozenInstanceError):
        protocol.name = "other"  # type: ignore[misc]
    with pytest.raises(dataclasses.FrozenInstanceError):
        protocol.method.batch = 1  # type: ignore[misc, union-attr]


@pytest.mark.parametrize("name", NAMES)
def test_settings_enter_the_hash_and_prose_does_not(name: str) -> None:
    protocol = PROTOCOLS[name]
    reworded = dataclasses.replace(protocol, title="other", deviations=("other",), source="other")
    assert reworded.fingerprint == protocol.fingerprint
    other: Literal["none", "standardize"] = "none" if protocol.scaling != "none" else "standardize"
    assert dataclasses.replace(protocol, scaling=other).fingerprint != protocol.fingerprint
    assert len({p.fingerprint for p in PROTOCOLS.values()}) == len(NAMES)
    assert describe(protocol)["hash"] == protocol.fingerprint


def test_the_published_values_of_C_and_k() -> None:
    Cs = {name: p.method.Cs for name, p in PROTOCOLS.items() if isinstance(p.method, Logistic)}
    np.testing.assert_allclose(Cs["default"], np.logspace(-3, 3, 13))
    np.testing.assert_allclose(Cs["dinov2-logreg"], 10 ** np.linspace(-6, 5, 45))
    np.testing.assert_allclose(np.sort(1 / np.logspace(-6, 5, 45)), Cs["ssl-transfer"])
    assert (Cs["clip"], Cs["prism"], Cs["patho-bench"]) == ((0.316,), (1.0,), (0.5,))
    assert all(list(values) == sorted(values) for values in Cs.values())
    ks = {name: p.method.ks for name, p in PROTOCOLS.items() if isinstance(p.method, Neighbours)}
    assert ks == {"dino-knn": (10, 20, 100, 200), "thunder-knn": (1, 3, 5, 10, 20, 30, 40, 50)}


def test_what_was_read_in_the_origins() -> None:
    """Facts of each origin's code, beyond the values of C and k."""
    heads = {name: p.method for name, p in PROTOCOLS.items() if isinstance(p.method, Head)}
    assert (heads["eva"].steps, heads["eva"].batch, heads["eva"].patience, heads["eva"].runs) == (12_500, 256, 0.2, 5)
    assert (heads["thunder"].epochs, heads["thunder"].batch) == (200, 64)
    assert heads["thunder"].learning_rates == (1e-3, 1e-4, 1e-5)
    assert heads["thunder"].weight_decays == (0.0, 1e-3, 1e-4)
    dino = heads["dino-linear"]
    assert (dino.start_sd, dino.momentum, dino.epochs, dino.cosine) == (0.01, 0.9, 100, True)
    hold_outs = {name: p.validation for name, p in PROTOCOLS.items() if p.validation.kind == "holdout"}
    assert (hold_outs["dinov2-logreg"].fraction, hold_outs["dinov2-logreg"].seed) == (0.1, 0)
    assert (hold_outs["ssl-transfer"].fraction, hold_outs["ssl-transfer"].seed) == (0.2, 0)
    assert [name for name, p in PROTOCOLS.items() if p.validation.ties == "larger"] == ["ssl-transfer"]
    assert method_of(PROTOCOLS["patho-bench"], Logistic).class_weight == "balanced"


@pytest.mark.parametrize("name", [name for name in NAMES if "multilabel" not in PROTOCOLS[name].tasks])
def test_a_pair_that_is_not_defined_is_refused(tmp_path: Path, name: str) -> None:
    write_pair(tmp_path, task="multilabel", n_classes=3)
    with pytest.raises(InputError, match=f"'{name}' is defined for .*toy is multilabel"):
        probed(tmp_path, protocol=name)


@pytest.mark.parametrize("name", NAMES)
def test_the_document_lists_every_preset(name: str) -> None:
    document = Path(__file__).parents[2] / "docs" / "protocols.md"
    assert f"| `{name}` |" in document.read_text(encoding="utf-8")
