"""A study file: its settings, its errors, its steps, and a second run that computes nothing."""

from __future__ import annotations

import json
import re
from functools import partial
from pathlib import Path
from typing import Any

import click
import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from mt.backbones.load import load_backbone
from mt.cache.feature_file.shards import Shard
from mt.cli import group
from mt.datasets import load_dataset
from mt.datasets.setting_options import dataset_settings
from mt.errors import CacheError, DatasetError, InputError, MtError
from mt.featurize.extraction import extract
from mt.featurize.request import Compute, FeaturizeRequest
from mt.fuse.end_to_end.request import FinetuneRequest
from mt.fuse.request import FuseRequest
from mt.fuse.rivals import rows_of
from mt.probe.request import Answers
from mt.report.cli import report
from mt.results.store import ScoreStore
from mt.study.cli import study as command
from mt.study.request import StudyRequest
from mt.study.run import load, steps
from mt.study.study_file import SHIPPED, DatasetTable, Draws, load_study, shipped
from tests.noting import noted

SOUND = "datasets = ['pcam']\nmodels = ['dino']"
SMALL = """
datasets = ["synthetic@60"]
models = ["efficientnet-lite0", "efficientnet-lite1"]
fractions = [0.5, 1.0]
seeds = 2
[featurize]
image_size = 32
[report]
out = "small.html"
"""


def written(folder: Path, text: str) -> Path:
    path = folder / "study.toml"
    path.write_text(text, encoding="utf-8")
    return path


def run(*args: str, cache: Path) -> Any:
    return CliRunner().invoke(command, [*args, "--cache-dir", str(cache)], catch_exceptions=False)


@pytest.mark.parametrize("name", SHIPPED)
def test_the_shipped_studies_are_sound(name: str, tmp_path: Path) -> None:
    study = load_study(written(tmp_path, shipped(name)))
    assert len(study.models) >= 3
    assert "dvme" in study.methods


def test_the_demo_fuses_at_all_its_budgets_with_all_four_methods(tmp_path: Path) -> None:
    study = load_study(written(tmp_path, shipped("demo")))
    assert study.fused == study.draws
    assert tuple(study.draws.fractions) == (0.01, 0.1, 1.0)
    assert set(rows_of(study.fusing)) == {"best-single", "average", "concat", "dvme"}


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("models = ['dino']", "'datasets' is missing: expected a list of names of datasets."),
        ("datasets = 'pcam'\nmodels = ['dino']", "datasets: expected a list of names of datasets, found 'pcam'."),
        ("datasets = []\nmodels = ['dino']", "datasets: expected a list of names of datasets, found []."),
        ("datasets = ['pcam']\nmodels = ['dinno']", "models, value 1: No backbone 'dinno'. Did you mean 'dino'?"),
        ("datasets = ['pcma']\nmodels = ['dino']", "datasets, value 1: No dataset 'pcma'. Did you mean 'pcam'?"),
        ("datasets = ['pcam']\nmodels = ['dino', 3]", "models, value 2: expected the name of a backbone, found 3."),
        (f"{SOUND}\nfractions = [1, 2]", "fractions, value 2: expected a number above 0"),
        (f"{SOUND}\nshots = [0]", "shots, value 1: expected a whole number of at least 1"),
        (f"{SOUND}\nseeds = true", "seeds: expected a whole number of at least 1, found True"),
        (f"{SOUND}\nmethod = ['probe']", "method: No key 'method'. Did you mean 'methods'?"),
        (f"{SOUND}\nmethods = ['dvm']", "methods, value 1: No method 'dvm'. Did you mean"),
        (f"{SOUND}\nmethods = ['dvme']", "models: expected at least two backbones for dvme"),
        (f"{SOUND}\nprotocols = ['x']", "protocols, value 1: No protocol 'x'."),
        (f"{SOUND}\n[fuse]\nseed = 1", "fuse.seed: No key 'seed'. Did you mean 'seeds'?"),
        (f"{SOUND}\n[fuse]\nfractions = [3]", "fuse.fractions, value 1: expected a number above 0"),
        (f"{SOUND}\nfuse = 1", "fuse: expected a table [fuse], found 1"),
        (f"{SOUND}\n[featurize]\nimage_size = 'big'", "featurize.image_size: expected a whole"),
        (f"{SOUND}\n[featurize]\nimage_size = 0", "image_size: expected a whole number of at least 1, found 0"),
        (f"{SOUND}\n[report]\nfile = 'x'", "report.file: No key 'file'."),
        (f"{SOUND}\n[report]\nout = 3", "report.out: expected a path in quotes, found 3"),
        (f"{SOUND}\npath = 'x'", "path: No key 'path'."),
        (f"{SOUND}\nmethods = []", "methods: expected a list of names of methods, found []"),
        (f"{SOUND}\ndata = 1", 'data: expected tables [data."NAME"], found 1'),
        (f"{SOUND}\n[data]\npcam = 1", "data.pcam: expected a table [data.pcam], found 1"),
        (f"{SOUND}\n[data.pcan]\nseed = 1", "data.pcan: No dataset 'pcan'. Did you mean 'pcam'?"),
        (f"{SOUND}\n[data.digits]\nseed = 1", "data: No dataset of this study 'digits'."),
        (f"{SOUND}\n[data.pcam]\ngroup_rgx = 1", "group_rgx: No key 'group_rgx'. Did you mean 'group_regex'?"),
        (f"{SOUND}\n[data.pcam]\ntask = 'binry'", "data.pcam.task: No task 'binry'. Did you mean 'binary'?"),
        (f"{SOUND}\n[data.pcam]\ndecoder = 'gpu'", 'data."pcam": --decoder gpu is not a choice: expected pillow'),
        (f"{SOUND}\n[data.pcam]\nblank = '2'", 'data."pcam": --blank 2 is not a choice: expected ignore, 0.'),
        (f"{SOUND}\n[data.pcam]\nintensity = 'x'", 'data."pcam": --intensity x is not a rule: expected auto,'),
        (f"{SOUND}\n[data.pcam]\ndownload = 1", "data.pcam.download: expected true or false, found 1"),
        ("datasets = [", "expected TOML, found an error in it"),
    ],
)
def test_an_error_names_file_key_and_what_was_expected(text: str, says: str, tmp_path: Path) -> None:
    path = written(tmp_path, text)
    with pytest.raises(InputError) as error:
        load_study(path)
    assert str(error.value).startswith(f"{path}: ")
    assert says in str(error.value)


