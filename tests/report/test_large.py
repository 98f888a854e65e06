"""A large report stays a page that one can send and use: 200 methods on three budgets, 50,000 points on its maps."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from mt.report import collect
from mt.report.charts.close_up import close_up
from mt.report.charts.efficiency import label_efficiency
from mt.report.charts.embedding import MOST, _chart
from mt.report.charts.figures import Figure, Menu, Section
from mt.report.charts.palette import looks_of
from mt.report.page.html import Legend, page, vega_script
from mt.report.panels import Panel
from mt.report.provenance import provenance
from mt.report.short_names import ShortNames
from tests.report.stores import filled

NAMES = [f"timm:some_network_{i:03d}.its_pretraining" for i in range(200)]


def maps(panel: Panel) -> Section:
    """Return maps of all methods, with as many points as they may share, in full length."""
    rng = np.random.default_rng(0)
    x, y = rng.normal(0, 40, (2, MOST)).round(2).tolist()
    table = {
        "model": [name for name in NAMES for _ in range(MOST // len(NAMES))],
        "x": x,
        "y": y,
        "class": [panel.class_names[i % 2] for i in range(MOST)],
        "case": [f"{i:08x}" for i in range(MOST)],
        "wrong": [int(i % 9 == 0) for i in range(MOST)],
    }
    choice = Menu("backbone", "model", NAMES, NAMES[0])
    figure = Figure("map", "Embedding map", "", _chart(panel, choice, table), {"map": table}, 460, renderer="canvas")
    return Section("Embedding map", "", [figure], [choice])


def test_200_methods_and_50_000_points_are_one_page_under_15_mb(tmp_path: Path, look: Any) -> None:
    store = filled(tmp_path / "s.sqlite", seeds=2)
    (few,) = collect(store)
    cells = [
        replace(cell, name=name, method=replace(cell.method, model=name))
        for name in NAMES
        for cell in few.curve("dino")
    ]
    many = replace(few, cells=tuple(cells))
    looks = looks_of(many.names)
    groups = [label_efficiency(many, looks), close_up(store, many, looks), maps(many)]
    content = page(
        [many], [[g for g in groups if g]], Legend(looks, ShortNames()), provenance([many]), vega_script()
    ).encode()
    assert len(content) < 15e6
    (tmp_path / "r.html").write_bytes(content)
    opened = look(tmp_path / "r.html")
    assert opened.locator("#scores tbody tr").count() == 600
    assert opened.locator("#p0 .needed tbody tr").count() == 24
    opened.locator("#p0-map").scroll_into_view_if_needed()
    opened.wait_for_selector("#p0-map canvas.marks")
    opened.locator("select[data-menu=model]").select_option(NAMES[-1])
