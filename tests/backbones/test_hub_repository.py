"""A model's files on the hub: gates, tokens and absence in one line each; repository, revision and hashes recorded."""

from __future__ import annotations

import hashlib
import json
import shutil
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import save_file

from mt.backbones.load import load_backbone, resolve_backbone
from mt.cache.content import ContentIndex
from mt.errors import WeightsError
from tests.backbones.test_embedding_rules import IMAGES, hub_folder

COMMIT = "0123456789abcdef0123456789abcdef01234567"
DOORS = {"timm": "timm:hf-hub:org/model", "hf": "hf:org/model", "open_clip": "open_clip:hf-hub:org/model"}


class Hub(BaseHTTPRequestHandler):
    """Answers every request with one status and the hub's code for the reason; notes the tokens that it was sent."""

    status, code, tokens = 404, "", list[str | None]()

    def do_HEAD(self) -> None:
        self.tokens.append(self.headers.get("Authorization"))
        self.send_response(self.status)
        if self.code:
            self.send_header("X-Error-Code", self.code)
        if self.status == 401 and not self.code:
            self.send_header("X-Error-Message", "Invalid credentials in Authorization header")
        self.send_header("Content-Length", "0")
        self.end_headers()

    do_GET = do_HEAD

    def log_message(self, *args: object) -> None: ...


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[type[Hub]]:
    """Serve a hub on this machine, with an empty cache and no token."""
    handler = type("Answering", (Hub,), {"tokens": []})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", f"http://127.0.0.1:{server.server_port}")
    monkeypatch.setattr(
        "huggingface_hub.constants.HUGGINGFACE_CO_URL_TEMPLATE",
        f"http://127.0.0.1:{server.server_port}/{{repo_id}}/resolve/{{revision}}/{{filename}}",
    )
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr("huggingface_hub.constants.HF_TOKEN_PATH", str(tmp_path / "none"))
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    yield handler
    server.shutdown()
    server.server_close()


ANSWERS = [
    (401, "GatedRepo", None, r"'{name}' is gated: accept its terms at \S+/org/model, then set HF_TOKEN"),
    (403, "GatedRepo", "hf_mine", r"'{name}' is gated: your token .* does not open it yet.*terms at \S+/org"),
    (401, "RepoNotFound", None, r"The hub has no repository 'org/model' that you may read.*set HF_TOKEN"),
    (401, "", "hf_wrong", r"The hub refuses your token for '{name}'.*settings/tokens.*set HF_TOKEN"),
    (404, "EntryNotFound", None, r"'{name}' needs \S*config\.json of \S+/org/model: the hub sent none"),
    (410, "", None, r"'{name}' needs \S*config\.json of \S+/org/model: asking the hub failed \(.*410"),
    (404, "RevisionNotFound", None, r"'org/model' has no revision 'main'"),
]


@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize(("status", "code", "token", "said"), ANSWERS, ids=[f"{one[0]} {one[1]}" for one in ANSWERS])
def test_what_the_hub_refuses_is_one_line(
    hub: type[Hub], monkeypatch: pytest.MonkeyPatch, door: str, status: int, code: str, token: str | None, said: str
) -> None:
    pytest.importorskip({"timm": "timm", "hf": "transformers", "open_clip": "open_clip"}[door])
    hub.status, hub.code = status, code
    if token is not None:
        monkeypatch.setenv("HF_TOKEN", token)
    with pytest.raises(WeightsError, match=said.replace("{name}", DOORS[door])) as raised:
        load_backbone(DOORS[door])
    assert "\n" not in str(raised.value)
    assert token is None or token not in str(raised.value)
    assert set(hub.tokens) == {None if token is None else f"Bearer {token}"}


