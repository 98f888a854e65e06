"""Downloads resume, are checked, and leave nothing half-written, whatever the server does."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Protocol

import pytest

from mt.errors import WeightsError
from mt.system.download import ATTEMPTS, check_recorded, download

CONTENT = bytes(range(256)) * 4096  # 1 MiB
SHA256 = hashlib.sha256(CONTENT).hexdigest()
Answer = Callable[["Handler"], None]


class Serve(Protocol):
    """Start a server that gives these answers; return its URL and the ranges that it was asked for."""

    def __call__(self, *answers: Answer) -> tuple[str, list[str | None]]: ...


class Handler(BaseHTTPRequestHandler):
    """Answers the n-th request as the test says, and notes the ranges that were asked for."""

    protocol_version = "HTTP/1.1"
    answers: list[Answer]
    asked: list[str | None]

    def do_GET(self) -> None:
        self.asked.append(self.headers.get("Range"))
        self.close_connection = True
        self.answers[min(len(self.asked), len(self.answers)) - 1](self)

    def log_message(self, *args: object) -> None: ...

    def reply(self, body: bytes, *, status: int = 200, length: int | None = None, **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        if length != -1:
            self.send_header("Content-Length", str(len(body) if length is None else length))
        self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(body)


def whole(request: Handler) -> None:
    """Serve the file, or the part of it that was asked for."""
    start = int((request.headers.get("Range") or "bytes=0-")[len("bytes=") : -1])
    if start and request.headers.get("If-Range") in (None, '"v1"'):
        place = f"bytes {start}-{len(CONTENT) - 1}/{len(CONTENT)}"
        request.reply(CONTENT[start:], status=206, Content_Range=place, ETag='"v1"')
    else:
        request.reply(CONTENT, ETag='"v1"')


def dropping(size: int) -> Answer:
    """Promise the whole file and close the connection after `size` bytes of it."""
    return lambda request: request.reply(CONTENT[:size], length=len(CONTENT), ETag='"v1"')


@pytest.fixture
def serve() -> Iterator[Serve]:
    """Start a server with these answers; gives its URL and the list of ranges asked for."""
    servers = []

    def start(*answers: Answer) -> tuple[str, list[str | None]]:
        asked: list[str | None] = []
        handler = type("Scripted", (Handler,), {"answers": list(answers), "asked": asked})
        server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        servers.append(server)
        return f"http://127.0.0.1:{server.server_port}/weights.pth", asked

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def fetch(url: str, path: Path, **options: Any) -> None:
    download(url, path, pause=lambda seconds: None, timeout=5, **options)


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()} - {"w.pth.lock"}


def test_a_download_is_whole_recorded_and_leaves_nothing_else(serve: Serve, tmp_path: Path) -> None:
    url, _ = serve(whole)
    fetch(url, tmp_path / "w.pth", known_hash=f"sha256:{SHA256[:8]}")
    assert (tmp_path / "w.pth").read_bytes() == CONTENT
    assert names(tmp_path) == {"w.pth", "w.pth.sha256"}
    assert (tmp_path / "w.pth.sha256").read_text() == f"{SHA256}  w.pth\n"


def test_a_dropped_connection_is_resumed_where_it_broke(serve: Serve, tmp_path: Path) -> None:
    url, asked = serve(dropping(300_000), whole)
    fetch(url, tmp_path / "w.pth")
    assert asked == [None, "bytes=300000-"]
    assert (tmp_path / "w.pth").read_bytes() == CONTENT


def test_a_later_run_resumes_what_an_earlier_one_left(serve: Serve, tmp_path: Path) -> None:
    url, _ = serve(dropping(300_000), lambda request: request.reply(b"", status=404))
    with pytest.raises(WeightsError, match="404"):
        fetch(url, tmp_path / "w.pth")
    assert not (tmp_path / "w.pth").exists()
    assert (tmp_path / "w.pth.part").stat().st_size == 300_000


def test_an_earlier_part_is_completed(serve: Serve, tmp_path: Path) -> None:
    url, asked = serve(dropping(300_000), *[lambda r: r.reply(b"", status=503)] * (ATTEMPTS - 1), whole)
    with pytest.raises(WeightsError, match="503"):
        fetch(url, tmp_path / "w.pth")
    fetch(url, tmp_path / "w.pth")
    assert asked[-1] == "bytes=300000-"
    assert (tmp_path / "w.pth").read_bytes() == CONTENT


def test_a_server_that_ignores_ranges_is_read_from_the_start(serve: Serve, tmp_path: Path) -> None:
    url, asked = serve(dropping(300_000), lambda request: request.reply(CONTENT, ETag='"v1"'))
    fetch(url, tmp_path / "w.pth")
    assert asked == [None, "bytes=300000-"]
    assert (tmp_path / "w.pth").read_bytes() == CONTENT


def test_a_file_that_changed_meanwhile_is_not_patched_together(serve: Serve, tmp_path: Path) -> None:
    url, _ = serve(lambda request: request.reply(b"old" * 100_000, length=len(CONTENT), ETag='"old"'), whole)
    fetch(url, tmp_path / "w.pth")
    assert (tmp_path / "w.pth").read_bytes() == CONTENT


def test_without_a_validator_nothing_is_resumed(serve: Serve, tmp_path: Path) -> None:
    url, asked = serve(lambda r: r.reply(CONTENT[:5], length=len(CONTENT)), lambda r: r.reply(CONTENT))
    fetch(url, tmp_path / "w.pth")
    assert asked == [None, None]
    assert (tmp_path / "w.pth").read_bytes() == CONTENT


def test_a_server_that_resumes_elsewhere_is_not_believed(serve: Serve, tmp_path: Path) -> None:
    def elsewhere(request: Handler) -> None:
        request.reply(CONTENT[5:], status=206, Content_Range=f"bytes 5-{len(CONTENT) - 1}/{len(CONTENT)}", ETag='"v1"')

    url, asked = serve(dropping(300_000), elsewhere, whole)
    fetch(url, tmp_path / "w.pth")
    assert asked == [None, "bytes=300000-", None]
    assert (tmp_path / "w.pth").read_bytes() == CONTENT


def test_a_complete_part_needs_no_more_bytes(serve: Serve, tmp_path: Path) -> None:
    """The process died between the last byte and the rename."""

    def satisfied(request: Handler) -> None:
        request.reply(b"", status=416, Content_Range=f"bytes */{len(CONTENT)}")

    url, _ = serve(whole, satisfied)

    def die(part: Path) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fetch(url, tmp_path / "w.pth", check=die)
    assert not (tmp_path / "w.pth").exists()
    fetch(url, tmp_path / "w.pth")
    assert (tmp_path / "w.pth").read_bytes() == CONTENT


def test_a_server_that_promises_too_much_never_leaves_a_file(serve: Serve, tmp_path: Path) -> None:
    url, asked = serve(lambda request: request.reply(CONTENT, length=len(CONTENT) + 9, ETag='"v1"'), whole_plus_nine)
    with pytest.raises(WeightsError, match=r"after 1048576 of 1048585 bytes.*put it at .*w\.pth"):
        fetch(url, tmp_path / "w.pth")
    assert len(asked) == ATTEMPTS
    assert not (tmp_path / "w.pth").exists()


def whole_plus_nine(request: Handler) -> None:
    """Resume a file that the server believes to be nine bytes longer, with nothing."""
    place = f"bytes {len(CONTENT)}-{len(CONTENT) + 8}/{len(CONTENT) + 9}"
    request.reply(b"", status=206, length=9, Content_Range=place, ETag='"v1"')


def test_a_server_that_promises_too_little_is_caught_by_the_hash(serve: Serve, tmp_path: Path) -> None:
    url, _ = serve(lambda request: request.reply(CONTENT, length=1000))
    with pytest.raises(WeightsError, match=f"sent the wrong content.*expected {SHA256[:8]}"):
        fetch(url, tmp_path / "w.pth", known_hash=f"sha256:{SHA256[:8]}")
    assert not names(tmp_path)


@pytest.mark.parametrize("known", ["sha256:00000000", "md5:00000000"])
def test_wrong_content_is_deleted(serve: Serve, tmp_path: Path, known: str) -> None:
    url, _ = serve(whole)
    with pytest.raises(WeightsError, match=r"sent the wrong content, which was deleted.*expected 00000000"):
        fetch(url, tmp_path / "w.pth", known_hash=known)
    assert not names(tmp_path)


def test_an_md5_is_enough(serve: Serve, tmp_path: Path) -> None:
    url, _ = serve(whole)
    fetch(url, tmp_path / "w.pth", known_hash=f"md5:{hashlib.md5(CONTENT).hexdigest()[:8]}")
    assert (tmp_path / "w.pth").exists()


def test_a_page_in_place_of_weights_is_refused(serve: Serve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from mt.backbones import weights

    url, _ = serve(lambda request: request.reply(b"<html>Sign in</html>"))
    monkeypatch.setenv("MT_WEIGHTS_DIR", str(tmp_path))
    with pytest.raises(WeightsError, match="not a checkpoint"):
        weights.obtain(weights.Published(url, ()))
    assert not (tmp_path / "weights.pth").exists()


@pytest.mark.parametrize(
    ("status", "requests"), [(404, 1), (403, 1), (500, ATTEMPTS), (503, ATTEMPTS), (429, ATTEMPTS)]
)
def test_errors_are_tried_again_only_where_that_may_help(
    serve: Serve, tmp_path: Path, status: int, requests: int
) -> None:
    url, asked = serve(lambda request: request.reply(b"", status=status))
    with pytest.raises(WeightsError, match=rf"Could not download {url}.*Fetch it .* and put it at {tmp_path}/w\.pth"):
        fetch(url, tmp_path / "w.pth")
    assert len(asked) == requests
    assert not names(tmp_path)


def test_a_file_without_a_length_is_taken_to_its_end(serve: Serve, tmp_path: Path) -> None:
    url, _ = serve(lambda request: request.reply(CONTENT, length=-1))
    fetch(url, tmp_path / "w.pth")
    assert (tmp_path / "w.pth").read_bytes() == CONTENT


def test_another_file_than_at_first_is_refused(serve: Serve, tmp_path: Path) -> None:
    url, _ = serve(whole, lambda request: request.reply(CONTENT[::-1]))
    fetch(url, tmp_path / "w.pth")
    (tmp_path / "w.pth").unlink()
    with pytest.raises(
        WeightsError, match=r"sent another file than when it was first fetched.*delete .*w\.pth\.sha256"
    ):
        fetch(url, tmp_path / "w.pth")
    assert not (tmp_path / "w.pth").exists()


def test_a_file_that_changed_since_its_download_is_noticed(serve: Serve, tmp_path: Path) -> None:
    url, _ = serve(whole)
    path = tmp_path / "w.pth"
    fetch(url, path)
    check_recorded(path)
    path.write_bytes(CONTENT[:-1] + b"!")
    with pytest.raises(WeightsError, match="changed since it was downloaded"):
        check_recorded(path)


def test_two_processes_download_once(serve: Serve, tmp_path: Path) -> None:
    url, asked = serve(whole)
    threads = [threading.Thread(target=fetch, args=(url, tmp_path / "w.pth")) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert asked == [None]
    assert (tmp_path / "w.pth").read_bytes() == CONTENT


@pytest.mark.parametrize("url", ["http://example.org/w.pth", "ftp://example.org/w.pth", "file:///etc/passwd"])
def test_only_https_is_fetched(tmp_path: Path, url: str) -> None:
    with pytest.raises(WeightsError, match="over https only"):
        fetch(url, tmp_path / "w.pth")


def test_a_redirect_to_an_insecure_place_is_not_followed(serve: Serve, tmp_path: Path) -> None:
    url, _ = serve(lambda request: request.reply(b"", status=302, Location="http://example.org/w.pth"))
    with pytest.raises(WeightsError, match=r"redirects to http://example\.org"):
        fetch(url, tmp_path / "w.pth")
