"""`mt fuse --unfreeze` from the command line: rows beside the cached methods, the store, saved networks, refusals."""

from __future__ import annotations

import errno
import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from click.testing import CliRunner, Result
from PIL import Image
from safetensors.torch import load_file

from mt.cli import main
from mt.datasets import DatasetSettings
from mt.errors import CacheError, DatasetError, InputError, LockedError
from mt.featurize import FeaturizeRequest, extract
from mt.featurize.request import Compute
from mt.fuse.cli import fuse
from mt.fuse.end_to_end.checkpoint import Checkpoint, Checkpoints
from mt.fuse.end_to_end.choice.held_out import held_out
from mt.fuse.end_to_end.choice.shares import Share
from mt.fuse.end_to_end.loop import Run
from mt.fuse.end_to_end.saved import load_tuned
from mt.fuse.end_to_end.tuner import Tuner, _said
from mt.predict.dataset import predict_dataset
from mt.predict.images import predict_images
from mt.predict.load import load_model
from mt.predict.request import PredictRequest
from mt.probe.scores.declared import declared
from mt.results.store import Fit, Score, ScoreStore
from mt.system.files import write_whole
from tests.fuse.end_to_end.small import DATASET, RESNET, VIT, blend_first

QUICK = ("--everything", "--device", "cpu", "--workers", "1", "--epochs", "1", "--lr", "1e-4", "--fixed")


def run(cache: Path, *arguments: str) -> str:
    return ran(cache, *arguments).stdout


def ran(cache: Path, *arguments: str) -> Result:
    command = ["--cache-dir", str(cache), "--unfreeze", *QUICK, *arguments]
    return CliRunner().invoke(fuse, command, catch_exceptions=False)


def write_pictures(
    folder: Path, counts: dict[str, int], classes: Sequence[str], made: Callable[[int], np.ndarray], *, names: str
) -> None:
    """Write SPLIT/CLASS/NAME for `counts` pictures per class; made: of a class number; names: of number and class."""
    for (split, n), (number, label) in product(counts.items(), enumerate(classes)):
        (folder / split / label).mkdir(parents=True)
        for i in range(n):
            Image.fromarray(made(number)).save(folder / split / label / names.format(i, number))


class Study(NamedTuple):
    """Two runs, with one model and with two: folder, output and scores of each, and the options of both."""

    folder: Path
    shown: dict[str, str]
    fits: dict[tuple[str, int], Fit]
    scores: list[Score]
    common: tuple[str, ...]


