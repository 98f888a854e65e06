"""Foundation models by name: each entry's network has the width that the entry says, and its gate is stated."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from click.testing import CliRunner
from safetensors.torch import save_file
from timm.layers.mlp import SwiGLUPacked

from mt.backbones.embeddings import RULES
from mt.backbones.entries.foundation import FOUNDATION
from mt.backbones.entries.spec import DOMAINS
from mt.backbones.load import REGISTRY, load_backbone, resolve_backbone
from mt.backbones.registry import find_spec
from mt.cache.content import ContentIndex
from mt.cli import group
from mt.errors import InputError, WeightsError


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return an empty cache of the hub, without a network and without a token."""
    home = tmp_path / "home"
    monkeypatch.setenv("HF_HOME", str(home))
    for name in ("HF_TOKEN", "HF_HUB_CACHE", "HF_TOKEN_PATH", "HUGGINGFACE_HUB_CACHE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(home / "hub"))
    return home / "hub"


@pytest.mark.parametrize("name", FOUNDATION)
def test_every_entry_says_where_its_facts_are_from(name: str) -> None:
    spec = FOUNDATION[name]
    assert spec.source.startswith("https://")
    assert spec.licence
    assert spec.domain in DOMAINS
    assert spec.embedding in RULES or spec.weights is not None
    assert name not in REGISTRY
    assert find_spec(name) is spec
    rule = "pooled" if spec.network == "resnet50" else "mean"
    assert find_spec(f"{name}:{rule}").embedding == rule


@pytest.mark.parametrize("name", [name for name, spec in FOUNDATION.items() if spec.repository])
def test_without_a_network_one_line_says_what_is_missing(name: str, hub: Path) -> None:
    with pytest.raises(WeightsError) as raised:
        load_backbone(name)
    said = str(raised.value)
    assert "\n" not in said
    assert str(FOUNDATION[name].repository) in said
    assert "HF_HOME" in said
    assert not FOUNDATION[name].gated or "HF_TOKEN" in said


def test_keywords_build_the_network_that_the_weights_are_of(hub: Path) -> None:
    """A tiny Virchow: packed SwiGLU with SiLU, tokens out, class token and mean patch token beside each other."""
    folder = hub / "models--paige-ai--Virchow" / "snapshots" / "0123456789abcdef0123456789abcdef01234567"
    folder.mkdir(parents=True)
    (folder.parent.parent / "refs").mkdir()
    (folder.parent.parent / "refs" / "main").write_text(folder.name)
    arguments: dict[str, Any] = {"init_values": 1e-5, "global_pool": "", "img_size": 32}
    swiglu: dict[str, Any] = {"mlp_layer": SwiGLUPacked, "act_layer": torch.nn.SiLU}
    network = timm.create_model("test_vit", num_classes=0, **arguments, **swiglu).eval()
    save_file(network.state_dict(), folder / "model.safetensors")
    recipe = {
        "input_size": [3, 32, 32],
        "interpolation": "bicubic",
        "crop_pct": 1.0,
        "mean": [0.5] * 3,
        "std": [0.5] * 3,
        "num_classes": 0,
        "first_conv": "patch_embed.proj",
        "classifier": "head",
    }
    config = {"architecture": "test_vit", "num_classes": 0, "pretrained_cfg": recipe, "model_args": arguments}
    (folder / "config.json").write_text(json.dumps(config))
    index = ContentIndex(hub.parent / "index.sqlite")
    backbone = load_backbone("virchow", index=index)
    images = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        tokens = network(images)
        expected = torch.cat((tokens[:, 0], tokens[:, 1:].mean(1)), 1)
        assert torch.allclose(backbone.model(images), expected, rtol=0, atol=1e-5)
    assert backbone.description["origin"]["keywords"] == {"mlp_layer": "SwiGLUPacked", "act_layer": "SiLU"}
    assert resolve_backbone("virchow", index=index) is not None
    (folder.parent.parent / "refs" / "main").write_text("another revision")
    assert resolve_backbone("virchow", index=index) is None
    assert [facts["name"] for facts in listed("--here", "--domain", "pathology", "--json")] == ["virchow"]


def test_a_model_with_its_own_package_says_so() -> None:
    with pytest.raises(InputError, match=r"mahmoodlab/CONCH.*HF_TOKEN.*module:FILE\.py:FUNCTION"):
        load_backbone("conch")


def listed(*words: str) -> list[dict[str, object]]:
    ran = CliRunner().invoke(group, ["models", *words], catch_exceptions=False)
    return [json.loads(line) for line in ran.stdout.splitlines()]


@pytest.mark.parametrize("domain", DOMAINS)
def test_models_are_listed_by_domain(domain: str) -> None:
    found = {facts["name"] for facts in listed("show", "--domain", domain, "--json")}
    assert found == {n for n, spec in (REGISTRY | FOUNDATION).items() if spec.domain == domain}


def test_the_list_shows_gate_and_licence(hub: Path) -> None:
    shown = CliRunner().invoke(group, ["models"], catch_exceptions=False).stdout
    lines = {line.split()[0]: line for line in shown.splitlines() if line.strip()}
    assert "gated" in lines["virchow2"]
    assert "CC-BY-NC-ND-4.0 (non-commercial)" in lines["virchow2"]
    assert "gated" not in lines["rad-dino"]
    assert [word for word in lines if word in DOMAINS] == list(DOMAINS)


def test_check_says_what_is_missing(hub: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ran = CliRunner().invoke(group, ["models", "check", "uni2-h"], catch_exceptions=False)
    assert ran.exit_code == 1
    for part in ("library", "timm", "to download", "co/MahmoodLab/UNI2-h", "hf auth login", "memory", "disk"):
        assert part in ran.stdout
    monkeypatch.setenv("HF_TOKEN", "secret")
    ran = CliRunner().invoke(group, ["models", "check", "uni2-h"], catch_exceptions=False)
    assert ran.exit_code == 0
    assert "secret" not in ran.stdout


@pytest.mark.parametrize(("free", "met"), [(2_000_000, False), (3_000_000_000, True)])
def test_check_compares_the_weights_with_free_memory(
    hub: Path, monkeypatch: pytest.MonkeyPatch, free: int, met: bool
) -> None:
    monkeypatch.setattr("mt.backbones.entries.readiness.available_memory", lambda: free)
    for name in ("uni2-h", "uni2-h:cls", "uni2-h:cls:d4"):
        needs = {need["name"]: need for need in listed("check", name, "--json")}
        assert needs["memory"]["met"] is met
        assert str(needs["memory"]["said"]).startswith("2.7 GB of ")  # 681,394,176 x 4 bytes
    needs = {need["name"]: need for need in listed("check", "timm:resnet18.a1_in1k", "--json")}
    assert needs["memory"]["met"] is None


def test_facts_that_no_source_confirmed_are_named() -> None:
    assert listed("show", "h-optimus-0", "--json")[0]["unchecked"] == ["gate"]
    assert "licence of the weights" in CliRunner().invoke(group, ["models", "radimagenet-resnet50"]).stdout


def test_check_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    needs = {need["name"]: need for need in listed("check", "rad-dino", "--json")}
    assert needs["library"]["met"] is False
    assert "medical-transfer[hub]" in str(needs["library"]["said"])
    assert "terms" not in needs


@pytest.mark.parametrize("name", FOUNDATION)
def test_the_documentation_lists_every_entry_as_it_is(name: str) -> None:
    spec = FOUNDATION[name]
    lines = (Path(__file__).parents[2] / "docs" / "backbones.md").read_text(encoding="utf-8").splitlines()
    (line,) = [one for one in lines if one.startswith(f"| `{name}` |")]
    for part in (spec.domain, f"`{spec.embedding}`, {spec.dim}", spec.licence, spec.paper):
        assert part in line
    assert (", gated" in line) == spec.gated
