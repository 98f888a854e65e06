"""`--trust-remote-code REPOSITORY`: a repository's code runs only if it is named, and is hashed and shown then."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from safetensors.torch import save_file

from mt.backbones.load import load_backbone, resolve_backbone
from mt.cache import Catalog
from mt.cache.content import ContentIndex
from mt.cli import group
from mt.errors import InputError, WeightsError
from mt.featurize import FeaturizeRequest, extract
from mt.predict.images import predict_images
from mt.predict.request import PredictRequest
from mt.report.origins import Origins, options_of
from mt.results.store import ScoreStore
from tests.backbones.test_hub_transformers import COMMIT, cached
from tests.probe.features import probed

pytest.importorskip("transformers")

CONFIGURATION = """
from transformers import PretrainedConfig

class OursConfig(PretrainedConfig):
    model_type = "ours"

    def __init__(self, width=6, **rest):
        self.width = width
        super().__init__(**rest)
"""
LAYERS = """
from torch import nn

def stem(width):
    return nn.Conv2d(3, width, 8, stride=8)
"""
MODEL = """
from transformers import PreTrainedModel
from transformers.modeling_outputs import BaseModelOutputWithPooling

from .configuration_ours import OursConfig
from .layers import stem

class OursModel(PreTrainedModel):
    config_class = OursConfig

    def __init__(self, config):
        super().__init__(config)
        self.stem = stem(config.width)
        self.post_init()

    def forward(self, pixel_values):
        tokens = self.stem(pixel_values).flatten(2).transpose(1, 2)
        return BaseModelOutputWithPooling(last_hidden_state=tokens, pooler_output=tokens.mean(1))