def test_a_missing_file_says_how_to_get_one(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="mt study --paper"):
        load_study(tmp_path / "none.toml")


def test_fusing_uses_the_draws_of_the_probes_unless_it_has_its_own(tmp_path: Path) -> None:
    text = f"{SOUND}\nfractions = [0.1, 1.0]\nseeds = 4"
    study = load_study(written(tmp_path, text))
    assert study.fused == study.draws == Draws(fractions=(0.1, 1.0), seeds=4)
    assert study.draws.count == 5
    fewer = load_study(written(tmp_path, f"{text}\n[fuse]\nseeds = 1"))
    assert (fewer.draws, fewer.fused) == (study.draws, Draws(fractions=(0.1, 1.0), seeds=1))
    other = load_study(written(tmp_path, f"{text}\n[fuse]\nshots = [5]"))
    assert other.fused == Draws(shots=(5,), seeds=4)


def test_paths_are_relative_to_the_file(tmp_path: Path) -> None:
    study = load_study(written(tmp_path, "datasets = ['folder:photos']\nmodels = ['dino']"))
    assert study.datasets == (f"folder:{tmp_path / 'photos'}",)


def test_a_dataset_has_a_key_for_each_of_its_options() -> None:
    options = click.command()(dataset_settings(lambda: None)).params
    assert set(DatasetTable.model_fields) == {option.name for option in options}


def test_a_study_loads_each_backbone_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("one", "two"):
        for number in range(8):
            place = tmp_path / name / ("sick" if number % 2 else "well") / f"{number}.png"
            place.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (8, 8), (30 * number, 0, len(name) + number)).save(place)
    loaded: list[str] = []
    watched = noted(load_backbone, lambda model, *_, **__: loaded.append(model))
    monkeypatch.setattr("mt.featurize.loaded.load_backbone", watched)
    text = "datasets = ['folder:one', 'folder:two']\nmodels = ['efficientnet-lite0']\n[featurize]\nimage_size = 32"
    request = StudyRequest.of(load_study(written(tmp_path, text)), cache_dir=str(tmp_path / "cache"), device="cpu")
    done = [step.run().said for step in steps(request) if step.what.startswith("featurize")]
    assert len(done) == 2
    assert all("0 made now" not in said for said in done)
    assert loaded == ["efficientnet-lite0"]