def cached(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a repository of timm's form as the hub's client keeps it, without a network."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    base = tmp_path / "hub" / "models--org--model"
    (base / "snapshots").mkdir(parents=True)
    (base / "refs").mkdir()
    (base / "refs" / "main").write_text(COMMIT)
    return hub_folder(base / "snapshots" / COMMIT, reg_tokens=4)


@pytest.mark.parametrize("name", ["timm:hf-hub:org/model", "timm:hf_hub:org/model", f"timm:hf-hub:org/model@{COMMIT}"])
def test_timms_repositories_are_recorded(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    snapshot = cached(tmp_path, monkeypatch)
    backbone = load_backbone(name)
    files = {one.name: hashlib.sha256(one.read_bytes()).hexdigest() for one in snapshot.iterdir()}
    assert backbone.description["origin"] == {"repository": "org/model", "revision": COMMIT, "files": files}
    assert set(files) == {"config.json", "model.safetensors"}
    assert str(tmp_path) not in json.dumps(backbone.description)
    assert backbone.fingerprint == load_backbone("timm:hf-hub:org/model").fingerprint
    with torch.inference_mode():
        folder = load_backbone(f"timm:local-dir:{snapshot}")
        assert torch.equal(backbone.model(IMAGES), folder.model(IMAGES))


@pytest.mark.parametrize("place", ["tag", "folder"])
def test_timms_own_tags_and_folders_are_recorded_too(
    place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = tmp_path / "hub" / "models--timm--test_vit.r160_in1k"
    cached(tmp_path, monkeypatch).parents[1].rename(base)
    snapshot = base / "snapshots" / COMMIT
    if place == "tag":
        save_file(timm.create_model("test_vit").state_dict(), snapshot / "model.safetensors")
    backbone = load_backbone("timm:test_vit.r160_in1k" if place == "tag" else f"timm:local-dir:{snapshot}")
    origin = backbone.description["origin"]
    expected = ("timm/test_vit.r160_in1k", COMMIT) if place == "tag" else (None, None)
    assert (origin["repository"], origin["revision"]) == expected
    assert origin["files"] == {
        "model.safetensors": hashlib.sha256((snapshot / "model.safetensors").read_bytes()).hexdigest()
    }


@pytest.mark.parametrize("form", ["pickle", "both"])
def test_timm_reads_safetensors_before_pickles(form: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    snapshot = cached(tmp_path, monkeypatch)
    whole = snapshot / "model.safetensors"
    before = load_backbone("timm:hf-hub:org/model").description
    if form == "pickle":
        from safetensors.torch import load_file

        torch.save(load_file(whole), snapshot / "pytorch_model.bin")
        whole.unlink()
    else:
        torch.save({"a": torch.ones(1)}, snapshot / "pytorch_model.bin")
    after = load_backbone("timm:hf-hub:org/model").description
    assert after["weights"] == before["weights"]
    read = {"pickle": "pytorch_model.bin", "both": "model.safetensors"}[form]
    assert set(after["origin"]["files"]) == {"config.json", read}


def test_a_changed_configuration_is_loaded_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    snapshot = cached(tmp_path, monkeypatch)
    index = ContentIndex(tmp_path / "index.sqlite")
    load_backbone("timm:hf-hub:org/model", index=index)
    assert resolve_backbone("timm:hf-hub:org/model", index=index) is not None
    config = snapshot / "config.json"
    config.write_text(config.read_text().replace("0.5", "0.25"))
    assert resolve_backbone("timm:hf-hub:org/model", index=index) is None


def test_weights_that_are_not_there_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    snapshot = cached(tmp_path, monkeypatch)
    (snapshot / "model.safetensors").unlink()
    with pytest.raises(WeightsError, match=r"needs model\.safetensors or .*HF_HUB_OFFLINE is set") as raised:
        load_backbone("timm:hf-hub:org/model")
    assert "\n" not in str(raised.value)
    shutil.rmtree(snapshot)
    with pytest.raises(WeightsError, match=r"needs config\.json of \S+/org/model"):
        load_backbone("timm:hf-hub:org/model")