"""
PROCESSOR = {
    "image_processor_type": "ViTImageProcessor",
    "do_resize": True,
    "size": {"height": 32, "width": 32},
    "do_rescale": True,
    "rescale_factor": 1 / 255,
    "do_normalize": True,
    "image_mean": [0.5] * 3,
    "image_std": [0.5] * 3,
}
IMAGES = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))


@pytest.fixture(autouse=True, scope="module")
def modules(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keep the copies of code, which transformers imports as one package, in one folder of the tests'."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", str(tmp_path_factory.mktemp("modules")))
        yield


@pytest.fixture(autouse=True)
def offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))


def written(folder: Path, **auto_map: str) -> dict[str, torch.Tensor]:
    """Write a model with code of its own as its publisher lays it out, and return its weights."""
    folder.mkdir()
    config = {
        "model_type": "ours",
        "width": 6,
        "auto_map": {
            "AutoConfig": "configuration_ours.OursConfig",
            "AutoModel": "modeling_ours.OursModel",
            **auto_map,
        },
    }
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "preprocessor_config.json").write_text(json.dumps(PROCESSOR))
    (folder / "configuration_ours.py").write_text(CONFIGURATION)
    (folder / "modeling_ours.py").write_text(MODEL)
    (folder / "layers.py").write_text(LAYERS)
    generator = torch.Generator().manual_seed(1)
    weights = {
        "stem.weight": torch.randn(6, 3, 8, 8, generator=generator),
        "stem.bias": torch.randn(6, generator=generator),
    }
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    return weights


@pytest.mark.parametrize("hub", [False, True], ids=["folder", "hub"])
def test_named_code_runs_and_is_recorded(tmp_path: Path, hub: bool) -> None:
    folder = tmp_path / "model"
    weights = written(folder)
    name = "org/ours" if hub else str(folder)
    if hub:
        cached(folder, tmp_path / "hub", "org/ours")
    backbone = load_backbone(f"hf:{name}", trust_remote_code=[name])
    with torch.inference_mode():
        tokens = torch.nn.functional.conv2d(IMAGES, weights["stem.weight"], weights["stem.bias"], stride=8).flatten(2)
        assert torch.allclose(backbone.model(IMAGES), tokens.mean(2), rtol=0, atol=1e-5)
    origin = backbone.description["origin"]
    assert origin["remote_code"] == ["configuration_ours.py", "layers.py", "modeling_ours.py"]
    assert set(origin["remote_code"]) < set(origin["files"])
    assert (origin["repository"], origin["revision"]) == (("org/ours", COMMIT) if hub else (None, None))
    assert backbone.notes == (
        f"'hf:{name}' runs code of its repository: configuration_ours.py, layers.py, modeling_ours.py.",
    )
    assert str(tmp_path) not in json.dumps(backbone.description)


@pytest.mark.parametrize("trusted", [[], ["org/other"], ["org"]], ids=str)
@pytest.mark.parametrize("weights", [None, "random"])
def test_code_that_is_not_named_does_not_run(tmp_path: Path, trusted: list[str], weights: str | None) -> None:
    folder = tmp_path / "model"
    written(folder)
    for file in folder.glob("*.py"):
        file.write_text("raise SystemExit('ran')")
    cached(folder, tmp_path / "hub", "org/ours")
    with pytest.raises(WeightsError, match=r"needs code from its repository, which mt does not run unasked") as raised:
        load_backbone("hf:org/ours", weights, trust_remote_code=trusted)
    for part in ("https://huggingface.co/org/ours", "--trust-remote-code org/ours", "--model module:FILE.py:FUNCTION"):
        assert part in str(raised.value)
    assert "\n" not in str(raised.value)


def test_a_changed_module_is_another_backbone(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    written(folder)
    index = ContentIndex(tmp_path / "index.sqlite")
    before = load_backbone(f"hf:{folder}", index=index, trust_remote_code=[str(folder)])
    assert resolve_backbone(f"hf:{folder}", index=index) is not None
    (folder / "layers.py").write_text(LAYERS + "# changed\n")
    assert resolve_backbone(f"hf:{folder}", index=index) is None
    assert load_backbone(f"hf:{folder}", trust_remote_code=[str(folder)]).fingerprint != before.fingerprint


def test_code_of_another_repository_and_missing_code_are_refused(tmp_path: Path) -> None:
    written(tmp_path / "one", AutoModel="org/else--modeling.Model")
    with pytest.raises(WeightsError, match=r"needs code from another repository, 'org/else'"):
        load_backbone(f"hf:{tmp_path / 'one'}", trust_remote_code=[str(tmp_path / "one")])
    written(tmp_path / "two")
    (tmp_path / "two" / "layers.py").unlink()
    with pytest.raises(WeightsError, match=r"names code in layers\.py"):
        load_backbone(f"hf:{tmp_path / 'two'}", trust_remote_code=[str(tmp_path / "two")])


def test_preprocessing_by_code_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    written(folder)
    own = {"image_processor_type": "Ours", "auto_map": {"AutoImageProcessor": "processing_ours.Ours"}}
    (folder / "preprocessor_config.json").write_text(json.dumps(own))
    with pytest.raises(InputError, match="is preprocessed by code of its own"):
        load_backbone(f"hf:{folder}", trust_remote_code=[str(folder)])


def test_featurize_and_predict_take_the_flag(tmp_path: Path) -> None:
    """The command in the file names the repository; the report shows it, and a saved model asks for it again."""
    from PIL import Image

    folder, photos, cache = tmp_path / "model", tmp_path / "photos", tmp_path / "cache"
    written(folder)
    rng = np.random.default_rng(0)
    for number in range(24):
        path = photos / ("train", "test")[number // 16] / ("a", "b")[number % 2] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 128, (32, 32, 3), dtype=np.uint8) + np.uint8(100 * (number % 2))).save(path)
    name = f"hf:{folder}"
    words = ["featurize", "--model", name, "--dataset", f"folder:{photos}", "--cache-dir", str(cache)]
    with pytest.raises(InputError, match=r"--trust-remote-code org/slip: the request uses no model of it"):
        CliRunner().invoke(group, [*words, "--trust-remote-code", "org/slip"], catch_exceptions=False)
    with pytest.raises(WeightsError, match="--trust-remote-code"):
        CliRunner().invoke(group, words, catch_exceptions=False)
    ran = CliRunner().invoke(group, [*words, "--trust-remote-code", str(folder)], catch_exceptions=False)
    assert ran.exit_code == 0
    assert "runs code of its repository" in ran.stderr
    entry = Catalog(cache).entries()[0]
    assert options_of(entry.manifest["command"])["--trust-remote-code"] == str(folder)
    with ScoreStore(cache / "scores.sqlite") as store:
        origins, kept = Origins(store, Catalog(cache)), [{"file": entry.fingerprints["file"], "rows": 16}]
        shown = origins.facts({"train": kept, "test": kept})
    assert shown["other"] == f"--trust-remote-code {folder}"
    probed(cache, models=[name], fractions=[1.0], save=tmp_path / "saved")
    files = sorted((photos / "test").rglob("*.png"))
    with pytest.raises(WeightsError, match="--trust-remote-code"):
        predict_images(PredictRequest(tmp_path / "saved", files))
    found = predict_images(PredictRequest(tmp_path / "saved", files, trust_remote_code=[str(folder)]))
    assert found.probabilities.shape == (8, 2)


def test_python_takes_it_too(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="trust_remote_code takes a list"):
        FeaturizeRequest(["digits"], ["dino"], trust_remote_code="org/ours")
    request = FeaturizeRequest(["digits"], ["dino"], trust_remote_code=["org/ours"], cache_dir=tmp_path)
    with pytest.raises(InputError, match="It has no hf: model"):
        extract(request, index=ContentIndex(tmp_path / "index.sqlite"))