def test_several_devices_or_a_cluster_featurize_and_one_device_fits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Any] = []

    def extracted(request: FeaturizeRequest, **_: Any) -> list[Any]:
        asked.append(request.compute)
        return []

    def answered(request: Any) -> Answers:
        asked.append(request)
        return Answers([], 0, 0, tmp_path)

    monkeypatch.setattr("mt.featurize.extraction.extract", extracted)
    monkeypatch.setattr("mt.probe.run.run_probe", answered)
    text = "datasets = ['digits']\nmodels = ['efficientnet-lite0']\nmethods = ['probe']"
    of = partial(StudyRequest.of, load_study(written(tmp_path, text)), cache_dir=str(tmp_path / "cache"))
    for request in (of(device="cpu,cpu"), of(engine="ray:gpu-01:6379")):
        for step in steps(request):
            step.run()
    several, fitted, ray, _ = asked
    assert (several.device, several.engine) == ("cpu,cpu", "local")
    assert fitted.device == "cpu"
    assert (ray.device, ray.engine) == ("auto", "ray:gpu-01:6379")


def test_a_datasets_own_settings_reach_it(tmp_path: Path) -> None:
    for patient in range(8):
        for label in ("sick", "well"):
            place = tmp_path / "ihc" / label / f"pt{patient}_{label}.png"
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(b"no image is opened")
    text = "datasets = ['folder:ihc']\nmodels = ['dino']\n[data.'folder:ihc']\ngroup_regex = 'pt(\\d+)'\nseed = 3"
    study = load_study(written(tmp_path, text))
    (name,) = study.datasets
    read = load(StudyRequest.of(study, cache_dir=str(tmp_path)), name)
    assert {group for split in read.splits.values() for group in split.groups or ()} == {f"{n}" for n in range(8)}
    assert read.settings.words() == ("--group-regex", r"pt(\d+)", "--seed", "3")
    assert study.settings_of(name).data_dir is None


def test_data_dir_is_that_of_the_study_unless_a_dataset_has_its_own(tmp_path: Path) -> None:
    named = "datasets = ['pcam', 'digits']\nmodels = ['dino']"
    text = f"{named}\n[featurize]\ndata_dir = 'a'\n[data.digits]\ndata_dir = 'b'"
    study = load_study(written(tmp_path, text))
    assert [study.settings_of(name).data_dir for name in study.datasets] == [str(tmp_path / "a"), str(tmp_path / "b")]


def test_the_paper_is_written_once(tmp_path: Path) -> None:
    path = tmp_path / "p.toml"
    assert run("--paper", str(path), cache=tmp_path / "cache").exit_code == 0
    assert set(load_study(path).datasets) == {"pcam", "aptos2019", "pneumonia", "nih-cxr14"}
    with pytest.raises(InputError, match="is there already"):
        run("--paper", str(path), cache=tmp_path / "cache")


