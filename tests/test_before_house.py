"""Every version can use what mt 0.1 wrote before its folders moved: a cache, scores and saved models.

tests/data/before-house holds what the old code wrote, the commands that it was asked (commands.json), what it printed
(outputs.json.xz) and what its saved models predicted (predictions.npz).  No file in it is ever made again.
"""

from __future__ import annotations

import hashlib
import json
import lzma
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

import mt
from mt.cli import group
from mt.fuse.fuser import REVISION as FUSE_REVISION
from mt.predict.request import PredictRequest
from mt.results.store import ScoreStore
from mt.terminal.progress import counted

KEPT = Path(__file__).parent / "data" / "before-house"
ABOUT = json.loads((KEPT / "commands.json").read_text())
OTHERS = [command for command in ABOUT["commands"] if command["kind"] in ("featurize", "predict")]
PREDICTIONS = json.loads((KEPT / "predictions.json").read_text())
PRINTED = json.loads(lzma.decompress((KEPT / "outputs.json.xz").read_bytes()))


def rows_of(command: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the JSON lines that the old code printed."""
    return [json.loads(line) for line in PRINTED[command["name"]].splitlines()]


def refitted(command: dict[str, Any]) -> bool:
    """Return whether a command asks for networks whose numbers have changed since: their revision is a new one."""
    scores = [row for row in rows_of(command) if "identity" in row]
    networks = [score for score in scores if score["method"].startswith(("dvme", "fine-tune"))]
    return any(score["versions"]["fuse"] != FUSE_REVISION for score in networks)


EVERY = [command for command in ABOUT["commands"] if command["kind"] == "scores"]
SCORED = [command for command in EVERY if not refitted(command)]
# What fits, and what decodes an image.
FITS = (
    "mt.probe.run.fit_probes",
    "mt.fuse.fuser.fit_probe",
    "mt.fuse.fuser.fit_dvme",
    "mt.fuse.end_to_end.tuner.Fitter.fit",
)
IMAGES = (
    "PIL.Image.open",
    "mt.datasets.images.ImageFiles.load",
    "mt.datasets.readers.synthetic.Patches.load",
    "mt.datasets.readers.digits.ImageRows.load",
)
# Numbers of fusion have changed since (revision 5): a new run fits again.  What it was is found as what it was.
REVISIONS = {"mt.fuse.fuser.REVISION": 4, "mt.fuse.end_to_end.tuner.FUSE_REVISION": 4}
CLOSE = 1e-5
# The values that may not change in a score, a comparison or an attention.  Intervals may: they have revisions.
STABLE = {
    "dataset",
    "test_dataset",
    "model",
    "method",
    "protocol",
    "solver",
    "select",
    "fraction",
    "shots",
    "seed",
    "metric",
    "value",
    "per_class",
    "n_labels",
    "n_test",
    "level",
    "by",
    "subgroup",
    "settings",
    "realised",
    "fingerprints",
    "fit",
    "comparison",
    "difference",
    "n_draws",
    "attention",
    "models",
    "overall",
    "classes",
    "followed",
}


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Return the folders that the commands name, in a copy that may be written to."""
    root = tmp_path_factory.mktemp("before") / "house"
    shutil.copytree(KEPT, root)
    for packed in root.rglob("*.xz"):
        packed.with_suffix("").write_bytes(lzma.decompress(packed.read_bytes()))
    return {
        "cache": str(root / "cache"),
        "scores": str(root / "scores.sqlite"),
        "save": str(root / "models"),
        "draws": str(root / "draws"),
        "images": str(root / "images"),
    }


def test_the_files_are_those_that_the_old_code_wrote() -> None:
    manifest = json.loads((KEPT / "manifest.json").read_text())
    found = {
        str(path.relative_to(KEPT)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in KEPT.rglob("*")
        if path.is_file() and path.name != "manifest.json"
    }
    assert found == manifest


@pytest.mark.parametrize("command", SCORED, ids=lambda command: str(command["name"]))
def test_every_command_is_answered_without_a_fit_or_an_image(
    command: dict[str, Any], places: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in (*FITS, *IMAGES):
        monkeypatch.setattr(name, refused(name))
    for name, revision in REVISIONS.items():
        monkeypatch.setattr(name, revision)
    stdout, stderr = run(command["args"], places)
    assert f"{counted(command['n_stored'], 'score')} from the store, 0 fitted" in stderr
    expected = rows_of(command)
    since = {"subgroup_difference", "drop", "overlap", "calibration"}  # rows that later code adds
    found = [row for row in map(json.loads, stdout.splitlines()) if not since & row.keys()]
    assert len(found) == len(expected)
    for one, other in zip(found, expected, strict=True):
        same({name: one.get(name) for name in STABLE & set(other)}, {name: other[name] for name in STABLE & set(other)})


@pytest.mark.parametrize("command", EVERY, ids=lambda command: str(command["name"]))
def test_every_row_is_still_read_with_its_predictions(command: dict[str, Any], places: dict[str, str]) -> None:
    scores = [row for row in rows_of(command) if "identity" in row]
    with ScoreStore(Path(places["scores"])) as store:
        for row in scores:
            kept = [score for score in store.scores_of([row["fit"]]) if score.identity == row["identity"]]
            assert [score.value for score in kept] == [row["value"]]
            fit = store.fit(row["fit"])
            assert len(fit.probabilities) == len(store.cases(fit.cases))


@pytest.mark.parametrize("command", OTHERS, ids=lambda command: str(command["name"]))
def test_features_are_found_and_models_predict_as_before(command: dict[str, Any], places: dict[str, str]) -> None:
    stdout, _ = run(command["args"], places)
    expected = PRINTED[command["name"]]
    for name, place in places.items():
        stdout = stdout.replace(place, "{" + name + "}")
    if command["kind"] == "featurize":
        rows = [json.loads(line) for line in stdout.splitlines()]
        assert all(row["cached"] for row in rows)
        for one, other in zip(rows, map(json.loads, expected.splitlines()), strict=True):
            same(one, other)
    else:
        for line, other in zip(stdout.splitlines(), expected.splitlines(), strict=True):
            for cell, kept in zip(line.split(","), other.split(","), strict=True):
                assert cell == kept or abs(float(cell) - float(kept)) <= CLOSE


@pytest.mark.parametrize("saved", PREDICTIONS, ids=lambda saved: str(saved["model"]))
def test_every_saved_model_predicts_as_before(saved: dict[str, Any], places: dict[str, str]) -> None:
    inputs, expected = (np.load(KEPT / f"{name}.npz") for name in ("inputs", "predictions"))
    model = Path(places["save"]) / saved["model"]
    if "images" in saved:
        images = [Path(places["images"]) / name for name in saved["images"]]
        found = mt.predict_images(PredictRequest(model, images=images, device="cpu")).probabilities
        close(found, expected[saved["predictions_of_images"]])
        request = PredictRequest(model, dataset=saved["dataset"], split=saved["split"], device="cpu")
        found = mt.predict_dataset(request).probabilities
    else:
        found = mt.load_model(model).predict_proba([inputs[key] for key in saved["inputs"]])
        if saved["format"] == "mt-probe":
            assert np.array_equal(mt.load_probe(model).predict_proba(inputs[saved["inputs"][0]]), found)
    close(found, expected[saved["predictions"]])


def run(arguments: list[str], places: dict[str, str]) -> tuple[str, str]:
    """Run a command on the copy; return what it printed to stdout and stderr."""
    result = CliRunner().invoke(group, [argument.format(**places) for argument in arguments], env={"COLUMNS": "200"})
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == 0, result.stderr
    return result.stdout, result.stderr


def same(found: Any, expected: Any) -> None:
    """Check that JSON holds all earlier entries, numbers within 1e-12; newer versions may add entries."""
    if isinstance(expected, dict):
        assert set(expected) <= set(found)
        for name in expected:
            same(found[name], expected[name])
    elif isinstance(expected, list):
        assert len(found) == len(expected)
        for one, other in zip(found, expected, strict=True):
            same(one, other)
    elif isinstance(expected, float):
        assert found == pytest.approx(expected, rel=1e-12, abs=1e-12)
    else:
        assert found == expected


def close(found: Any, expected: Any) -> None:
    assert found.shape == expected.shape
    np.testing.assert_allclose(found, expected, rtol=0, atol=CLOSE)


def refused(name: str) -> Any:
    """Return a stand-in for a function that must not be called."""

    def function(*_: Any, **__: Any) -> Any:
        raise AssertionError(f"{name} was called")

    return function
