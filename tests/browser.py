"""A browser for the report's tests: Debian's chromium, driven by playwright."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


@pytest.fixture(scope="session")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A headless browser with a new, empty profile."""
    path = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if path is None:
        pytest.skip("no chromium found: apt install chromium")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        profile = tmp_path_factory.mktemp("profile")
        context = playwright.chromium.launch_persistent_context(
            profile, executable_path=path, headless=True, args=FLAGS
        )
        yield context
        context.close()


@pytest.fixture
def look(chromium: Any) -> Iterator[Any]:
    """Return a function that opens a file; the test fails if the page printed, threw or asked for anything else."""
    pages: list[Any] = []
    wrong: list[str] = []

    def dismiss(dialog: Any) -> None:
        wrong.append(f"dialog: {dialog.message}")
        dialog.dismiss()

    def open_page(path: Path, *, width: int = 1280, dark: bool = False) -> Any:
        page = chromium.new_page()
        page.set_viewport_size({"width": width, "height": 900})
        page.emulate_media(color_scheme="dark" if dark else "light")
        page.on("console", lambda message: wrong.append(f"console {message.type}: {message.text}"))
        page.on("pageerror", lambda error: wrong.append(f"error: {error}"))
        page.on("dialog", dismiss)
        page.on("request", lambda request: _note(request.url, path, wrong))
        pages.append(page)
        page.goto(path.as_uri())
        page.locator(".chart").first.scroll_into_view_if_needed()
        page.wait_for_selector(".chart svg.marks, .chart canvas.marks")
        page.evaluate("scrollTo(0, 0)")
        return page

    yield open_page
    for page in pages:
        page.close()
    assert wrong == []


def _note(url: str, path: Path, wrong: list[str]) -> None:
    if url.partition("#")[0] != path.as_uri() and not url.startswith("data:"):
        wrong.append(f"request: {url}")