def test_a_dry_run_says_how_large_it_is_and_does_nothing(tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    ran = run(str(written(tmp_path, SMALL + "\n")), "--dry-run", cache=cache)
    features, probes = ran.stdout.splitlines()
    assert features.startswith("featurize synthetic@60: 2 backbones x ")
    assert features.endswith("(0 of 2 backbones in the cache)")
    assert probes == "probe synthetic@60, default: 6 fits"
    assert not cache.exists()


@pytest.mark.parametrize(
    ("settings", "done"),
    [
        ("[featurize]\nimage_size = 32\n[data.'folder:ihc']\ngroup_regex = 'pt(.)'", 1),
        ("[featurize]\nimage_size = 64\n[data.'folder:ihc']\ngroup_regex = 'pt(.)'", 0),
        ("[data.'folder:ihc']\ngroup_regex = 'pt(.)'", 0),
        ("[featurize]\nimage_size = 32\n[data.'folder:ihc']\ngroup_regex = 'p(t.)'", 0),
        ("[featurize]\nimage_size = 32", 0),
    ],
)
def test_a_dry_run_counts_features_with_the_studys_own_settings(pictures: Path, settings: str, done: int) -> None:
    text = f"datasets = ['folder:ihc']\nmodels = ['efficientnet-lite0']\n{settings}"
    said = run(str(written(pictures, text)), "--dry-run", cache=pictures / "cache").stdout
    assert f"({done} of 1 backbone in the cache)" in said


def test_a_study_uses_and_shows_its_own_features_alone(pictures: Path) -> None:
    """Newer features of the same dataset, without groups and at another size, change nothing; nor do other scores."""
    asked = ["--model", "efficientnet-lite0", "--dataset", f"folder:{pictures / 'ihc'}", "--image-size", "40"]
    cache, scores = pictures / "cache", pictures / "cache" / "scores.sqlite"
    CliRunner().invoke(group, ["featurize", *asked, "--cache-dir", str(cache)], catch_exceptions=False)
    CliRunner().invoke(group, ["probe", "--shots", "3", "--cache-dir", str(cache)], catch_exceptions=False)
    settings = "[featurize]\nimage_size = 32\n[data.'folder:ihc']\ngroup_regex = 'pt(.)'"
    text = f"datasets = ['folder:ihc']\nmodels = ['efficientnet-lite0']\nshots = [2]\nseeds = 2\n{settings}"
    facts = json.loads(run(str(written(pictures, text)), "--json", cache=cache).stdout)
    assert facts["n_scores"] == 2
    with ScoreStore(scores) as store:
        own = [score for score in store.scores() if score.shots == 2]
        assert all(score.realised["n_groups"] for score in own)
        assert {score.shots for score in store.scores()} == {2, 3}
    assert "3 shots" not in (pictures / "report" / "scores.csv").read_text(encoding="utf-8")


def test_a_step_that_fails_is_missing_and_the_others_are_done(tmp_path: Path) -> None:
    text = SMALL.replace('"synthetic@60"]', '"pcam", "synthetic@60"]').replace(', "efficientnet-lite1"', "")
    ran = CliRunner().invoke(command, [str(written(tmp_path, text)), "--json", "--cache-dir", str(tmp_path / "cache")])
    assert isinstance(ran.exception, MtError)
    assert str(ran.exception).startswith("2 steps of the plan are missing, first: featurize pcam: ")
    facts = json.loads(ran.stdout)
    assert facts["n_scores"] == 3
    assert facts["missing"][1] == "probe pcam, default: not tried"
    assert "probe pcam, default: not tried" in Path(facts["page"]).read_text(encoding="utf-8")


def test_a_study_joins_complete_shards_and_refuses_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mt.featurize.run.BLOCK_ROWS", 8)
    model, cache = "efficientnet-lite0", tmp_path / "cache"
    text = SMALL.replace(', "efficientnet-lite1"', "")
    path = written(tmp_path, text)
    compute = Compute(device="cpu", batch_size=8)

    def featurized(number: int) -> None:
        shard = Shard(number, 2)
        extract(
            FeaturizeRequest(["synthetic@60"], [model], cache_dir=cache, image_size=32, compute=compute, shard=shard)
        )

    featurized(2)
    refused = CliRunner().invoke(command, [str(path), "--cache-dir", str(cache)])
    assert isinstance(refused.exception, CacheError)
    said = (
        " is being made in parts (to make it whole, remove them: mt cache remove): shard 1/2 is not there. Make it: mt"
    )
    assert said in str(refused.exception)
    assert not list(cache.rglob("*.h5"))
    featurized(1)
    shards = len(list(cache.rglob("*.shard")))
    dry = run(str(path), "--dry-run", cache=cache)
    assert f"0 of 1 backbone in the cache; {shards} shards, joined if complete" in dry.stdout
    done = run(str(path), cache=cache)
    made = len(list(cache.rglob("*.h5")))
    assert f"featurize synthetic@60: {made} feature files, 0 made now, {made} joined from shards" in done.stderr
    assert not list(cache.rglob("*.shard"))


def test_a_study_of_which_nothing_works_says_why(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="pcam"):
        run(str(written(tmp_path, "datasets = ['pcam']\nmodels = ['efficientnet-lite0']")), cache=tmp_path / "cache")


def test_images_that_cannot_be_read_stop_a_study_unless_it_skips_them(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    rows = ["image,label,patient"]
    for number in range(24):
        Image.fromarray(rng.integers(0, 255, (32, 32, 3), dtype=np.uint8)).save(tmp_path / f"{number}.png")
        rows.append(f"{number}.png,{'sick' if number % 2 else 'well'},p{number // 2}")
    (tmp_path / "0.png").write_bytes(b"no image")
    (tmp_path / "scans.csv").write_text("\n".join([*rows, "absent.png,sick,p20"]))
    text = "datasets = ['table:scans.csv']\nmodels = ['efficientnet-lite0']\nshots = [2]\nseeds = 1\n[featurize]\n"
    text += "image_size = 32\n"
    path, cache = written(tmp_path, text), tmp_path / "cache"
    with pytest.raises(DatasetError, match=r'1 of 25 .*absent\.png.* omit them: on_error = "skip" under \[featurize\]'):
        run(str(path), cache=cache)
    (tmp_path / "scans.csv").write_text("\n".join(rows))
    with pytest.raises(DatasetError, match=r'0\.png.*continue: on_error = "skip" under \[featurize\]'):
        run(str(path), cache=cache)
    (tmp_path / "scans.csv").write_text("\n".join([*rows, "absent.png,sick,p20"]))
    path.write_text(text + "on_error = 'skip'")
    done = run(str(path), cache=cache)
    assert (done.exit_code, list(cache.rglob("*.h5")) != []) == (0, True)
    assert "1 of 1 backbone in the cache" in run(str(path), "--dry-run", cache=cache).stdout
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "--on-error skip" in page  # of the command that makes the features again


def test_a_dataset_that_is_not_here_is_said_by_the_dry_run(tmp_path: Path) -> None:
    path = written(tmp_path, f"{SOUND}\n[featurize]\ndata_dir = 'nowhere'")
    assert "not here yet: " in run(str(path), "--dry-run", cache=tmp_path / "cache").stdout


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of nine patients' images, featurized at 32 pixels with groups."""
    folder = tmp_path_factory.mktemp("pictures")
    rng = np.random.default_rng(0)
    for patient in range(9):
        for number in range(6):
            place = folder / "ihc" / ("sick", "well")[number % 2] / f"pt{patient}_{number}.png"
            place.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(rng.integers(0, 255, (40, 40, 3), dtype=np.uint8)).save(place)
    dataset = load_dataset(f"folder:{folder / 'ihc'}", group_regex="pt(.)")
    extract(FeaturizeRequest([dataset], ["efficientnet-lite0"], cache_dir=folder / "cache", image_size=32))
    return folder


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Any]]:
    """A small real study, run twice."""
    folder = tmp_path_factory.mktemp("study")
    path = written(folder, SMALL)
    return folder, [run(str(path), "--json", cache=folder / "cache") for _ in range(2)]


