"""The page in a real browser: what is drawn is what is stored, filters and sorting work, nothing leaves the machine."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest

from mt.report import ReportRequest, collect, write_report
from mt.results.store import ScoreStore
from tests.report.stores import filled

HOSTILE = "<script>alert(1)</script>"
MARKS = "#p0-labels svg .mark-symbol path[aria-label]"  # of scores; those beside the lines' names have no label


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[ScoreStore, Path]]:
    """A store with a binary, an ordinal and a multilabel dataset, and its report."""
    folder = tmp_path_factory.mktemp("report")
    store = filled(folder / "scores.sqlite")
    filled(folder / "scores.sqlite", dataset="aptos2019", task="ordinal", class_names=("none", "mild", "severe"))
    filled(
        folder / "scores.sqlite",
        dataset=f"folder:{HOSTILE}",
        task="multilabel",
        class_names=("Mass", HOSTILE, "Nodule"),
    )
    with store:
        yield store, write_report(store, ReportRequest(folder / "report.html", most=3)).page


def rows(page: Any) -> list[list[str]]:
    """Return the texts of the visible rows of the main table."""
    visible = "rows => rows.filter(r => !r.hidden).map(r => [...r.cells].map(c => c.innerText))"
    found: list[list[str]] = page.eval_on_selector_all("#scores tbody tr", visible)
    return found


def test_every_stored_mean_is_drawn(look: Any, written: tuple[ScoreStore, Path]) -> None:
    store, path = written
    page = look(path)
    for number, panel in enumerate(collect(store)):
        page.locator(f"#p{number}-labels").scroll_into_view_if_needed()
        page.wait_for_selector(f"#p{number}-labels svg.marks")
        drawn = page.eval_on_selector_all(
            f"#p{number}-labels svg .mark-symbol path[aria-label]",
            "marks => marks.map(m => m.getAttribute('aria-label'))",
        )
        kept = {f"{c.name}, {c.n_labels} labels: {panel.metric_label} {c.mean:.4f}" for c in panel.headline}
        assert set(drawn) == kept
        assert len(drawn) == 9


def test_the_table_holds_the_database(look: Any, written: tuple[ScoreStore, Path]) -> None:
    store, path = written
    shown = {(row[1], row[0], row[4], row[6].lstrip("★☆ "), row[7]) for row in rows(look(path))}
    kept = {
        (p.title, c.name, str(c.budget), f"{c.mean:.3f}", "–" if c.sd is None else f"{c.sd:.3f}")
        for p in collect(store)
        for c in p.cells
    }
    assert shown == kept


def test_a_column_sorts_both_ways(look: Any, written: tuple[ScoreStore, Path]) -> None:
    page = look(written[1])
    heading = page.get_by_role("button", name="score")
    heading.focus()
    page.keyboard.press("Enter")
    rising = [float(row[6].lstrip("★☆ ")) for row in rows(page)]
    assert rising == sorted(rising)
    assert rising[0] < rising[-1]
    page.keyboard.press("Enter")
    assert [float(row[6].lstrip("★☆ ")) for row in rows(page)] == rising[::-1]
    assert page.get_attribute("#scores th[aria-sort=descending]", "class") == "number"


def test_a_filter_hides_a_method_everywhere(look: Any, written: tuple[ScoreStore, Path]) -> None:
    page = look(written[1])
    page.get_by_role("checkbox", name="simclr").uncheck()
    assert {row[0] for row in rows(page)} == {"swav", "dino"}
    page.wait_for_function(f"document.querySelectorAll({MARKS!r}).length === 6")
    named = set(page.locator("#p0-labels svg .mark-text text").all_text_contents())
    assert named & {"dino", "swav", "simclr"} == {"dino", "swav"}
    assert set(page.locator("#p0 .legend span:visible").all_inner_texts()) == {"dino", "swav"}
    page.locator("details[data-filter=dataset] summary").click()
    page.get_by_role("checkbox", name="pcam").uncheck()
    assert {row[1] for row in rows(page)} == {"aptos2019", f"folder:{HOSTILE}"}
    assert page.locator("#p2").is_hidden()


def test_a_hostile_name_is_text(look: Any, written: tuple[ScoreStore, Path]) -> None:
    page = look(written[1])
    page.mouse.wheel(0, 9999)
    assert page.get_by_role("heading", name=HOSTILE).count() == 1
    assert page.locator("script").count() == 3
    assert HOSTILE not in written[1].read_text(encoding="utf-8")
    menu = page.locator("#p1 select[data-menu=label]")
    menu.scroll_into_view_if_needed()
    menu.select_option(HOSTILE)
    page.wait_for_selector("#p1-roc svg .mark-line path")


def test_hover_shows_the_numbers(look: Any, written: tuple[ScoreStore, Path]) -> None:
    store, path = written
    page = look(path)
    cell = next(cell for cell in collect(store)[0].headline if cell.name == "dino")
    point = page.locator(f"#p0-labels svg .mark-symbol path[aria-label^='dino, {cell.n_labels} labels']")
    point.hover()
    tooltip = page.locator("#vg-tooltip-element.visible")
    tooltip.wait_for()
    assert {f"{cell.mean:.4f}", f"{cell.sd:.4f}", f"{cell.low:.4f}"} <= set(tooltip.inner_text().split())


@pytest.mark.parametrize("width", [390, 1280])
@pytest.mark.parametrize("budgets", [(0.1,), (0.01, 0.1, 1.0)])
def test_methods_that_share_a_budget_are_set_apart(
    look: Any, tmp_path: Path, budgets: tuple[float, ...], width: int
) -> None:
    """Also the best dozen of many methods, and again after the filter has taken some away."""
    models = {f"model{i:02d}": 0.3 + i / 10 for i in range(14)}
    store = filled(tmp_path / "s.sqlite", models=models, budgets=budgets, seeds=2, n_test=60)
    page = look(write_report(store, ReportRequest(tmp_path / "r.html", export=False)).page, width=width)
    assert gap(page, budgets, 12) > 2
    for name in ("model13", "model12", "model11", "model01", "model00"):
        page.get_by_role("checkbox", name=name).uncheck()
    page.wait_for_function(f"document.querySelectorAll({MARKS!r}).length === {9 * len(budgets)}")
    assert gap(page, budgets, 9) > 3


@pytest.mark.parametrize("width", [390, 1280])
def test_a_dozen_names_of_lines_can_be_read(look: Any, tmp_path: Path, width: int) -> None:
    models = {f"model{i:02d}": 1.0 + i / 500 for i in range(12)}
    store = filled(tmp_path / "s.sqlite", models=models, seeds=2, n_test=60)
    page = look(write_report(store, ReportRequest(tmp_path / "r.html", export=False)).page, width=width)
    page.wait_for_selector("#p0-labels svg .mark-text text")
    boxes = page.eval_on_selector_all(
        "#p0-labels svg .mark-text text", "all => all.map(m => [m.textContent, m.getBoundingClientRect().toJSON()])"
    )
    boxes = [(name, box) for name, box in boxes if name.startswith("model")]
    assert {name for name, _ in boxes} == set(models)
    centres = sorted(box["y"] + box["height"] / 2 for _, box in boxes)
    assert min(b - a for a, b in itertools.pairwise(centres)) > 12
    chart = page.locator("#p0-labels").bounding_box()
    assert all(chart["y"] <= centre <= chart["y"] + chart["height"] for centre in centres)
    assert all(box["right"] <= width for _, box in boxes)


def test_bands_are_of_the_chosen_method_or_the_one_under_the_pointer(look: Any, tmp_path: Path) -> None:
    store = filled(tmp_path / "s.sqlite", models={"simclr": 0.6, "dino": 1.2}, seeds=3)
    page = look(write_report(store, ReportRequest(tmp_path / "r.html", export=False)).page)
    page.wait_for_selector("#p0-labels svg .mark-area path")
    band = "all => all.map(one => one.getAttribute('fill'))"
    colours = page.eval_on_selector_all("#p0-labels svg .mark-area path", band)
    assert len(set(colours)) == 1
    page.locator("#p0 select[data-menu=chosen]").first.select_option("simclr")
    page.wait_for_function(
        "old => document.querySelector('#p0-labels svg .mark-area path').getAttribute('fill') !== old", arg=colours[0]
    )
    page.locator("#p0-labels svg .mark-symbol path[aria-label^='dino']").first.hover()
    page.wait_for_function(
        "old => document.querySelector('#p0-labels svg .mark-area path').getAttribute('fill') === old", arg=colours[0]
    )


def gap(page: Any, budgets: tuple[float, ...], shown: int) -> float:
    """Return the least distance in pixels between the marks of methods at one budget."""
    centres = "all => all.map(m => { const b = m.getBoundingClientRect(); return b.x + b.width / 2; })"
    places: list[float] = sorted(page.eval_on_selector_all(MARKS, centres))
    assert len(places) == shown * len(budgets)
    parts = [places[i : i + shown] for i in range(0, len(places), shown)]
    return min(b - a for part in parts for a, b in itertools.pairwise(part))


def test_a_menu_changes_the_drawn_curves(look: Any, written: tuple[ScoreStore, Path]) -> None:
    page = look(written[1])
    page.locator("#p2-roc").scroll_into_view_if_needed()
    curves = "#p2-roc svg .mark-line path[aria-label]"
    page.wait_for_selector(curves)
    shapes = page.eval_on_selector_all(curves, "all => all.map(one => one.getAttribute('d'))")
    assert len(shapes) == 3
    page.locator("#p2 select[data-menu=budget]").select_option("1 %")
    others = "before => [...document.querySelectorAll('#p2-roc svg .mark-line path')]"
    page.wait_for_function(f"{others}.every(path => !before.includes(path.getAttribute('d')))", arg=shapes)


def test_the_page_may_not_speak_to_anyone(look: Any, written: tuple[ScoreStore, Path]) -> None:
    policy = look(written[1]).get_attribute("meta[http-equiv=Content-Security-Policy]", "content")
    assert policy.startswith("default-src 'none'; script-src 'sha256-")
    assert "connect-src" not in policy
    assert "unsafe-inline" not in policy.partition("style-src")[0]


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("width", [390, 1280])
def test_it_fits_the_screen_and_stays_in_place(
    look: Any, written: tuple[ScoreStore, Path], width: int, dark: bool
) -> None:
    page = look(written[1], width=width, dark=dark)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    moved = """() => new Promise(done => new PerformanceObserver(list => done(
        list.getEntries().reduce((sum, entry) => sum + entry.value, 0))).observe({type: 'layout-shift', buffered: true})
        || setTimeout(() => done(0), 300))"""
    assert page.evaluate(moved) < 0.01


CONTRAST = """(elements) => {
  const light = (rgb) => rgb.map((v) => v / 255).map((v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4))
    .reduce((sum, v, i) => sum + [0.2126, 0.7152, 0.0722][i] * v, 0);
  const numbers = (text) => text.match(/[0-9.]+/g).slice(0, 3).map(Number);
  const page = light(numbers(getComputedStyle(document.body).backgroundColor));
  return elements.map((one) => {
    const style = getComputedStyle(one);
    const ink = light(numbers(one.closest("svg") ? style.fill : style.color));
    return (Math.max(ink, page) + 0.05) / (Math.min(ink, page) + 0.05);
  });
}"""


@pytest.mark.parametrize("dark", [False, True])
def test_words_stand_out_from_the_page(look: Any, written: tuple[ScoreStore, Path], dark: bool) -> None:
    """At least 4.5 to 1 (WCAG 2.2, 1.4.3), also for the names at the ends of lines, whatever the lines' colours."""
    page = look(written[1], dark=dark)
    page.wait_for_selector("#p0-labels svg .mark-text text")
    for words in ("#p0-labels svg text", "figcaption", ".key", ".verdict", "td.notes", "nav a"):
        assert min(page.eval_on_selector_all(words, CONTRAST)) >= 4.5, words


