"""`hf:`: models of transformers from a folder and from the hub's cache compute what the library computes."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from mt.backbones.hubs.image_processor import preprocess_of_processor
from mt.backbones.load import load_backbone, resolve_backbone
from mt.cache.content import ContentIndex
from mt.errors import InputError, WeightsError

transformers = pytest.importorskip("transformers")

SMALL = {"hidden_size": 16, "num_hidden_layers": 4, "num_attention_heads": 2, "image_size": 32, "patch_size": 8}
WIDE = {**SMALL, "intermediate_size": 32}
TEXT = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "vocab_size": 32}
COMMIT = "0123456789abcdef0123456789abcdef01234567"
IMAGES = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
TO_32 = {"size": {"shortest_edge": 36}, "crop_size": {"height": 32, "width": 32}}


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)


def built(kind: str) -> tuple[Any, Any]:
    """Return a tiny network of a kind and its image processor."""
    t = transformers
    torch.manual_seed(0)
    bit, square = t.BitImageProcessor(**TO_32), {"size": {"height": 32, "width": 32}}
    if kind == "dinov2":
        return t.Dinov2Model(t.Dinov2Config(**SMALL)), bit
    if kind == "registers":
        return t.Dinov2WithRegistersModel(t.Dinov2WithRegistersConfig(**SMALL, num_register_tokens=3)), bit
    if kind == "clip":
        config = t.CLIPConfig(text_config=TEXT, vision_config=WIDE)
        return t.CLIPModel(config), t.CLIPImageProcessor(**TO_32)
    if kind == "siglip":
        config = t.SiglipConfig(text_config=TEXT, vision_config=WIDE)
        return t.SiglipModel(config), t.SiglipImageProcessor(**square)
    if kind == "resnet":
        config = t.ResNetConfig(embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1])
        return t.ResNetModel(config), t.ConvNextImageProcessor(size={"shortest_edge": 32})
    return t.ViTModel(t.ViTConfig(**WIDE), add_pooling_layer=kind == "vit"), t.ViTImageProcessor(**square)


KINDS = ("dinov2", "registers", "vit", "vit without a pooler", "clip", "siglip", "resnet")


def written(folder: Path, kind: str) -> tuple[Any, Path]:
    """Write a network as transformers does, and return it with the folder."""
    network, processor = built(kind)
    network.eval().save_pretrained(folder)
    processor.save_pretrained(folder)
    return getattr(network, "vision_model", network), folder


def cached(folder: Path, home: Path, repository: str) -> None:
    """Lay a folder out as the hub's client keeps a repository."""
    base = home / f"models--{repository.replace('/', '--')}"
    shutil.copytree(folder, base / "snapshots" / COMMIT)
    (base / "refs").mkdir()
    (base / "refs" / "main").write_text(COMMIT)


def expected(network: Any) -> dict[str, torch.Tensor]:
    """Return what the library gives by each rule that fits."""
    with torch.no_grad():
        output = network(pixel_values=IMAGES, output_hidden_states=True)
    found, tokens = {}, output.last_hidden_state
    if getattr(output, "pooler_output", None) is not None:
        found["pooled"] = output.pooler_output.flatten(1)
    if tokens.dim() == 4:
        return found
    kind = network.config.model_type
    if kind.startswith("clip"):
        with torch.no_grad():
            tokens = network.post_layernorm(tokens)
    prefix = tokens.shape[1] - 16
    found["mean"] = tokens[:, prefix:].mean(1)
    if prefix:
        found |= {"cls": tokens[:, 0], "cls+mean": torch.cat((tokens[:, 0], found["mean"]), 1)}
    return found


@pytest.mark.parametrize("kind", KINDS)
def test_every_rule_gives_what_the_library_gives(tmp_path: Path, kind: str) -> None:
    network, folder = written(tmp_path / "model", kind)
    for rule, embedding in expected(network).items():
        backbone = load_backbone(f"hf:{folder}:{rule}")
        with torch.inference_mode():
            assert torch.allclose(backbone.model(IMAGES), embedding, rtol=0, atol=1e-5), rule
        assert backbone.dim == embedding.shape[1]


@pytest.mark.parametrize("kind", ["dinov2", "vit", "clip"])
def test_cls4_is_the_last_four_blocks_through_the_norm(tmp_path: Path, kind: str) -> None:
    network, folder = written(tmp_path / "model", kind)
    norm = network.post_layernorm if kind == "clip" else network.layernorm
    blocks: list[torch.Tensor] = []
    layers = network.encoder.layers if kind == "clip" else getattr(network, "layers", None) or network.encoder.layer
    for layer in layers:
        layer.register_forward_hook(lambda _m, _i, out: blocks.append(out[0] if isinstance(out, tuple) else out))
    with torch.inference_mode():
        network(pixel_values=IMAGES)
        official = torch.cat([norm(block)[:, 0] for block in blocks], 1)
        assert torch.allclose(load_backbone(f"hf:{folder}:cls4").model(IMAGES), official, rtol=0, atol=1e-5)


