"""A large report: 200 methods on three budgets and maps of 50,000 points; its size, and how long until a chart is seen.

Needs chromium.  The predictions are made up, and the maps show two of their features: only the page is measured.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
import time
from functools import partial
from pathlib import Path
from unittest import mock

import numpy as np

from benchmarks._pairs import machine, row
from mt.cache.catalog import Catalog
from mt.probe.budgets.draw import DrawSource
from mt.probe.questions import Question, budgets, find_pairs
from mt.probe.run import ask
from mt.probe.scores.scoring import Scorer
from mt.report.charts.embedding import Maps
from mt.report.request import ReportRequest
from mt.report.writing import WrittenReport, write_report
from mt.results.store import Fit, ScoreStore
from mt.types import LabelledRows
from tests.browser import FLAGS
from tests.probe.features import write_features
from tests.report.stores import outcome_of

METHODS, CASES = 200, 250
ROUNDS = 5


def main() -> None:
    """Print the size of the page and the seconds to its first chart and its first map."""
    print(f"  {machine()}")
    with tempfile.TemporaryDirectory() as folder:
        page = large(Path(folder)).page
        size = page.stat().st_size / 1e6
        row(f"{METHODS} methods x 3 budgets, {METHODS * CASES:,} points: MB", size, reach="< 15")
        times = [opened(page) for _ in range(ROUNDS)]
        first, mapped = (float(np.median(part)) for part in zip(*times, strict=True))
        row("seconds from opening it to the first chart", first, reach="< 3")
        row("seconds from scrolling to the maps to their points", mapped, reach="reported")


def large(folder: Path) -> WrittenReport:
    """Write the report of many made-up methods, all with features at hand."""
    cache = folder / "cache"
    names = [f"timm:network_{i:03d}.some_pretraining" for i in range(METHODS)]
    for name in names:
        write_features(cache, model=name, split="train", n=500, dim=4)
        write_features(cache, model=name, split="test", n=CASES, dim=4)
    catalog = Catalog(cache)
    with ScoreStore(folder / "scores.sqlite") as store:
        ask(_questions(catalog), partial(map, _Guess(store)), Scorer(store), DrawSource())
        # Positions take minutes and are remembered; their cost is not part of opening the page.
        with mock.patch("mt.report.charts.embedding.project", lambda X: np.asarray(X[:, :2], dtype=np.float64)):
            return write_report(store, ReportRequest(folder / "report.html", maps=Maps(catalog), export=False))


def _questions(catalog: Catalog) -> list[Question]:
    return [
        Question(pair, budget, 0, "probe", {"protocol": "default"}, 1)
        for pair in find_pairs(catalog)
        for budget in budgets((), ())
    ]


class _Guess:
    """Answers a question with noisy guesses, better for later models and larger budgets."""

    def __init__(self, store: ScoreStore) -> None:
        self._store = store

    def __call__(self, question: Question) -> Fit:
        train, test = question.pair.train[0].open(), question.pair.test[0].open()
        splits = (LabelledRows(None, np.asarray(split.labels), ids=split.ids) for split in (train, test))
        pool, cases = map(self._store.add_cases, splits)
        rng = np.random.default_rng(list(question.identity.encode()))
        strength = 1 + (question.budget.fraction or 0)
        logits = strength * (2 * np.asarray(test.labels) - 1) + rng.normal(0, 2, len(test.labels))
        p = (1 / (1 + np.exp(-logits))).astype(np.float32)
        rows = np.arange(round(500 * (question.budget.fraction or 0)))
        return Fit(question.identity, pool, cases, rows, p, outcome_of("binary", ("normal", "tumour"), len(rows)))


def opened(page: Path) -> tuple[float, float]:
    """Open the page in a fresh browser; return the seconds to its first chart, and from there to its map."""
    from playwright.sync_api import sync_playwright

    path = shutil.which("chromium") or sys.exit("no chromium found: apt install chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=FLAGS)
        tab = browser.new_page(viewport={"width": 1280, "height": 900})
        began = time.perf_counter()
        tab.goto(page.as_uri(), wait_until="commit")
        tab.wait_for_selector("#p0-labels svg.marks .mark-symbol path")
        first = time.perf_counter() - began
        began = time.perf_counter()
        tab.locator("#p0-map").scroll_into_view_if_needed()
        tab.wait_for_selector("#p0-map canvas.marks")
        mapped = time.perf_counter() - began
        browser.close()
    return first, mapped


if __name__ == "__main__":
    main()