def test_on_a_phone_the_score_stands_in_the_first_column(look: Any, written: tuple[ScoreStore, Path]) -> None:
    page = look(written[1], width=390)
    for table, scores in (("#overview", "th small.narrow"), ("#scores", "th small.narrow")):
        shown = page.locator(f"{table} tbody tr").first.locator(scores)
        shown.scroll_into_view_if_needed()
        assert re.search(r"\d\.\d{3} \[\d\.\d{3}, \d\.\d{3}\]", shown.inner_text())
        box = shown.bounding_box()
        assert 0 <= box["x"] < box["x"] + box["width"] <= 390
        assert box["height"] < 24, "on one line"


def test_past_two_datasets_each_has_a_page_that_works_offline(look: Any, tmp_path: Path) -> None:
    path = tmp_path / "s.sqlite"
    for dataset in ("pcam", "digits"):
        filled(path, dataset=dataset, seeds=2)
    store = filled(path, dataset=f"folder:{HOSTILE}", seeds=2)
    written = write_report(store, ReportRequest(tmp_path / "a b.html", export=False))
    index = written.page.read_text(encoding="utf-8")
    pages = [file for file in written.files[1:] if file.suffix == ".html"]
    assert len(pages) == 3
    assert len(index) < 200_000
    assert HOSTILE not in index
    links = re.findall(r'<a href="([^"#]+)">', index)
    assert [(written.page.parent / unquote(link)).resolve() for link in links] == [page.resolve() for page in pages]
    assert index.count('class="verdict') == 3
    page = look(pages[0])
    assert page.locator("#answer li").count() == 1
    back = page.get_attribute("nav a", "href")
    assert (pages[0].parent / unquote(back)).resolve() == written.page.resolve()
