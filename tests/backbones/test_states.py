"""Weights in a checkpoint are found by their structure, however nested; of several sets none is chosen silently."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import save_file

from mt import load_backbone
from mt.backbones.checkpoints import read_checkpoint
from mt.backbones.convert import convert
from mt.errors import WeightsError

NAME = "test_resnet"
FIRST = "conv1.0.weight"  # its first tensor
State = dict[str, torch.Tensor]


def state_of(seed: int = 0) -> State:
    torch.manual_seed(seed)
    return timm.create_model(NAME, num_classes=7).state_dict()


def named(state: State, prefix: str) -> State:
    return {prefix + name: value for name, value in state.items()}


def conv_of(file: Path, pick: str = "") -> torch.Tensor:
    """Return the first convolution that a backbone has when it is loaded from a file."""
    return load_backbone(f"timm:{NAME}", f"{file}{pick}").model.get_parameter(FIRST).detach()


STATE = state_of()
HEAD = {"fc.weight": STATE["fc.weight"]}
BODY = {name: value for name, value in STATE.items() if not name.startswith("fc.")}
WRAPPED: dict[str, Any] = {
    "plain": STATE,
    "without head": BODY,
    "compiled": named(STATE, "_orig_mod."),
    "compiled under DDP": named(STATE, "module._orig_mod."),
    "model / module.": {"model": named(STATE, "module."), "optimizer": {"state": {0: {"exp_avg": torch.ones(3)}}}},
    "Lightning": {"state_dict": named(BODY, "model.backbone.") | {"model.head.weight": torch.ones(2)}, "epoch": 3},
    "encoder beside projector": {"state_dict": named(BODY, "encoder.") | {"projector.0.weight": torch.ones(2, 2)}},
    "MAE leftovers": BODY | {"decoder_embed.weight": torch.ones(2), "mask_token": torch.ones(1, 1, 4)},
    "MoCo queue": {"state_dict": named(BODY, "module.encoder_q.") | {"module.queue": torch.ones(4, 4)}},
    "DeepSpeed, consolidated": {"module": named(STATE, "module."), "ds_version": "0.14"},
    "EMA alone": {"ema": {"module": STATE, "decay": 0.99}},
    "the same twice": {"state_dict": STATE, "model": dict(STATE)},
    "deep": {"a": {"b": {"c": {"state": STATE}}}},
}


@pytest.mark.parametrize("form", WRAPPED)
def test_every_wrapper(tmp_path: Path, form: str) -> None:
    torch.save(WRAPPED[form], tmp_path / "own.pth")
    assert torch.equal(conv_of(tmp_path / "own.pth"), STATE[FIRST])


def test_several_states_that_differ_are_not_chosen_between(tmp_path: Path) -> None:
    file = tmp_path / "own.pth"
    torch.save({"student": named(STATE, "module."), "teacher": named(state_of(1), "module.")}, file)
    with pytest.raises(WeightsError, match=r"2 states that fit .* differ: student.*, teacher.*own.pth::teacher"):
        conv_of(file)
    assert torch.equal(conv_of(file, "::teacher"), state_of(1)[FIRST])
    assert torch.equal(conv_of(file, "::student"), STATE[FIRST])
    with pytest.raises(WeightsError, match=r"no state .ema.\. Found: student"):
        conv_of(file, "::ema")


def test_weights_and_their_average_side_by_side_are_not_chosen_between(tmp_path: Path) -> None:
    torch.save({"state_dict": STATE, "state_dict_ema": state_of(1)}, tmp_path / "own.pth")
    with pytest.raises(WeightsError, match=r"own.pth::state_dict or .*own.pth::state_dict_ema"):
        conv_of(tmp_path / "own.pth")
    assert torch.equal(conv_of(tmp_path / "own.pth", "::state_dict_ema"), state_of(1)[FIRST])


def test_the_nearest_is_named_with_what_does_not_fit(tmp_path: Path) -> None:
    wrong = {**BODY, FIRST: torch.ones(3, 3)}
    del wrong["bn1.bias"]
    torch.save({"model": named({**wrong, "layer9.weight": torch.ones(1)}, "net.")}, tmp_path / "own.pth")
    with pytest.raises(WeightsError) as error:
        conv_of(tmp_path / "own.pth")
    for part in ("nearest is 'model.net'", "missing: bn1.bias", "unexpected: layer9.weight", "conv1.0.weight (3, 3)"):
        assert part in str(error.value)


def test_another_size_resamples_positions_as_timm_does_for_its_own(tmp_path: Path) -> None:
    file = tmp_path / "vit.pth"
    torch.manual_seed(0)
    network = timm.create_model("test_vit", num_classes=3)
    torch.nn.init.normal_(network.get_parameter("pos_embed"))
    torch.save({"state_dict": named(network.state_dict() | {"mask_token": torch.ones(1, 1, 64)}, "module.")}, file)
    torch.save(network.state_dict(), tmp_path / "plain.pth")
    expected = timm.create_model(
        "test_vit",
        pretrained=True,
        pretrained_cfg_overlay={"file": str(tmp_path / "plain.pth"), "num_classes": 3},
        num_classes=3,
        img_size=96,
    )
    found = load_backbone("timm:test_vit", str(file), image_size=96).model
    assert found.get_parameter("pos_embed").shape != network.get_parameter("pos_embed").shape
    assert torch.equal(found.get_parameter("pos_embed"), expected.get_parameter("pos_embed"))


@pytest.mark.parametrize("name", ["own.safetensors", "own.bin", "own.pt", "own"])
def test_safetensors_under_any_suffix(tmp_path: Path, name: str) -> None:
    save_file(STATE, tmp_path / name)
    assert torch.equal(conv_of(tmp_path / name), STATE[FIRST])


@pytest.mark.parametrize("suffix", [".safetensors", ".bin"])
def test_shards_with_their_index(tmp_path: Path, suffix: str) -> None:
    parts = [dict(list(STATE.items())[::2]), dict(list(STATE.items())[1::2])]
    places: dict[str, str] = {}
    for number, part in enumerate(parts):
        shard = f"model-{number:05}-of-00002{suffix}"
        save_file(part, tmp_path / shard) if suffix == ".safetensors" else torch.save(part, tmp_path / shard)
        places |= dict.fromkeys(part, shard)
    index = tmp_path / f"model{suffix}.index.json"
    index.write_text(json.dumps({"weight_map": places}))
    assert torch.equal(conv_of(index), STATE[FIRST])
    (tmp_path / "model-00001-of-00002").with_suffix(suffix).unlink()
    with pytest.raises(WeightsError, match=r"names the shard model-00001-of-00002.*not there"):
        conv_of(index)
    index.write_text(json.dumps({"weight_map": {FIRST: "../elsewhere.bin"}}))
    with pytest.raises(WeightsError, match="not beside it"):
        conv_of(index)
    index.write_text("[]")
    with pytest.raises(WeightsError, match="is not an index of shards"):
        conv_of(index)


def test_a_torchscript_archive_is_said_to_be_one(tmp_path: Path) -> None:
    with warnings.catch_warnings(action="ignore"):  # later versions of torch deprecate torch.jit
        torch.jit.save(torch.jit.script(torch.nn.Linear(2, 2)), tmp_path / "own.pt")
    with pytest.raises(WeightsError, match=r"TorchScript archive.*torch.jit.load"):
        conv_of(tmp_path / "own.pt")


@pytest.mark.parametrize("zipped", [True, False])
def test_a_whole_module_is_said_to_be_one_and_no_command_is_advised(tmp_path: Path, *, zipped: bool) -> None:
    file = tmp_path / "own.pth"
    torch.save(timm.create_model(NAME), file, _use_new_zipfile_serialization=zipped)
    with pytest.raises(WeightsError, match=r"whole pickled object \(timm.models.resnet.ResNet\)") as error:
        conv_of(file)
    assert "convert" not in str(error.value)
    assert "state_dict()" in str(error.value)


def test_objects_of_torch_are_harmless_names_and_the_advised_command_works(tmp_path: Path) -> None:
    file = tmp_path / "own.pth"
    more = {"act": torch.nn.ReLU, "function": torch.nn.functional.relu, "dtype": torch.float16}
    torch.save({"state_dict": STATE, "hyper_parameters": more}, file)
    with pytest.raises(WeightsError, match=r"torch.nn.*mt models convert") as error:
        conv_of(file)
    assert "damaged" not in str(error.value)
    assert torch.equal(conv_of(convert(file)), STATE[FIRST])


def test_reading_names_no_state_of_an_optimizer(tmp_path: Path) -> None:
    torch.save({"optimizer": named(STATE, "module."), "model": state_of(1)}, tmp_path / "own.pth")
    assert set(read_checkpoint(tmp_path / "own.pth")) == {"optimizer", "model"}
    assert torch.equal(conv_of(tmp_path / "own.pth"), state_of(1)[FIRST])