def test_it_runs_what_is_missing_and_skips_what_is_stored(small: tuple[Path, list[Any]]) -> None:
    _, (first, second) = small
    assert "2 made now" not in second.stderr
    assert "6 fitted, 0 stored" in first.stderr
    assert "0 fitted, 6 stored" in second.stderr
    assert "[1/3] featurize synthetic@60" in first.stderr
    assert json.loads(first.stdout) == json.loads(second.stdout)


def test_it_ends_with_the_report_and_its_maps(small: tuple[Path, list[Any]], look: Any) -> None:
    folder, (first, _) = small
    page = look(Path(json.loads(first.stdout)["page"]))
    assert page.url.endswith("small.html")
    page.locator("#p0-map").scroll_into_view_if_needed()
    page.wait_for_selector("#p0-map canvas.marks")
    script = "JSON.parse(document.getElementById('charts').textContent)['p0-map'].tables.map"
    table = page.evaluate(script)
    n_test = len(set(table["case"]))
    assert len(table["x"]) == 2 * n_test
    assert all(len(name) == 8 for name in table["case"])
    assert {path.suffix for path in (folder / "small").iterdir()} == {".csv", ".tex", ".svg", ".png", ".json"}
    reproduce = page.locator("#provenance pre").inner_text()
    assert "--image-size 32" in reproduce


def test_ids_and_pictures_are_there_only_when_asked_for(small: tuple[Path, list[Any]], look: Any) -> None:
    folder, _ = small
    private = (folder / "small.html").read_text(encoding="utf-8")
    assert "data:image/jpeg" not in private
    scores, out = folder / "cache" / "scores.sqlite", folder / "open.html"
    args = ["--scores", str(scores), "--cache-dir", str(folder / "cache"), "--out", str(out)]
    CliRunner().invoke(report, [*args, "--show-ids", "--thumbnails"], catch_exceptions=False)
    page = look(out)
    table = page.evaluate("JSON.parse(document.getElementById('charts').textContent)['p0-map'].tables.map")
    with ScoreStore(scores) as store:
        ids = set(store.cases(store.fit(store.scores()[0].fit).cases).ids)
    assert set(table["case"]) <= ids
    assert not any(name in private for name in ids)
    assert all(picture.startswith("data:image/jpeg;base64,") for picture in table["image"])


