"""`mt predict` with saved probes and DVMEs: from the cache bit for bit, from images within rounding."""

from __future__ import annotations

import csv
import io
import json
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

import mt.fuse
import mt.predict
from mt.backbones.load import load_backbone
from mt.errors import DatasetError, InputError
from mt.featurize import FeaturizeRequest, extract
from mt.fuse.request import FuseRequest
from mt.fuse.run import run_fuse
from mt.predict.cli import predict
from mt.predict.dataset import predict_dataset
from mt.predict.images import predict_images
from mt.predict.predicted import Predictions
from mt.predict.request import PredictRequest
from mt.results.store import ScoreStore
from tests.noting import noted
from tests.probe.features import probed

MODELS = ("efficientnet-lite0", "efficientnet-lite1")
Study = tuple[Path, dict[str, np.ndarray], Sequence[str]]  # its folder, test probabilities by model, test ids


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Study:
    """A folder of tiny images through two networks with random weights, fused at all labels, saved."""
    root = tmp_path_factory.mktemp("predict")
    rng = np.random.default_rng(0)
    for split, n in (("train", 12), ("test", 5)):
        for number, name in enumerate(("bright", "dark")):
            for i in range(n):
                path = root / "images" / split / name / f"{i}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(rng.integers(0, 120, (40, 40, 3), dtype=np.uint8) + np.uint8(120 * number)).save(path)
    dataset = f"folder:{root / 'images'}"
    extract(FeaturizeRequest([dataset], MODELS, cache_dir=root / "cache", weights=["random"], image_size=32))
    fused = run_fuse(FuseRequest(root / "cache", fractions=[1.0], save=root / "fused", everything=True))
    probed(root / "cache", models=MODELS[:1], fractions=[1.0], save=root / "probed", everything=True)
    with ScoreStore(fused.store) as store:
        found = {s.method: store.fit(s.fit) for s in fused.scores if s.method == "dvme" or s.model == MODELS[0]}
        ids = store.cases(found["dvme"].cases).ids
    return root, {"fused": found["dvme"].probabilities, "probed": found["probe"].probabilities}, ids


@pytest.mark.parametrize("folder", ["fused", "probed"])
def test_the_cache_gives_the_same_bits(study: Study, folder: str) -> None:
    root, kept, ids = study
    found = predict_dataset(PredictRequest(root / folder, dataset="folder:images", cache_dir=root / "cache"))
    assert found.ids == list(ids)
    np.testing.assert_array_equal(found.probabilities[:, 1], kept[folder])


@pytest.mark.parametrize("folder", ["fused", "probed"])
def test_images_give_the_same_within_rounding(study: Study, folder: str) -> None:
    root, kept, ids = study
    files = [
        root / "images" / "test" / Path(name).relative_to("test")
        if name.startswith("test")
        else root / "images" / "test" / name
        for name in ids
    ]
    found = predict_images(PredictRequest(root / folder, files))
    np.testing.assert_allclose(found.probabilities[:, 1], kept[folder], atol=1e-5)
    alone = predict_images(PredictRequest(root / folder, files[3:4]))
    np.testing.assert_allclose(alone.probabilities, found.probabilities[3:4], atol=1e-6)


