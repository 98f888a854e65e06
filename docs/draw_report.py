"""Draw docs/report.png from a report, as a browser shows it.

    mt demo
    python docs/draw_report.py mt-demo.html

Needs chromium and the test extra's playwright; takes seconds.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

PICTURE = Path(__file__).parent / "report.png"
WIDTH, HEIGHT = 1280, 1620  # pixels: the first screen, and the first chart


def draw(page: Path, picture: Path = PICTURE) -> None:
    """Write the top of a report as PNG, light."""
    from playwright.sync_api import sync_playwright

    path = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox", "--disable-gpu"])
        tab = browser.new_page(viewport={"width": WIDTH, "height": HEIGHT}, color_scheme="light")
        tab.goto(page.resolve().as_uri())
        tab.wait_for_selector(".chart svg.marks")
        tab.screenshot(path=picture)
        browser.close()


if __name__ == "__main__":
    draw(Path(sys.argv[1]))
