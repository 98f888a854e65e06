"""`module:PATH.py:FUNCTION`: the user's own backbone, whose text and state are its identity."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch

from mt.backbones.load import load_backbone, resolve_backbone
from mt.cache.content import ContentIndex
from mt.errors import InputError

OURS = """
import torch
from mt import Preprocess
import helper

def backbone():
    torch.manual_seed(helper.SEED)
    network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3 * 8 * 8, 5))
    return network, Preprocess(resize=10, crop=8), 5
"""
BROKEN = {
    "def backbone(): return 1": "returned (int): expected a network",
    "def backbone(): raise KeyError('weights')": "KeyError: 'weights'",
    "import nothing_of_this_name": "No module named 'nothing_of_this_name'",
    "backbone = 3": "has no function 'backbone'",
    "import torch\nfrom mt import Preprocess\n"
    "def backbone(): return torch.nn.Identity(), Preprocess(8, 8), 5": "expected (1, 5)",
    "import torch\nfrom mt import Preprocess\n"
    "def backbone(): return torch.nn.Linear(3, 5), Preprocess(8, 8), 5": "RuntimeError",
}


def written(folder: Path, text: str = OURS, seed: int = 0) -> str:
    (folder / "ours.py").write_text(text)
    (folder / "helper.py").write_text(f"SEED = {seed}")
    return f"module:{folder / 'ours.py'}:backbone"


def test_a_users_network_is_a_backbone(tmp_path: Path) -> None:
    name = written(tmp_path)
    backbone = load_backbone(name)
    images = torch.randn(2, 3, 8, 8)
    torch.manual_seed(0)
    network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(192, 5))
    assert torch.allclose(backbone.model(images), network(images), atol=1e-6)
    assert (backbone.dim, backbone.preprocess.crop, backbone.preprocess.resize) == (5, 8, 10)
    assert str(tmp_path) not in str(backbone.description)


def test_text_and_weights_are_the_fingerprint(tmp_path: Path) -> None:
    name = written(tmp_path)
    index = ContentIndex(tmp_path / "index.sqlite")
    one = load_backbone(name, index=index)
    assert load_backbone(name).fingerprint == one.fingerprint
    known = resolve_backbone(name, index=index)
    assert known is not None
    assert known.fingerprint == one.fingerprint
    written(tmp_path, OURS + "# another line\n")
    assert resolve_backbone(name, index=index) is None
    other = load_backbone(name)
    assert other.fingerprint != one.fingerprint
    assert other.description["weights"] == one.description["weights"]


def test_weights_can_be_given(tmp_path: Path) -> None:
    name = written(tmp_path)
    state = {"module.1.weight": torch.zeros(5, 192), "module.1.bias": torch.arange(5.0)}
    torch.save({"state_dict": state}, tmp_path / "w.pth")
    assert load_backbone(name, tmp_path / "w.pth").model(torch.ones(1, 3, 8, 8)).tolist() == [[0, 1, 2, 3, 4]]
    assert load_backbone(name, "random").random_weights


@pytest.mark.parametrize("text", BROKEN)
def test_what_is_wrong_with_it_is_one_line(tmp_path: Path, text: str) -> None:
    with pytest.raises(InputError, match=re.escape(BROKEN[text])) as raised:
        load_backbone(written(tmp_path, text))
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("place", "said"),
    [("ours.py", "names no function"), ("none.py:backbone", "No file"), ("ours.txt:backbone", "names no function")],
)
def test_a_name_without_a_file_or_function_is_answered(tmp_path: Path, place: str, said: str) -> None:
    written(tmp_path)
    with pytest.raises(InputError, match=said):
        load_backbone(f"module:{tmp_path}/{place}")


def test_it_has_its_own_embedding_alone(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="rule that fits: pooled"):
        load_backbone(f"{written(tmp_path)}:cls")