def test_a_test_split_without_labels_is_featurized_and_predicted(
    study: Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root, kept, ids = study
    lines = [f"train/{name}/{i}.png,train,{name}" for name in ("bright", "dark") for i in range(12)]
    table = root / "images" / "public.csv"
    table.write_text("\n".join(["image,split,label", *lines, *[f"{name},test," for name in ids]]))
    found = predict_dataset(PredictRequest(root / "fused", dataset=f"table:{table}", cache_dir=tmp_path))
    assert found.ids == list(ids)
    np.testing.assert_allclose(found.probabilities[:, 1], kept["fused"], atol=1e-5)


def test_what_is_not_cached_is_featurized(study: Study, tmp_path: Path) -> None:
    root, kept, _ = study
    found = predict_dataset(PredictRequest(root / "fused", dataset=f"folder:{root / 'images'}", cache_dir=tmp_path))
    np.testing.assert_allclose(found.probabilities[:, 1], kept["fused"], atol=1e-5)
    assert list(tmp_path.rglob("*.h5"))


def test_several_devices_featurize_a_dataset_and_the_first_reads_images(
    study: Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    root, kept, _ = study
    asked: list[FeaturizeRequest] = []
    monkeypatch.setattr("mt.featurize.extract", noted(extract, lambda request, **_: asked.append(request)))
    dataset = PredictRequest(root / "probed", dataset=f"folder:{root / 'images'}", cache_dir=tmp_path, device="cpu,cpu")
    np.testing.assert_allclose(predict_dataset(dataset).probabilities[:, 1], kept["probed"], atol=1e-5)
    assert [one.compute.device for one in asked] == ["cpu,cpu"]
    image = sorted((root / "images" / "test").rglob("*.png"))[:1]
    assert len(predict_images(PredictRequest(root / "probed", image, device="cpu,cpu")).ids) == 1
    assert "mt predict on image files computes on one device, cpu" in capsys.readouterr().err
    with pytest.raises(InputError, match=r"--engine ray featurizes a dataset.*--dataset"):
        PredictRequest(root / "probed", image, engine="ray")


def test_each_backbone_is_loaded_once(study: Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root, _, _ = study
    loaded: list[str] = []
    watched = noted(load_backbone, lambda model, *_, **__: loaded.append(model))
    for name in ("mt.featurize.loaded.load_backbone", "mt.backbones.load_backbone"):
        monkeypatch.setattr(name, watched)
    predict_dataset(PredictRequest(root / "fused", dataset=f"folder:{root / 'images'}", cache_dir=tmp_path))
    assert sorted(loaded) == sorted(MODELS)


def test_a_probe_on_limited_features_names_its_backbone_and_predicts(study: Study, tmp_path: Path) -> None:
    root, _, _ = study
    dataset = f"folder:{root / 'images'}"
    extract(FeaturizeRequest([dataset], MODELS[:1], cache_dir=tmp_path, weights=["random"], image_size=32, limit=4))
    probed(tmp_path, fractions=[1.0], save=tmp_path / "probed", everything=True)
    found = predict_dataset(PredictRequest(tmp_path / "probed", dataset=dataset, cache_dir=tmp_path))
    assert len(found.ids) == 10
    image = sorted((root / "images" / "test").rglob("*.png"))[:1]
    assert len(predict_images(PredictRequest(tmp_path / "probed", image)).ids) == 1


def test_the_command_writes_csv_that_reads_back_exactly(study: Study, tmp_path: Path) -> None:
    root, kept, ids = study
    arguments = [str(root / "fused"), "--dataset", "folder:images", "--cache-dir", str(root / "cache")]
    shown = CliRunner().invoke(predict, arguments, catch_exceptions=False).stdout
    rows = list(csv.DictReader(io.StringIO(shown)))
    assert [row["id"] for row in rows] == list(ids)
    dark = np.array([row["dark"] for row in rows], dtype=np.float32)
    np.testing.assert_array_equal(dark, kept["fused"])
    assert [row["prediction"] for row in rows] == ["dark" if p > 0.5 else "bright" for p in dark]
    CliRunner().invoke(predict, [*arguments, "--out", str(tmp_path / "p.csv")], catch_exceptions=False)
    assert (tmp_path / "p.csv").read_text() == shown


@pytest.mark.parametrize("folder", ["fused", "probed"])
def test_other_backbones_are_refused(study: Study, tmp_path: Path, folder: str) -> None:
    root, _, _ = study
    (source,) = (root / folder).glob("*-dvme-*.json" if folder == "fused" else "*.json")
    shutil.copytree(root / folder, tmp_path / "model")
    text = source.read_text()
    about = json.loads(text)
    backbone = about["backbones"][0] if folder == "fused" else about["fingerprints"]["train"][0]
    found = backbone["fingerprint" if folder == "fused" else "backbone"]
    (tmp_path / "model" / source.name).write_text(text.replace(found, "0" * 64))
    words = rf"fitted on 'efficientnet-lite0' with fingerprint 0{{12}}, found {found[:12]}: .*--weights"
    with pytest.raises(InputError, match=words):
        predict_images(PredictRequest(tmp_path / "model", [root / "images" / "test"]))
    dataset, cache = f"folder:{root / 'images'}", tmp_path / "cache"
    with pytest.raises(InputError, match=words):
        predict_dataset(PredictRequest(tmp_path / "model", dataset=dataset, cache_dir=cache))
    assert not list(tmp_path.rglob("*.h5"))  # refused before anything is featurized


def test_a_folder_is_its_images_without_what_systems_leave_behind(study: Study, tmp_path: Path) -> None:
    root, _, _ = study
    (tmp_path / "more.png").mkdir()
    shutil.copy(root / "images" / "test" / "dark" / "0.png", tmp_path / "more.png" / "b.PNG")
    shutil.copy(root / "images" / "test" / "dark" / "1.png", tmp_path / "a.ppm")
    for litter in ("._a.png", "notes.txt"):
        (tmp_path / litter).write_bytes(b"no image")
    found = predict_images(PredictRequest(root / "probed", [tmp_path]))
    assert found.ids == [str(tmp_path / "a.ppm"), str(tmp_path / "more.png" / "b.PNG")]
    (tmp_path / "broken.png").write_bytes(b"no image")
    with pytest.raises(DatasetError, match=r"broken\.png"):
        predict_images(PredictRequest(root / "probed", [tmp_path]))


def test_output_is_renamed_into_place_and_its_folder_must_be_there(study: Study, tmp_path: Path) -> None:
    root, _, _ = study
    arguments = [str(root / "probed"), "--dataset", "folder:images", "--cache-dir", str(root / "cache"), "--out"]
    with pytest.raises(InputError, match="mkdir -p"):
        CliRunner().invoke(predict, [*arguments, str(tmp_path / "no" / "p.csv")], catch_exceptions=False)
    (tmp_path / "p.csv").write_text("old")
    CliRunner().invoke(predict, [*arguments, str(tmp_path / "p.csv")], catch_exceptions=False)
    assert (tmp_path / "p.csv").read_text().startswith("id,bright,dark,prediction")
    assert [path.name for path in tmp_path.iterdir()] == ["p.csv"]


def test_labels_of_a_multilabel_task_are_joined() -> None:
    p = np.array([[0.9, 0.6, 0.1], [0.1, 0.2, 0.3]], dtype=np.float32)
    assert Predictions(["a", "b"], p, ("x", "y", "z"), "multilabel").predicted == ["x;y", ""]
    assert Predictions(["a", "b"], p, ("x", "y", "z"), "multiclass").predicted == ["x", "z"]


def test_wrong_use_is_said_in_one_line(study: Study, tmp_path: Path) -> None:
    root, _, _ = study
    with pytest.raises(InputError, match="Not both"):
        CliRunner().invoke(predict, [str(root / "fused")], catch_exceptions=False)
    with pytest.raises(InputError, match="No file"):
        predict_images(PredictRequest(root / "fused", [tmp_path / "absent.png"]))
    with pytest.raises(InputError, match="No image in"):
        predict_images(PredictRequest(root / "fused", [tmp_path]))
    with pytest.raises(InputError, match="No saved model"):
        predict_images(PredictRequest(tmp_path, [tmp_path]))


def test_public_names() -> None:
    fusion = ["AverageProbe", "ConcatProbe", "DVME", "DVMEClassifier", "FuseRequest", "fit_dvme", "run_fuse"]
    assert mt.fuse.__all__ == fusion
    assert mt.predict.__all__ == ["PredictRequest", "load_model", "predict_dataset", "predict_images"]
    for name in mt.fuse.__all__:
        assert getattr(mt.fuse, name).__name__ == name


def test_unreadable_images_are_found_before_the_networks_run(
    study: Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root, *_ = study
    shutil.copytree(root / "images" / "test" / "dark", tmp_path / "new")
    (tmp_path / "new" / "1.png").write_bytes(b"no image")
    with monkeypatch.context() as patch:
        patch.setattr("mt.predict.images._embed", lambda *_: pytest.fail("embedded"))
        with pytest.raises(DatasetError, match=r"1\.png.* Omit such images: --on-error skip"):
            predict_images(PredictRequest(root / "probed", [tmp_path / "new"], weights="random"))
    found = predict_images(PredictRequest(root / "probed", [tmp_path / "new"], weights="random", on_error="skip"))
    out = io.StringIO()
    found.write_csv(out)
    rows = list(csv.DictReader(io.StringIO(out.getvalue())))
    assert [Path(row["id"]).name for row in rows] == [f"{n}.png" for n in range(5)]
    assert [bool(row["problem"]) for row in rows] == [False, True, False, False, False]
    assert rows[1]["prediction"] == rows[1]["dark"] == ""
    assert rows[2]["prediction"] in ("bright", "dark")


def broken_copy(root: Path, folder: Path) -> str:
    """Copy the test images as a dataset, one of them unreadable."""
    shutil.copytree(root / "images", folder)
    (folder / "test" / "dark" / "1.png").write_bytes(b"no image")
    return f"folder:{folder}"


def test_a_datasets_unreadable_images_have_an_empty_row_and_a_reason(
    study: Study, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root, *_ = study
    name = broken_copy(root, tmp_path / "images")
    asked = PredictRequest(root / "probed", dataset=name, cache_dir=tmp_path / "cache")
    with pytest.raises(DatasetError, match=r"1\.png.*--on-error skip"):
        predict_dataset(asked)
    for _ in range(2):  # featurized, then from the cache
        found = predict_dataset(replace(asked, on_error="skip"))
        out = io.StringIO()
        found.write_csv(out)
        rows = list(csv.DictReader(io.StringIO(out.getvalue())))
        assert len(rows) == 10
        (row,) = (row for row in rows if row["problem"])
        assert (row["id"].endswith("dark/1.png"), row["dark"], row["prediction"]) == (True, "", "")
        assert row["problem"] == "unreadable image"
        place = rows.index(row)
        assert [one["id"] for one in rows] == sorted(one["id"] for one in rows)
        assert rows[place + 1]["prediction"] == "dark"
    capsys.readouterr()
    assert len(predict_dataset(asked).ids) == 9
    assert "1 image has no features and no row here. To list them: --on-error skip" in capsys.readouterr().err


def test_cells_cannot_run_in_a_spreadsheet() -> None:
    found = Predictions(["=cmd()", "-1", "@x.png"], np.array([[1, 0]] * 3, np.float32), ("+a", "b"), "binary")
    out = io.StringIO()
    found.write_csv(out)
    rows = list(csv.reader(io.StringIO(out.getvalue())))
    assert rows[0] == ["id", "'+a", "b", "prediction"]
    assert [row[0] for row in rows[1:]] == ["'=cmd()", "-1", "'@x.png"]
    assert rows[1][-1] == "'+a"
