"""`mt models` shows the input, the width, the source and the licence of every backbone."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner

from mt.backbones.load import REGISTRY
from mt.cli import group
from mt.errors import InputError, WeightsError
from tests.backbones.entries import preprocess_of, weights_of


def listed(*arguments: str) -> str:
    result = CliRunner().invoke(group, ["models", *arguments], catch_exceptions=False)
    assert result.exit_code == 0
    return result.stdout


def test_every_backbone_is_listed_with_width_input_weights_and_licence() -> None:
    lines = {line.split()[0]: line for line in listed().splitlines()}
    for name, spec in REGISTRY.items():
        for part in (str(spec.dim), str(preprocess_of(name).crop), spec.licence):
            assert part in lines[name]
    assert "non-commercial" in lines["swav"]
    assert "non-commercial" not in lines["dino"]
    assert "dl.fbaipublicfiles.com" in lines["dino"]


def test_whether_weights_are_here_is_looked_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MT_WEIGHTS_DIR", str(tmp_path))

    def places() -> dict[str, str | None]:
        return {facts["name"]: facts["place"] for facts in map(json.loads, listed("--json").splitlines())}

    assert places()["dino"] is None
    assert places()["efficientnet-lite0"] == "package"
    (tmp_path / weights_of("dino").file_name).touch()
    assert places()["dino"] == places()["dino:cls1"] == "folder"


def test_one_backbone_is_shown_in_full() -> None:
    shown = listed("swav")
    for part in ("0.228", "CC-BY-NC-4.0", "arXiv:2006.09882", "swav_800ep_pretrain.pth.tar", "resize 256"):
        assert part in shown
    facts = json.loads(listed("dino-vitb16", "--json"))
    assert (facts["width"], facts["embedding"], facts["patch"]) == (1536, "cls+patches", 16)
    assert facts["here"] is False


def test_an_unknown_name_is_an_error() -> None:
    with pytest.raises(InputError, match="Did you mean 'swav'"):
        CliRunner().invoke(group, ["models", "swaw"], catch_exceptions=False)


def test_any_network_of_timm_has_a_name() -> None:
    assert json.loads(listed("timm:resnet18.a1_in1k", "--json"))["width"] is None


def test_listing_imports_no_torch() -> None:
    code = (
        "import sys; from mt.backbones.cli import models; models([], standalone_mode=False);"
        "assert not {'torch', 'timm'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


@pytest.mark.parametrize("words", [(), ("--json",), ("dino",), ("dino", "--json"), ("--json", "dino")], ids=" ".join)
def test_a_name_stands_where_a_command_may(words: tuple[str, ...]) -> None:
    assert listed(*words) == listed("show", *words)


@pytest.mark.parametrize("option", ["-h", "--help"])
def test_help_names_the_commands(option: str) -> None:
    # A process of its own: click keeps the help option of whoever asked for a command's parameters first.
    shown = subprocess.run(
        [sys.executable, "-m", "mt", "models", option], capture_output=True, text=True, check=True
    ).stdout
    assert "mt models [OPTIONS] [NAME] | COMMAND" in shown
    assert all(line in shown for line in ("Keep only the tensors of checkpoint FILE", "or show the one called NAME"))


@pytest.mark.parametrize("out", [None, "elsewhere.safetensors"])
def test_convert_keeps_the_tensors_and_says_where(tmp_path: Path, out: str | None) -> None:
    from safetensors.torch import load_file

    file = tmp_path / "my weights.pth.tar"
    torch.save({"state_dict": {"weight": torch.ones(2)}, "epoch": 3}, file)
    words = [str(file), *([str(tmp_path / out)] if out else [])]
    ran = CliRunner().invoke(group, ["models", "convert", *words], catch_exceptions=False)
    target = tmp_path / (out or "my weights.safetensors")
    assert ran.stdout == f"{target}\n"
    assert torch.equal(load_file(target)["state_dict.weight"], torch.ones(2))


def test_convert_refuses_what_is_no_checkpoint(tmp_path: Path) -> None:
    file = tmp_path / "page.pth"
    file.write_text("<html>")
    with pytest.raises(WeightsError, match="damaged or not a checkpoint"):
        CliRunner().invoke(group, ["models", "convert", str(file)], catch_exceptions=False)
    with pytest.raises(WeightsError, match="No weights at"):
        CliRunner().invoke(group, ["models", "convert", str(tmp_path / "none.pth")], catch_exceptions=False)
    assert list(tmp_path.iterdir()) == [file]
