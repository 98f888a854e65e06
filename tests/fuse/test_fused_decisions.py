"""`mt fuse --threshold --calibrate` works for every method on several models, saved and read back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mt.errors import InputError
from mt.fuse.end_to_end.request import FinetuneRequest, Machine, Settings
from mt.fuse.request import FuseRequest
from mt.fuse.run import run_fuse
from mt.fuse.tables import attentions, differences
from mt.predict.load import load_model
from mt.probe.decisions.achieved import achieved
from mt.probe.decisions.gains import gains
from mt.probe.scores.score_tables import row_name
from mt.results.store import ScoreStore
from tests.probe.features import write_features


def made(tmp_path: Path) -> None:
    for model in ("m1", "m2"):
        for split, n in (("train", 90), ("test", 80)):
            write_features(tmp_path, model=model, split=split, n=n, signal=0.4)


def test_every_method_gets_a_threshold_and_is_scaled(tmp_path: Path) -> None:
    made(tmp_path)
    asked = FuseRequest(
        tmp_path, shots=[12], seeds=1, threshold="sensitivity:0.9", calibrate="temperature", save=tmp_path / "saved"
    )
    study = run_fuse(asked)
    methods = ("best-single", "average", "concat", "blend", "dvme")
    rows = {"m1", "m2", *(f"{method}: m1 + m2" for method in methods)}
    assert {row_name(score) for score in study.scores} == rows | {f"{row}, temperature" for row in rows}
    assert study.decisions is not None
    with ScoreStore(study.store) as store:
        found = {one.row: one for one in achieved(study.scores, study.decisions, store)}
        assert all(one.point is not None for one in found.values())
        assert {one.row for one in gains(study.scores, store)} == {f"{row}, temperature" for row in rows}
        assert [row["draws"] for row in attentions(study, store)] == [1]
        pairs = differences(study, store)
        assert all(("temperature" in pair.a) == ("temperature" in pair.b) for pair in pairs)
        kept = {score.method: store.fit(score.fit) for score in study.scores if "temperature" in score.protocol}
    for file in (tmp_path / "saved").glob("*.json"):
        model = load_model(file)
        assert model.scaling is not None
        assert model.thresholds[0] is not None
        method = model.about["method"]
        row = f"{method}: m1 + m2, temperature"
        assert found[row].chosen[0].value == pytest.approx(model.thresholds[0])
        assert model.scaling.facts() == kept[method].outcome["calibration"]
    assert len(list((tmp_path / "saved").glob("*.json"))) == len(methods)
    assert run_fuse(FuseRequest(tmp_path, shots=[12], seeds=1, threshold="youden")).n_fitted == 0


def test_the_average_has_the_mean_of_the_models_out_of_fold_scores(tmp_path: Path) -> None:
    made(tmp_path)
    study = run_fuse(FuseRequest(tmp_path, shots=[12], seeds=1, methods=["average"], threshold="youden"))
    with ScoreStore(study.store) as store:
        from mt.probe.decisions.out_of_fold import OutOfFold

        held = OutOfFold(store)
        of = {row_name(score): held.of(score.fit) for score in study.scores}
        single = [of["m1"], of["m2"]]
        assert single[0] is not None
        assert single[1] is not None
        average = of["average: m1 + m2"]
        assert average is not None
        np.testing.assert_allclose(average, (single[0] + single[1]) / 2, atol=1e-6)


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ({"threshold": "youden"}, "--threshold needs out-of-fold scores"),
        (
            {"calibrate": "temperature"},
            "--unfreeze scales already: its logits are divided by the temperature with the lowest log loss on held-out "
            "fifths of the budget.*Remove --calibrate temperature, or --unfreeze",
        ),
    ],
)
def test_end_to_end_training_refuses_what_needs_folds(asked: dict[str, Any], words: str) -> None:
    cached = FuseRequest(**asked)
    with pytest.raises(InputError, match=words):
        FinetuneRequest(cached, Settings(), Machine()).check()
