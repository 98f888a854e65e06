"""Files on disk reach a model of each library as its own PIL transform would deliver them: depth, grey, odd sizes."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from timm.data.config import resolve_data_config
from timm.data.transforms_factory import create_transform

from mt.backbones.load import load_backbone
from mt.datasets.image_file import decode
from mt.errors import InputError
from tests.backbones.test_preprocess import texture

Transform = Callable[[Image.Image], torch.Tensor]
SIDE = 32
KINDS = ("odd", "small", "tall", "grey", "16-bit", "16-bit grey", "exact")
TIMM: list[dict[str, Any]] = [
    {"crop_pct": 0.875, "interpolation": "bilinear"},
    {"crop_pct": 0.9, "interpolation": "bicubic"},
    {"crop_pct": 1.0, "interpolation": "bicubic", "crop_mode": "squash"},
    {"crop_pct": 0.95, "interpolation": "bilinear", "crop_mode": "squash"},
]
OPEN_CLIP: list[dict[str, Any]] = [
    {"resize_mode": "shortest", "interpolation": "bicubic"},
    {"resize_mode": "squash", "interpolation": "bilinear"},
    {"resize_mode": "squash", "interpolation": "bicubic", "mean": 0.5, "std": 0.25},
    {"resize_mode": "shortest", "interpolation": "random"},  # of training; open_clip evaluates with bicubic
]
HF: list[tuple[str, dict[str, Any]]] = [
    ("BitImageProcessor", {"size": {"shortest_edge": 37}, "crop_size": {"height": 32, "width": 32}}),
    ("CLIPImageProcessor", {"size": {"shortest_edge": 33}, "crop_size": {"height": 31, "width": 31}}),
    ("ViTImageProcessor", {"size": {"height": 32, "width": 32}, "resample": 3}),
    ("SiglipImageProcessor", {"size": {"height": 32, "width": 32}, "resample": 2}),
    ("ViTImageProcessor", {"size": {"height": 32, "width": 32}, "do_normalize": False}),
    ("ConvNextImageProcessor", {"size": {"shortest_edge": 32}, "crop_pct": 0.875}),
]


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, Image.Image]]:
    """Return each kind of file with the 8-bit RGB image that it means."""
    folder = tmp_path_factory.mktemp("files")
    sizes = {"odd": (61, 47), "small": (19, 23), "tall": (37, 151), "exact": (SIDE, SIDE)}
    meant = {kind: Image.fromarray(texture(*size, seed)) for seed, (kind, size) in enumerate(sizes.items())}
    stored: dict[str, Image.Image] = dict(meant)
    stored["grey"] = Image.fromarray(texture(53, 67, 7)).convert("L")
    meant["grey"] = stored["grey"].convert("RGB")
    deep = np.random.default_rng(8).integers(0, 65536, (59, 71), dtype=np.uint16)
    dark = np.random.default_rng(9).integers(900, 4096, (59, 71), dtype=np.uint16)  # 12 bits in 16
    for kind, samples in (("16-bit", deep), ("16-bit grey", dark)):
        stored[kind] = Image.fromarray(samples)
        meant[kind] = Image.fromarray(np.round(samples / 257).astype(np.uint8)).convert("RGB")
    paths = {kind: folder / f"{kind}.png" for kind in stored}
    for kind, path in paths.items():
        stored[kind].save(path)
    return {kind: (paths[kind], meant[kind]) for kind in KINDS}


def timm_door(folder: Path, recipe: dict[str, Any]) -> tuple[str, Transform]:
    folder.mkdir()
    said = {
        "input_size": [3, SIDE, SIDE],
        "mean": [0.4, 0.5, 0.6],
        "std": [0.2, 0.3, 0.25],
        "num_classes": 0,
        "first_conv": "patch_embed.proj",
        "classifier": "head",
        **recipe,
    }
    config = {"architecture": "test_vit", "num_classes": 0, "pretrained_cfg": said, "model_args": {"img_size": SIDE}}
    (folder / "config.json").write_text(json.dumps(config))
    data = resolve_data_config(pretrained_cfg=said)  # type: ignore[no-untyped-call]
    return f"timm:local-dir:{folder}", create_transform(**data, is_training=False)


def open_clip_door(folder: Path, recipe: dict[str, Any]) -> tuple[str, Transform]:
    open_clip = pytest.importorskip("open_clip")
    from tests.backbones.test_hub_openclip import VIT, written

    written(folder, VIT, **recipe)
    return f"open_clip:local-dir:{folder}", open_clip.create_model_and_transforms(f"local-dir:{folder}")[2]


def hf_door(folder: Path, recipe: tuple[str, dict[str, Any]]) -> tuple[str, Transform]:
    transformers = pytest.importorskip("transformers")
    from tests.backbones.test_hub_transformers import SMALL

    kind, options = recipe
    transformers.Dinov2Config(**SMALL).save_pretrained(folder)
    getattr(transformers, kind)(**options).save_pretrained(folder)
    pil = getattr(transformers, f"{kind}Pil").from_pretrained(folder)
    return f"hf:{folder}", lambda image: pil(image, return_tensors="pt")["pixel_values"][0].float()


DOORS = [(timm_door, one) for one in TIMM] + [(open_clip_door, one) for one in OPEN_CLIP] + [(hf_door, o) for o in HF]


@pytest.mark.parametrize(("door", "recipe"), DOORS, ids=[f"{door.__name__} {recipe}" for door, recipe in DOORS])
def test_a_file_is_prepared_as_its_library_does(
    door: Callable[[Path, Any], tuple[str, Transform]],
    recipe: Any,
    files: dict[str, tuple[Path, Image.Image]],
    tmp_path: Path,
) -> None:
    """Equal to the library's transform of the 8-bit image that the file means, within float32's rounding."""
    name, official = door(tmp_path / "model", recipe)
    preprocess = load_backbone(name, "random").preprocess
    for kind, (path, meant) in files.items():
        ours, expected = preprocess(decode(path)), official(meant)
        assert ours.shape == expected.shape, kind
        assert torch.allclose(ours, expected, rtol=0, atol=1e-5), kind


REFUSED = [
    (timm_door, {"crop_pct": 1.0, "interpolation": "lanczos"}, "lanczos"),
    (timm_door, {"crop_pct": 1.0, "interpolation": "bicubic", "crop_mode": "border"}, "cropped by 'border'"),
    (timm_door, {"crop_pct": 1.0, "interpolation": "bicubic", "input_size": [3, 32, 48]}, "of 32x48"),
    (timm_door, {"crop_pct": 1.0, "interpolation": "bicubic", "input_size": [1, 32, 32]}, "1 channels"),
    (open_clip_door, {"resize_mode": "longest"}, "resized by 'longest'"),
    (hf_door, ("BitImageProcessor", {**HF[0][1], "resample": 0}), "resample=0"),
    (hf_door, ("BitImageProcessor", {**HF[0][1], "do_center_crop": False}), "a crop of nothing"),
    (hf_door, ("ViTImageProcessor", {"size": {"height": 32, "width": 48}}), "32"),
    (hf_door, ("ViTImageProcessor", {**HF[2][1], "rescale_factor": 1 / 127.5}), "rescale_factor"),
]


@pytest.mark.parametrize(("door", "recipe", "said"), REFUSED, ids=[one[2] for one in REFUSED])
def test_what_preprocess_cannot_say_is_refused_by_name(
    door: Callable[[Path, Any], tuple[str, Transform]], recipe: Any, said: str, tmp_path: Path
) -> None:
    name = door(tmp_path / "model", recipe)[0]
    with pytest.raises(InputError, match=said) as raised:
        load_backbone(name, "random")
    assert "\n" not in str(raised.value)
    assert name in str(raised.value)