def test_fine_tuning_trains_every_model_and_dvme_on_the_draws_of_fusing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[FuseRequest] = []

    def trained(request: FinetuneRequest) -> Answers:
        asked.append(request.cached)
        return Answers([], 2, 1, tmp_path / "scores.sqlite")

    monkeypatch.setattr("mt.fuse.end_to_end.run.run_unfrozen", trained)
    named = "datasets = ['digits']\nmodels = ['dino', 'swav']\nmethods = ['dvme', 'fine-tune']"
    text = f"{named}\n[fuse]\nshots = [3]\nseeds = 2"
    *_, step = steps(StudyRequest.of(load_study(written(tmp_path, text)), cache_dir=str(tmp_path)))
    assert (step.what, step.work) == ("fine-tune digits", 6)
    assert step.run().said == "6 fitted, 3 stored"
    assert [one.models for one in asked] == [("dino",), ("swav",), ("dino", "swav")]
    assert all((one.shots, one.seeds, one.datasets) == ((3,), 2, ["digits"]) for one in asked)


def test_a_dry_run_counts_test_folds(tmp_path: Path) -> None:
    text = SMALL.replace("seeds", "test_folds = 4\nrepeats = 3\nseeds", 1)
    assert "test_folds" in text
    said = run(str(written(tmp_path, text)), "--dry-run", cache=tmp_path / "cache").stdout
    plain = run(str(written(tmp_path, SMALL)), "--dry-run", cache=tmp_path / "cache").stdout
    folded, whole = (next(line for line in out.splitlines() if line.startswith("probe")) for out in (said, plain))
    count = int(whole.split(": ")[1].split()[0].replace(",", ""))
    assert f": {3 * count:,} fits, each of 4 models: 4-fold x 3 test folds" in folded


@pytest.mark.parametrize(
    ("keys", "says"),
    [
        ("repeats = 3", "repeats: 3 repeats of test folds need them: test_folds = 5."),
        ("test_folds = 1", "test_folds"),
        ('test_folds = 5\nmethods = ["probe", "fine-tune"]', "test_folds: fine-tune trains from images"),
    ],
)
def test_test_folds_that_cannot_be_are_refused(keys: str, says: str, tmp_path: Path) -> None:
    text = f'datasets = ["digits"]\nmodels = ["dino"]\n{keys}\n'
    with pytest.raises(InputError, match=says):
        load_study(written(tmp_path, text))


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("margin = 0.02", "margin and reference go together, and reference is missing."),
        ("reference = 'dino'", "margin and reference go together, and margin is missing."),
        ("margin = 0\nreference = 'dino'", "margin: expected a number above 0, in the metric's unit, found 0"),
        ("margin = 0.02\nreference = 'dinno'", "reference: No row 'dinno'. Did you mean 'dino'?"),
        ("threshold = 'middle'", "threshold: "),
        ("prevalence = 0.02", "prevalence: PPV and NPV need a threshold."),
        ("threshold = 'youden'\nprevalence = 2", "prevalence: expected a number between 0 and 1"),
        ("calibrate = 'plat'", "calibrate: No scaling 'plat'. Did you mean 'platt'?"),
        ("threshold = 'youden'\ntest_folds = 5", "threshold: with test_folds a score pools several fits."),
    ],
)
def test_margins_and_decisions_of_a_study_are_checked_before_anything_runs(
    tmp_path: Path, text: str, says: str
) -> None:
    with pytest.raises(InputError, match=re.escape(says)):
        load_study(written(tmp_path, f"{SOUND}\n{text}"))


def test_a_study_shows_what_its_margin_and_thresholds_decide(tmp_path: Path) -> None:
    asked = 'margin = 0.1\nreference = "efficientnet-lite0"\nthreshold = "youden"\ncalibrate = "platt"\n'
    head, mark, tail = SMALL.partition("[featurize]")
    shown = run(str(written(tmp_path, head + asked + mark + tail)), cache=tmp_path / "cache").output
    assert "Against efficientnet-lite0, margin 0.1" in shown
    assert "Gain of scaling" in shown
    assert "youden" in shown
    (page,) = (tmp_path / "cache").parent.rglob("*.html")
    report = page.read_text(encoding="utf-8")
    assert "<h3>Against efficientnet-lite0, margin 0.1</h3>" in report
    assert "<h3>At the threshold youden, " in report
