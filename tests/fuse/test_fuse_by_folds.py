"""Fusion by test folds: all rows of a table are tested on the same folds; single models are read from stored fits."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from mt.errors import InputError
from mt.fuse.request import FuseRequest
from mt.fuse.run import run_fuse
from mt.fuse.tables import attentions, differences
from mt.results.store import ScoreStore
from tests.probe.features import write_pair


def test_all_methods_are_tested_on_the_same_folds(tmp_path: Path) -> None:
    for model in ("m1", "m2"):
        write_pair(tmp_path, model=model, grouped=True)
    request = FuseRequest(tmp_path, fractions=[0.5], seeds=1, test_folds=2, repeats=2)
    study = run_fuse(request)
    with ScoreStore(study.store) as store:
        fits = {(score.method, score.model, score.seed): store.fit(score.fit) for score in study.scores}
        assert {method for method, _, _ in fits} == {"probe", "best-single", "average", "concat", "blend", "dvme"}
        for seed in (0, 1):
            folds = [fit.outcome["test_fold"] for (_, _, number), fit in fits.items() if number == seed]
            assert len(folds) == 7
            assert all(fold == folds[0] for fold in folds)
            singles = [fits["probe", model, seed] for model in ("m1", "m2")]
            mean = np.mean([fit.probabilities for fit in singles], axis=0)
            np.testing.assert_allclose(fits["average", "m1 + m2", seed].probabilities, mean, atol=1e-6)
            best = fits["best-single", "m1 + m2", seed]
            for number, own in enumerate(best.outcome["settings"]["test_folds"]):
                here = np.array(best.outcome["test_fold"]) == number
                chosen = singles[["m1", "m2"].index(own["model"])]
                np.testing.assert_array_equal(best.probabilities[here], chosen.probabilities[here])
        assert differences(study, store)
        (attention,) = attentions(study, store)
        assert sum(attention["overall"]) == pytest.approx(1, abs=1e-4)
    assert run_fuse(request).n_fitted == 0


def test_saving_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="--save saves one model per draw"):
        run_fuse(FuseRequest(tmp_path, test_folds=5, save=tmp_path))