def test_a_pooler_that_was_not_published_is_not_made_up(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    folder = written(tmp_path / "model", "vit without a pooler")[1]
    capfd.readouterr()
    with pytest.raises(InputError, match=r"no pooled features; rules that fit: cls, mean, cls\+mean, cls4"):
        load_backbone(f"hf:{folder}")
    assert load_backbone(f"hf:{folder}:cls").fingerprint == load_backbone(f"hf:{folder}:cls").fingerprint
    assert capfd.readouterr() == ("", ""), "transformers reports and draws bars"


def test_the_hubs_cache_serves_without_a_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    network, folder = written(tmp_path / "model", "dinov2")
    cached(folder, tmp_path / "hub", "org/tiny")
    backbone = load_backbone("hf:org/tiny")
    with torch.inference_mode():
        assert torch.allclose(backbone.model(IMAGES), expected(network)["pooled"], rtol=0, atol=1e-5)
    origin = backbone.description["origin"]
    assert (origin["repository"], origin["revision"]) == ("org/tiny", COMMIT)
    assert set(origin["files"]) == {"config.json", "model.safetensors", "preprocessor_config.json"}
    assert load_backbone(f"hf:org/tiny@{COMMIT}").fingerprint == backbone.fingerprint
    assert str(tmp_path) not in json.dumps(backbone.description)


@pytest.mark.parametrize("form", ["shards", "pickle", "both"])
def test_weights_are_read_in_every_form_and_safetensors_first(tmp_path: Path, form: str) -> None:
    network, folder = written(tmp_path / "model", "dinov2")
    whole = folder / "model.safetensors"
    if form == "shards":
        whole.unlink()
        network.save_pretrained(folder, max_shard_size="10KB")
    if form != "shards":
        state = network.state_dict() if form == "pickle" else {"a": torch.ones(1)}
        torch.save(state, folder / "pytorch_model.bin")
    if form == "pickle":
        whole.unlink()
    backbone = load_backbone(f"hf:{folder}")
    with torch.inference_mode():
        assert torch.allclose(backbone.model(IMAGES), expected(network)["pooled"], rtol=0, atol=1e-5)
    read = [name for name in backbone.description["origin"]["files"] if name.startswith(("model", "pytorch"))]
    assert len(read) > 2 if form == "shards" else read == {"pickle": ["pytorch_model.bin"]}.get(form, [whole.name])


class Trap:
    """An object whose unpickling would run code."""

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return exec, ("raise SystemExit('ran')",)


def test_a_pickle_that_would_run_code_is_refused_in_one_line(tmp_path: Path) -> None:
    folder = written(tmp_path / "model", "dinov2")[1]
    (folder / "model.safetensors").unlink()
    torch.save({"weights": Trap()}, folder / "pytorch_model.bin")
    with pytest.raises(WeightsError) as raised:
        load_backbone(f"hf:{folder}")
    assert "\n" not in str(raised.value)


def test_weights_of_another_size_are_refused_by_name(tmp_path: Path) -> None:
    folder = written(tmp_path / "model", "dinov2")[1]
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "num_hidden_layers": 5}))
    with pytest.raises(WeightsError, match=r"do not fit its config\.json: encoder\.layer\.4"):
        load_backbone(f"hf:{folder}")
    (folder / "config.json").write_text(json.dumps({**config, "hidden_size": 32}))
    with pytest.raises(WeightsError) as raised:
        load_backbone(f"hf:{folder}")
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("kind", ["dinov2", "vit", "clip", "siglip"])
def test_another_image_size_resamples_as_the_library_does(tmp_path: Path, kind: str) -> None:
    network, folder = written(tmp_path / "model", kind)
    images = torch.randn(1, 3, 48, 48, generator=torch.Generator().manual_seed(0))
    how = {} if kind == "dinov2" else {"interpolate_pos_encoding": True}
    with torch.inference_mode():
        official = network(pixel_values=images, **how).pooler_output
        assert torch.allclose(load_backbone(f"hf:{folder}", image_size=48).model(images), official, rtol=0, atol=1e-5)


def test_random_and_given_weights_fill_the_network(tmp_path: Path) -> None:
    network, folder = written(tmp_path / "model", "dinov2")
    state = {f"backbone.{name}": value for name, value in network.state_dict().items()}
    torch.save({"teacher": state}, tmp_path / "w.pth")
    given, own = load_backbone(f"hf:{folder}", tmp_path / "w.pth"), load_backbone(f"hf:{folder}")
    assert given.description["weights"] == own.description["weights"]
    assert load_backbone(f"hf:{folder}", "random").description["weights"] != own.description["weights"]


def test_what_the_cache_lacks_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(WeightsError, match=r"config\.json of https://huggingface\.co/org/none: HF_HUB_OFFLINE is set"):
        load_backbone("hf:org/none")


