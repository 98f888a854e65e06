"""`mt models` says of every backbone what it takes, gives, comes from and may be used for."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from mt.backbones.cli import models
from mt.backbones.load import REGISTRY
from mt.errors import InputError


def listed(*arguments: str) -> str:
    result = CliRunner().invoke(models, arguments, catch_exceptions=False)
    assert result.exit_code == 0
    return result.stdout


def test_every_backbone_is_listed_with_width_input_weights_and_licence() -> None:
    lines = {line.split()[0]: line for line in listed().splitlines()}
    for name, spec in REGISTRY.items():
        for part in (str(spec.dim), str(spec.preprocess.crop), spec.licence):
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
    (tmp_path / REGISTRY["dino"].weights.file_name).touch()
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
        CliRunner().invoke(models, ["swaw"], catch_exceptions=False)


def test_any_network_of_timm_has_a_name() -> None:
    assert json.loads(listed("timm:resnet18.a1_in1k", "--json"))["width"] is None


def test_listing_imports_no_torch() -> None:
    code = (
        "import sys; from mt.backbones.cli import models; models([], standalone_mode=False);"
        "assert not {'torch', 'timm'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