@pytest.fixture(scope="module")
def study(cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Study:
    """One model and two, two draws of half the labels, saved."""
    folder = tmp_path_factory.mktemp("study")
    common = ("--fraction", "0.5", "--seeds", "2", "--scores", str(folder / "scores.sqlite"), "--batch-size", "8")
    one = run(cache, "--model", RESNET, *common, "--save", str(folder / "one"))
    two = run(cache, "--model", RESNET, "--model", VIT, *common, "--save", str(folder / "two"))
    with ScoreStore(folder / "scores.sqlite") as store:
        fits = {(score.method, score.seed): store.fit(score.fit) for score in store.scores()}
        scores = store.scores()
    return Study(folder, {"one": one, "two": two}, fits, scores, common)


def test_one_model_is_reported_as_fine_tuning_and_several_as_unfrozen_dvme(study: Study) -> None:
    _, shown, _, scores, _ = study
    assert f"fine-tune: {RESNET}" in shown["one"]
    assert f"fine-tune: {RESNET} - {RESNET}" in shown["one"]  # paired with its probe
    both = f"{RESNET} + {VIT}"
    for row in ("best-single", "average", "concat", "dvme"):
        assert f"dvme, unfrozen: {both} - {row}: {both}" in shown["two"]
    assert "dvme, unfrozen, 50 %: network trained in " in shown["two"]
    assert {"fine-tune", "dvme, unfrozen", "dvme", "probe"} <= {score.method for score in scores}


def test_every_method_saw_the_same_draws_and_test_cases(study: Study) -> None:
    _, _, fits, _, _ = study
    for seed in (0, 1):
        drawn = [fit for (_, number), fit in fits.items() if number == seed]
        assert len({fit.cases for fit in drawn}) == 1
        assert all(np.array_equal(fit.rows, drawn[0].rows) for fit in drawn)


def test_what_was_trained_is_answered_from_the_store(cache: Path, study: Study) -> None:
    folder, _, _, scores, common = study
    again = ran(cache, "--model", RESNET, *common, "--json")
    rows = map(json.loads, again.stdout.splitlines())
    values = {row["identity"]: row["value"] for row in rows if "identity" in row}
    assert ", 0 fitted: " in again.stderr
    kept = {score.identity: score.value for score in scores}
    assert values
    assert values.items() <= kept.items()
    assert not list((folder / "checkpoints").glob("*/*"))


def test_what_a_run_left_that_was_killed_after_its_fit_was_stored_is_removed(cache: Path, study: Study) -> None:
    folder, _, fits, _, common = study
    left = Checkpoints(folder / "checkpoints" / fits["fine-tune", 0].identity[:16])
    left.write(Checkpoint({}, {}))
    others = Checkpoints(folder / "checkpoints" / "another")
    others.write(Checkpoint({}, {}))
    run(cache, "--model", RESNET, *common)
    assert not left.folder.exists()
    assert others.folder.exists()
    others.remove()


def test_a_saved_network_says_scores_and_precision_and_is_refused_where_its_preprocessing_changed(
    study: Study, tmp_path: Path
) -> None:
    folder, _, _, scores, _ = study
    (file,) = (folder / "two").glob("*-seed0-*.json")
    about = json.loads(file.read_text())
    (score,) = (one for one in scores if (one.method, one.seed) == ("dvme, unfrozen", 0))
    assert (about["scores"][0]["metric"], about["scores"][0]["value"]) == (score.metric, score.value)
    assert load_tuned(file).precision == "float32"
    about["settings"]["recipe"]["precision"] = "bfloat16"
    (tmp_path / "m.json").write_text(json.dumps(about))
    shutil.copy(file.with_suffix(".safetensors"), tmp_path / "m.safetensors")
    low, full = (predict_dataset(PredictRequest(path, dataset=DATASET)).probabilities for path in (tmp_path, file))
    assert 0 < np.abs(low - full).max() < 0.1
    about["backbones"][0]["description"]["preprocessing"]["mean"] = [0.1, 0.1, 0.1]
    (tmp_path / "m.json").write_text(json.dumps(about))
    with pytest.raises(InputError, match=f"fitted on '{RESNET}' with preprocessing .* Predict with the mt"):
        load_tuned(tmp_path)
    (tmp_path / "m.json").write_text(json.dumps(about | {"head": {"kind": "dvme"}}))
    with pytest.raises(InputError):
        load_tuned(tmp_path)
    (tmp_path / "m.json").write_text(json.dumps(about | {"format_version": 99}))
    with pytest.raises(InputError, match="Install a newer mt"):
        load_tuned(tmp_path)


@pytest.mark.parametrize(("which", "method"), [("one", "fine-tune"), ("two", "dvme, unfrozen")])
def test_saved_networks_predict_what_was_scored_and_loading_runs_no_code(study: Study, which: str, method: str) -> None:
    folder, _, fits, _, _ = study
    (about,) = (path for path in (folder / which).glob("*.json") if json.loads(path.read_text())["seed"] == 1)
    found = predict_dataset(PredictRequest(about, dataset=DATASET))
    np.testing.assert_allclose(found.probabilities[:, 1], fits[method, 1].probabilities, atol=1e-6)
    assert {path.suffix for path in (folder / which).iterdir()} == {".json", ".safetensors"}
    own = [name for name in load_file(about.with_suffix(".safetensors")) if name.startswith("own.")]
    assert (json.loads(about.read_text())["format_version"], len(own)) == ((2, 0) if which == "one" else (4, 4))
    with pytest.raises(InputError, match="reads images: mt predict"):
        load_model(about)
    copy = folder / "copy"
    copy.mkdir(exist_ok=True)
    shutil.copy(about, copy / "m.json")
    (copy / "m.safetensors").write_bytes(b"other")
    with pytest.raises(InputError, match="does not belong to"):
        load_tuned(copy)


def test_a_mixed_network_is_saved_with_its_start_and_predicts_what_was_scored(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mt.fuse.end_to_end.choice.fit.choose_share", lambda *_: Share(0.25, 1.5, {"0.25": 0.5}, 0.7))
    command = [
        "--cache-dir",
        str(cache),
        "--unfreeze-last",
        "1",
        "--everything",
        "--device",
        "cpu",
        "--workers",
        "1",
        "--epochs",
        "1",
        "--model",
        RESNET,
        "--fraction",
        "1",
        "--scores",
        str(tmp_path / "scores.sqlite"),
        "--save",
        str(tmp_path / "model"),
    ]
    shown = CliRunner().invoke(fuse, command, catch_exceptions=False)
    assert (
        "temperature of its held-out rows, 1.50: held-out log loss 0.700 -> 0.500 (means over 1 draw)" in shown.stdout
    )
    assert "share of the trained networks 0.25: 2 on all labels\n" in shown.stderr
    (file,) = (tmp_path / "model").glob("*.json")
    about = json.loads(file.read_text())
    assert (about["format_version"], about["share"], about["temperature"]) == (6, 0.25, 1.5)
    names = list(load_file(file.with_suffix(".safetensors")))
    assert {"start.head.linear.weight", "trained.0.head.linear.weight", "head.linear.weight"} <= set(names)
    frozen = [name for name in names if "backbones.0.conv1" in name or "layer1" in name]
    assert not any(name.startswith(("start.", "trained.")) for name in frozen)  # what was frozen is kept once
    with ScoreStore(tmp_path / "scores.sqlite") as store:
        fit = store.fit(about["fit"])
    found = predict_dataset(PredictRequest(file, dataset=DATASET))
    np.testing.assert_allclose(found.probabilities[:, 1], fit.probabilities, atol=1e-6)
    model = load_tuned(file)
    assert (len(model.network.parts), model.network.share, model.network.temperature) == (3, 0.25, 1.5)
    assert fit.outcome["cost"]["images"] > fit.outcome["cost"]["images_choosing"] > 0


@pytest.mark.parametrize(
    ("share", "trained", "trials", "said"),
    [
        (0.0, 0, 0, "share of the trained networks 0: every training failed, so the start is kept"),
        (0.5, 2, 0, "share of the trained networks 0.5: 2 on all labels"),
        (1.0, 2, 4, "share of the trained networks 1: 2 on all labels, and 4 of trials, which together count as one"),
        (1.0, 1, 0, "share of the trained networks 1: 1 on all labels (1 failed and has no part)"),
    ],
)
def test_which_networks_predict_is_said(share: float, trained: int, trials: int, said: str) -> None:
    settings = {"lr": [[1e-3], [3e-4]], "share": share, "trained": trained, "trials": trials, "epochs": 40}
    assert _said(settings) == said
    kept = "share of the trained networks 0: the start is kept"
    assert _said({"lr": None, "share": 0.0, "epochs": 0}) == kept  # a budget of one class, or nothing gained


def test_folders_of_images_are_trained_on_and_predicted(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    cache, images = tmp_path / "cache", tmp_path / "images"

    def made(number: int) -> np.ndarray:
        return rng.integers(0, 120, (40, 40, 3), dtype=np.uint8) + np.uint8(120 * (1 - number))

    write_pictures(images, {"train": 12, "test": 4}, ("bright", "dark"), made, names="{}.png")
    extract(FeaturizeRequest([f"folder:{images}"], [RESNET], cache_dir=cache, weights=["random"], image_size=32))
    shown = ran(cache, "--model", RESNET, "--fraction", "1", "--epochs", "60", "--save", str(tmp_path / "model"))
    assert "training does not mirror any" in " ".join(shown.stderr.split())
    found = predict_images(PredictRequest(tmp_path / "model", [images / "test"]))
    with pytest.raises(InputError, match=r"--weights is for models on features.* Remove --weights"):
        predict_images(PredictRequest(tmp_path / "model", [images / "test"], weights="random"))
    assert found.predicted == ["bright"] * 4 + ["dark"] * 4
    shutil.copytree(images, tmp_path / "new")
    (tmp_path / "new" / "test" / "dark" / "1.png").write_bytes(b"no image")
    asked = PredictRequest(tmp_path / "model", dataset=f"folder:{tmp_path / 'new'}")
    with pytest.raises(DatasetError, match=r"1 of 8 images cannot be read, first .*1\.png.*--on-error skip"):
        predict_dataset(asked)
    found = predict_dataset(replace(asked, on_error="skip"))
    assert (len(found.ids), list(found.problems or {})) == (8, ["test/dark/1.png"])
    assert found.predicted == ["bright"] * 4 + ["dark"] * 3
    shutil.copytree(images, tmp_path / "as-it-was")
    for part in ("test", "train"):
        for path in (images / part).rglob("*.png"):
            Image.fromarray(np.asarray(Image.open(path))[::-1, :, ::-1] // 2 + np.uint8(rng.integers(0, 99))).save(path)
        with pytest.raises(InputError, match="are not those that the 'timm:test_resnet' features were made from"):
            run(cache, "--model", RESNET, "--shots", "3")
        shutil.copytree(tmp_path / "as-it-was", images, dirs_exist_ok=True)
    shutil.rmtree(images)
    with pytest.raises(DatasetError, match="images"):
        run(cache, "--model", RESNET, "--shots", "3")


def test_other_datasets_are_decoded_as_the_one_trained_on_and_need_not_be_named_like_it(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    data, cache, images = f"folder:{tmp_path / 'images'}", tmp_path / "cache", tmp_path / "images"

    def made(number: int) -> np.ndarray:
        return np.uint16(256) * (rng.integers(0, 120, (40, 40), dtype=np.uint16) + np.uint16(120 * (1 - number)))

    write_pictures(images, {"train": 4, "test": 2}, ("bright", "dark"), made, names="p{}_{}.png")
    settings = DatasetSettings(group_regex=r"(p\d+)_", intensity="minmax")
    extract(FeaturizeRequest([data], [RESNET], cache_dir=cache, weights=["random"], image_size=32, settings=settings))
    run(cache, "--model", RESNET, "--fraction", "1", "--save", str(tmp_path / "model"))
    for path in sorted(images.rglob("*.png")):
        to = tmp_path / "other" / path.relative_to(images).with_name(f"{path.stem.replace('_', '-')}.png")
        to.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, to)
    own, other, patches = (
        predict_dataset(PredictRequest(tmp_path / "model", dataset=name))
        for name in (data, f"folder:{tmp_path / 'other'}", DATASET)
    )
    np.testing.assert_array_equal(own.probabilities, other.probabilities)
    assert len(patches.ids) == 20


def test_a_primary_metric_is_declared_and_scored_and_what_is_not_chosen_is_refused(cache: Path, tmp_path: Path) -> None:
    common = ("--fraction", "0.5", "--seeds", "1")
    for number, models in enumerate([(RESNET,), (RESNET, VIT)]):
        named, scores = [word for name in models for word in ("--model", name)], tmp_path / f"{number}.sqlite"
        asked = (*named, *common, "--scores", str(scores), "--primary")
        with pytest.raises(InputError, match="10 %"):
            run(cache, *asked, "accuracy@10%")
        assert not scores.exists()
        run(cache, *asked, "log_loss@50%")
        with ScoreStore(scores) as store:
            declaration = declared(DATASET, store)
            assert declaration is not None
            assert (str(declaration.primary), declaration.n_before) == ("log_loss at 50 %", 0)
            metrics = {score.metric for score in store.scores() if score.protocol == "end-to-end"}
        assert metrics == {"log_loss"}
    for option, value in (("--prevalence", "0.1"), ("--test-folds", "5"), ("--repeats", "2")):
        with pytest.raises(InputError, match=option):
            run(cache, *common, option, value)


def test_images_that_are_not_those_of_the_features_are_refused_wherever_they_stand(tmp_path: Path) -> None:
    """The last image of a split's last class: another, then damaged, then absent, but there in a copy."""
    cache, images, copy = tmp_path / "cache", tmp_path / "images", tmp_path / "copies" / "images"
    rng = np.random.default_rng(0)

    def made(_: int) -> np.ndarray:
        return rng.integers(0, 250, (32, 32, 3), dtype=np.uint8)

    write_pictures(images, {"train": 8, "test": 8}, ("a", "b"), made, names="{}.png")
    extract(FeaturizeRequest([f"folder:{images}"], [RESNET], cache_dir=cache, weights=["random"], image_size=32))
    shutil.copytree(images, copy)
    asked = ("--model", RESNET, "--shots", "2", "--seeds", "1")
    for split in ("train", "test"):
        last, other = (images / split / name / "7.png" for name in ("b", "a"))
        for content in (other.read_bytes(), last.read_bytes()[:50]):
            last.write_bytes(content)
            with pytest.raises(
                InputError, match=rf"1 of 16 images in .* first '{split}/b/7.png'. Put their files back"
            ):
                run(cache, *asked)
        last.unlink()
        with pytest.raises(InputError, match=rf"1 of 16 cases .* first '{split}/b/7.png'. Put their files back"):
            run(cache, *asked)
        run(cache, *asked, "--data-dir", str(copy.parent), "--scores", str(tmp_path / f"{split}.sqlite"))
        shutil.copy(copy / split / "b" / "7.png", last)


def test_a_moved_folder_is_found_below_data_dir_and_the_line_says_where_it_was_looked_for(tmp_path: Path) -> None:
    write_pictures(
        tmp_path / "images",
        {"train": 6, "test": 3},
        "ab",
        lambda n: np.full((32, 32, 3), 90 * n, np.uint8),
        names="{}.png",
    )
    data, cache, new = f"folder:{tmp_path / 'images'}", tmp_path / "cache", tmp_path / "new"
    extract(FeaturizeRequest([data], [RESNET], cache_dir=cache, weights=["random"], image_size=32))
    new.mkdir()
    (tmp_path / "images").rename(new / "images")
    asked = ("--model", RESNET, "--fraction", "1", "--save", str(tmp_path / "saved"))
    with pytest.raises(
        DatasetError, match=r"images are not at .*images. Name the folder that holds 'images': --data-dir"
    ):
        run(cache, *asked)
    with pytest.raises(DatasetError, match=r"not at .*, nor at /nowhere/images\. Name the folder"):
        run(cache, *asked, "--data-dir", "/nowhere")
    run(cache, *asked, "--data-dir", str(new))
    found = predict_dataset(PredictRequest(tmp_path / "saved", dataset=data, data_dir=new))
    assert len(found.ids) == 6


def test_several_labels_that_are_known_in_part_are_chosen_trained_saved_and_predicted(tmp_path: Path) -> None:
    rng, lines = np.random.default_rng(0), ["image,A,B,C,split"]
    (tmp_path / "images").mkdir()
    for i in range(80):
        labels = rng.integers(0, 2, 3)
        pixels = (60 + 100 * labels + rng.integers(0, 60, (32, 32, 3))).astype(np.uint8)  # a channel per label
        Image.fromarray(pixels).save(tmp_path / "images" / f"{i}.png")
        known = ["" if i % 4 == 0 and i % 3 == k else str(label) for k, label in enumerate(labels)]
        lines.append(",".join([f"{i}.png", *known, "train" if i < 60 else "test"]))
    (tmp_path / "images" / "l.csv").write_text("\n".join(lines))
    data, cache = f"table:{tmp_path / 'images' / 'l.csv'}", tmp_path / "cache"
    settings = DatasetSettings(task="multilabel", label_columns=("A", "B", "C"), blank="ignore")
    asked = FeaturizeRequest([data], [RESNET], cache_dir=cache, weights=["random"], image_size=32, settings=settings)
    extract(asked)
    command = [
        "--cache-dir",
        str(cache),
        "--everything",
        "--unfreeze",
        "--epochs",
        "30",
        "--fraction",
        "1",
        "--workers",
        "1",
    ]
    command += ["--device", "cpu", "--model", RESNET, "--save", str(tmp_path / "saved")]
    done = CliRunner().invoke(fuse, command, catch_exceptions=False)
    assert done.exit_code == 0
    (file,) = (tmp_path / "saved").glob("*.json")
    about = json.loads(file.read_text())
    (scores,) = cache.rglob("scores.sqlite")
    with ScoreStore(scores) as store:
        fit = store.fit(about["fit"])
        (tuned,) = (one.value for one in store.scores() if one.method == "fine-tune")
    assert fit.outcome["selection"]["shares"]
    assert fit.probabilities.shape == (20, 3)
    assert tuned > 0.8
    found = predict_dataset(PredictRequest(file, dataset=data))
    np.testing.assert_allclose(found.probabilities, fit.probabilities, atol=1e-6)


def test_features_in_bfloat16_are_those_of_their_images(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    counts = {"train": 6, "test": 3}
    write_pictures(
        tmp_path / "images", counts, "ab", lambda _: rng.integers(0, 255, (32, 32, 3), np.uint8), names="{}.png"
    )
    data, cache = f"folder:{tmp_path / 'images'}", tmp_path / "cache"
    lite = "efficientnet-lite0"
    extract(
        FeaturizeRequest(
            [data], [lite], cache_dir=cache, image_size=32, compute=Compute(device="cpu", precision="bfloat16")
        )
    )
    assert "2 fitted" in ran(cache, "--model", lite, "--fraction", "1").stderr


def test_one_model_at_two_image_sizes_is_one_line(cache: Path, tmp_path: Path) -> None:
    for size in (32, 48):
        extract(FeaturizeRequest(["synthetic@40"], [RESNET], cache_dir=tmp_path, weights=["random"], image_size=size))
    with pytest.raises(InputError, match="--everything finds 2 features of 'timm:test_resnet' on 'synthetic@40'"):
        run(tmp_path, "--model", RESNET, "--fraction", "1")


def test_settings_that_would_change_nothing_are_refused(cache: Path, tmp_path: Path) -> None:
    for model, option, said in (
        (RESNET, ("--unfreeze-last", "5"), "has 4 blocks after its stem"),
        (VIT, ("--lora", "65"), "have at most rank 64"),
        (VIT, ("--train-batch-norm",), "there are no batch norms in 'timm:test_vit'"),
        (VIT, ("--train-batch-norm", "--unfreeze-last", "1"), "no batch norms in the last 1 block of 'timm:test_vit'"),
        (VIT, ("--train-batch-norm", "--lora", "2"), "--lora trains adapters, and no batch norm"),
    ):
        with pytest.raises(InputError, match=said):
            run(cache, "--model", model, "--shots", "2", *option)
    both = ("--model", RESNET, "--model", VIT, "--train-batch-norm")  # those of the one learn
    run(cache, *both, "--shots", "2", "--seeds", "1", "--scores", str(tmp_path / "scores.sqlite"))


def test_what_cannot_be_saved_is_said_before_training_and_costs_no_fit_after_it(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    scores, saved = tmp_path / "scores.sqlite", tmp_path / "model"
    asked = ("--model", RESNET, "--shots", "2", "--seeds", "1", "--scores", str(scores), "--save")
    with pytest.raises(CacheError, match=r"Cannot write .*file/x: Not a directory. Choose another folder: --save DIR"):
        run(cache, *asked, str(tmp_path / "file" / "x"))
    assert not scores.exists()

    def full(path: Path, content: bytes) -> None:
        if saved in path.parents:
            raise OSError(errno.ENOSPC, "No space left on device")
        write_whole(path, content)

    monkeypatch.setattr("mt.results.model_files.files.write_whole", full)
    with pytest.raises(CacheError, match=r"free\. Free some space or choose another --save"):
        run(cache, *asked, str(saved))
    monkeypatch.undo()
    again = ran(cache, *asked, str(saved))
    assert "1 fit is made again to save the networks" in again.stderr
    (about,) = saved.glob("*.json")
    assert ", 0 fitted: " in ran(cache, *asked, str(saved)).stderr
    about.with_suffix(".safetensors").write_bytes(b"")
    again = ran(cache, *asked, str(saved))
    assert "1 fit is made again" in again.stderr
    assert "predicts otherwise" not in again.stderr
    predict = Tuner._predict

    def other(*arguments: Any) -> tuple[np.ndarray, np.ndarray]:
        p, received = predict(*arguments)
        return np.float32(0.9) * p, received

    monkeypatch.setattr(Tuner, "_predict", other)
    about.with_suffix(".safetensors").write_bytes(b"")
    said = " ".join(ran(cache, *asked, str(saved)).stderr.split())
    assert "predicts otherwise than the one whose scores are stored (by up to 0.0" in said


def test_a_draw_of_one_class_has_no_network_to_make_again(tmp_path: Path) -> None:
    for split, counts in (("train", (30, 2)), ("test", (4, 4))):
        for name, n in zip("ab", counts, strict=True):
            write_pictures(
                tmp_path / "images", {split: n}, (name,), lambda _: np.zeros((32, 32, 3), np.uint8), names="{}.png"
            )
    data, cache = f"folder:{tmp_path / 'images'}", tmp_path / "cache"
    extract(FeaturizeRequest([data], [RESNET], cache_dir=cache, weights=["random"], image_size=32))
    asked = (
        "--model",
        RESNET,
        "--draw",
        "random",
        "--fraction",
        "0.1",
        "--seeds",
        "1",
        "--save",
        str(tmp_path / "saved"),
    )
    assert "no network to save: this draw has one class" in ran(cache, *asked).stderr
    again = ran(cache, *asked).stderr
    assert "made again" not in again
    assert ", 0 fitted: " in again


def test_a_fit_is_locked_until_it_is_stored(cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, predict, refused = tmp_path / "checkpoints", Tuner._predict, list[str]()

    def beside(*arguments: Any) -> Any:
        (checkpoints,) = (path for path in folder.iterdir() if path.is_dir())
        with pytest.raises(LockedError) as error, Checkpoints(checkpoints).alone():
            pass
        refused.append(str(error.value))
        return predict(*arguments)

    monkeypatch.setattr(Tuner, "_predict", beside)
    asked = ("--model", RESNET, "--shots", "2", "--seeds", "1", "--scores", str(tmp_path / "scores.sqlite"))
    run(cache, *asked, "--checkpoints", str(folder))
    assert len(refused) == 1
    assert not [path for path in folder.iterdir() if path.is_dir()]


def test_ctrl_c_says_what_is_stored_and_the_same_command_goes_on(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    scores = tmp_path / "scores.sqlite"
    command = ["fuse", "--cache-dir", str(cache), "--unfreeze", *QUICK, "--model", RESNET, "--fraction", "0.5"]
    command += ["--fraction", "1", "--seeds", "1", "--scores", str(scores)]
    finished, trained = Run._finish_step, set[int]()

    def interrupted(self: Run, *arguments: Any) -> None:
        finished(self, *arguments)
        trained.add(len(self.part.rows))
        if len(trained) == 2:  # the second budget's
            raise KeyboardInterrupt

    monkeypatch.setattr(Run, "_finish_step", interrupted)
    with pytest.raises(SystemExit) as stopped:
        main(command)
    monkeypatch.undo()
    assert stopped.value.code == 130
    assert capsys.readouterr().err.splitlines()[-1] == (
        "Stopped: 1 of 2 trainings are stored; the one in progress resumes from its last checkpoint. "
        "Run the same command again."
    )
    with pytest.raises(SystemExit, match="0"):
        main(command)
    assert "3 scores from the store, 1 fitted" in capsys.readouterr().err


@pytest.mark.parametrize("share", [0.0, 0.5])
def test_a_network_that_began_beside_blend_is_saved_with_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, share: float
) -> None:
    monkeypatch.setattr("mt.fuse.dvme.selection.beside_blend", blend_first)
    monkeypatch.setattr("mt.fuse.end_to_end.choice.planning.held_out", lambda *a, **names: held_out(*a, **names)[:1])
    monkeypatch.setattr("mt.fuse.end_to_end.choice.fit.choose_share", lambda *_: Share(share, 1.0, {"0": 9.0}))
    rng = np.random.default_rng(0)

    def made(number: int) -> np.ndarray:
        image = rng.integers(0, 250, (40, 40, 3)) // (1 + np.array([0, 1, number == 1]) * number)
        return np.asarray(image, dtype=np.uint8)

    write_pictures(tmp_path / "images", {"train": 8, "test": 3}, ("bright", "dark", "red"), made, names="{}.png")
    data, cache = f"folder:{tmp_path / 'images'}", tmp_path / "cache"
    extract(FeaturizeRequest([data], [RESNET, VIT], cache_dir=cache, weights=["random"], image_size=32))
    command = ["--cache-dir", str(cache), "--unfreeze", "--epochs", "1", "--lr", "1e-4", "--fraction", "1"]
    command += ["--everything", "--device", "cpu", "--workers", "1", "--model", RESNET, "--model", VIT]
    command += ["--method", "dvme", "--save", str(tmp_path / "model")]
    CliRunner().invoke(fuse, command, catch_exceptions=False)
    (file,) = (one for one in (tmp_path / "model").glob("*.json") if "unfrozen" in one.name)
    about = json.loads(file.read_text())
    assert (about["format_version"], about["share"], about["blend_beside"]) == (5 if share else 3, share, 0.0)
    names = load_file(file.with_suffix(".safetensors"))
    assert any(name.startswith("trial.0.") for name in names) == (share > 0)
    assert len(load_tuned(file).network.trials) == (share > 0)
    (scores,) = cache.rglob("scores.sqlite")
    with ScoreStore(scores) as store:
        fit = store.fit(about["fit"])
        (row,) = {one.fit for one in store.scores() if one.method == "dvme"}
        expected = store.fit(row).probabilities
    found = predict_dataset(PredictRequest(file, dataset=data))
    np.testing.assert_allclose(found.probabilities, fit.probabilities, atol=1e-6)
    assert np.allclose(fit.probabilities, expected, atol=1e-4) == (share == 0)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--epochs", "3"), "--epochs is for end-to-end training: add --unfreeze"),
        (("--unfreeze", "--ablations"), "Remove --ablations, or --unfreeze"),
        (("--unfreeze", "--device", "cuda:77"), "No device 'cuda:77' here"),
        (("--unfreeze", "--lr", "0"), "--lr takes finite numbers above 0"),
        (("--unfreeze", "--repeats", "2"), "--repeats repeats test folds, which --unfreeze does not take"),
        (("--unfreeze", "--train-batch-norm", "--batch-size", "2"), "one may hold a single image. Take at least 3"),
        (("--unfreeze", "--lr", "nan"), "--lr takes finite numbers above 0, got nan"),
        (("--unfreeze", "--lr", "inf"), "--lr takes finite numbers above 0, got inf"),
        (("--unfreeze", "--lr", "0.001", "--lr", "1e-3"), "--lr 0.001 is given twice. Name each rate once"),
        (("--unfreeze-last", "0"), "--unfreeze-last takes a number of at least 1"),
        (("--unfreeze", "--lora", "0"), "--lora takes a number of at least 1"),
        (("--unfreeze", "--train-batch-norm", "--accumulate", "2"), "--train-batch-norm does not go with --accumulate"),
        (("--lora", "4"), "--lora is for end-to-end training: add --unfreeze"),
        (("--unfreeze", "--label-smoothing", "1"), "--label-smoothing must be at least 0 and below 1"),
        (("--unfreeze", "--batch-size", "0"), "--batch-size takes a number of at least 1"),
        (("--unfreeze", "--dropout", "1"), "--dropout must be at least 0 and below 1"),
        (("--unfreeze", "--model", RESNET, "--model", RESNET), "is named twice"),
        (("--unfreeze", "--model", RESNET, "--method", "dvme"), "--method requires at least two --model options"),
        (("--model", RESNET), r"One model is a probe: .* to fine-tune it: --unfreeze"),
    ],
)
def test_wrong_use_is_said_in_one_line(cache: Path, arguments: str, words: str) -> None:
    with pytest.raises(InputError, match=words) as caught:
        CliRunner().invoke(fuse, ["--cache-dir", str(cache), "--everything", *arguments], catch_exceptions=False)
    assert "\n" not in str(caught.value)


def test_a_diverging_run_ends_with_one_line_and_status_1(
    cache: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = [
        "fuse",
        "--unfreeze",
        "--model",
        RESNET,
        "--fraction",
        "1",
        "--everything",
        "--fixed",
        "--lr",
        "1e30",
        "--cache-dir",
        str(cache),
        "--scores",
        str(tmp_path / "s"),
        "--batch-size",
        "8",
        "--workers",
        "1",
        "--checkpoint-every",
        "1",
        "--device",
        "cpu",
    ]
    with pytest.raises(SystemExit) as stopped:
        main(command)
    assert stopped.value.code == 1
    last = capsys.readouterr().err.strip().splitlines()[-1]
    assert last.startswith("Error: The loss is not a number at epoch 1")
    assert str(tmp_path / "checkpoints") in last


def test_several_devices_train_under_torchrun(cache: Path) -> None:
    with pytest.raises(InputError, match="torchrun --nproc-per-node 2 -m mt fuse --unfreeze"):
        run(cache, "--model", RESNET, "--device", "cpu,cpu")