@pytest.mark.parametrize("kind", ["GatedRepoError", "RepositoryNotFoundError"])
def test_gates_are_answered_in_one_line(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import errors

    def refused(*_: object, **__: object) -> str:
        error = getattr(errors, kind)
        raise error.__new__(error, "403")

    monkeypatch.setattr("huggingface_hub.hf_hub_download", refused)
    with pytest.raises(WeightsError, match="HF_TOKEN") as raised:
        load_backbone("hf:org/gated")
    assert "https://huggingface.co/org/gated" in str(raised.value)
    assert ("accept its terms" in str(raised.value)) == (kind == "GatedRepoError")


def test_another_librarys_form_is_told(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"architecture": "test_vit"}))
    with pytest.raises(WeightsError, match=f"--model timm:local-dir:{tmp_path}"):
        load_backbone(f"hf:{tmp_path}", "random")


@pytest.mark.parametrize("hub", [False, True])
@pytest.mark.parametrize("form", ["transformers", "open_clip"])
def test_timm_names_the_loader_of_another_form(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, hub: bool, form: str
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    folder = tmp_path / "model"
    folder.mkdir()
    name = {"transformers": "config.json", "open_clip": "open_clip_config.json"}[form]
    (folder / name).write_text(json.dumps({"model_type": "vit"}))
    cached(folder, tmp_path / "hub", "org/other")
    place = "hf-hub:org/other" if hub else f"local-dir:{folder}"
    loader = f"open_clip:{place}" if form == "open_clip" else f"hf:{place.partition(':')[2]}"
    with pytest.raises(WeightsError, match=f"not in timm's form. Use --model {loader}") as raised:
        load_backbone(f"timm:{place}")
    assert "\n" not in str(raised.value)


def test_an_open_clip_repository_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "open_clip_config.json").write_text("{}")
    cached(tmp_path / "model", tmp_path / "hub", "org/clip")
    with pytest.raises(WeightsError, match="is in open_clip's form: --model open_clip:hf-hub:org/clip"):
        load_backbone("hf:org/clip")


def test_a_changed_file_is_loaded_again(tmp_path: Path) -> None:
    folder = written(tmp_path / "model", "dinov2")[1]
    index = ContentIndex(tmp_path / "index.sqlite")
    backbone = load_backbone(f"hf:{folder}", index=index)
    known = resolve_backbone(f"hf:{folder}", index=index)
    assert known is not None
    assert known.fingerprint == backbone.fingerprint
    processor = folder / "preprocessor_config.json"
    processor.write_text(processor.read_text().replace("36", "40"))
    assert resolve_backbone(f"hf:{folder}", index=index) is None


PROCESSORS: list[tuple[str, dict[str, Any]]] = [
    ("BitImageProcessor", {"size": {"shortest_edge": 37}, "crop_size": {"height": 32, "width": 32}}),
    ("CLIPImageProcessor", {"size": {"shortest_edge": 32}, "crop_size": {"height": 32, "width": 32}}),
    ("ViTImageProcessor", {"size": {"height": 33, "width": 33}, "resample": 3}),
    ("ConvNextImageProcessor", {"size": {"shortest_edge": 33}}),
    ("ConvNextImageProcessor", {"size": {"shortest_edge": 384}}),
]


@pytest.mark.parametrize(("kind", "options"), PROCESSORS, ids=[f"{k}-{o['size']}" for k, o in PROCESSORS])
@pytest.mark.parametrize("size", [(64, 64), (61, 40), (37, 90)])
@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_preprocessing_equals_the_published_processor(
    kind: str, options: dict[str, Any], size: tuple[int, int], mode: str
) -> None:
    processor = getattr(transformers, f"{kind}Pil")(**options)
    channels = () if mode == "L" else (3,)
    pixels = np.random.default_rng(0).integers(0, 256, (size[1], size[0], *channels), dtype=np.uint8)
    image = Image.fromarray(pixels)
    published = processor(image.convert("RGB"), return_tensors="pt")["pixel_values"][0]
    ours = preprocess_of_processor(processor, "it")(image)
    assert ours.shape == published.shape
    assert torch.allclose(ours, published.float(), rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"resample": 1}, "resample=1"),
        ({"rescale_factor": 1 / 127.5}, "rescale_factor=0.00784314"),
        ({"do_resize": False}, "do_resize=False"),
        ({"do_center_crop": False}, "a crop of nothing"),
        ({"do_pad": True}, "do_pad=True"),
        ({"crop_size": {"height": 16, "width": 32}}, "a crop of"),
    ],
)
def test_what_preprocess_cannot_say_is_refused_by_name(options: dict[str, Any], said: str) -> None:
    processor = transformers.BitImageProcessorPil(**{**TO_32, **options})
    with pytest.raises(InputError, match=said):
        preprocess_of_processor(processor, "it")
