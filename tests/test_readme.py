"""The README's commands exist and parse, so that they cannot rot."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import click
import pytest

from mt.cli import COMMANDS, group

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def blocks(page: Path) -> Iterator[tuple[str, str]]:
    """Yield the language and the text of each fenced block of a page."""
    for fence in re.finditer(r"^```(\w*)\n(.*?)^```$", page.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE):
        yield fence[1], fence[2]


def commands(page: Path) -> list[str]:
    """Return the `mt ...` command lines of a page's blocks: `mt` itself, or by `torchrun`."""
    shell = [text for language, text in blocks(page) if language in ("", "sh", "bash", "console")]
    lines = "\n".join(shell).replace("\\\n", " ").splitlines()
    found = [line.removeprefix("$ ") for line in lines if re.match(r"(\$ )?(mt|torchrun .*-m mt) [a-z]", line)]
    return [line.split("  #")[0].strip() for line in found]


LINES = sorted({line for page in PAGES for line in commands(page)})


@pytest.mark.parametrize("line", LINES)
def test_a_documented_command_parses(line: str) -> None:
    check_parses(line)


def check_parses(line: str) -> None:
    name, *rest = line.partition("mt ")[2].split()
    assert name in COMMANDS
    command: click.Command | None = group.get_command(click.Context(group), name)
    while isinstance(command, click.Group) and rest and rest[0] in command.commands:
        command = command.commands[rest.pop(0)]
    assert command is not None
    words = [word.strip("'\"") for word in rest]
    with click.Context(command, resilient_parsing=False) as context:
        parser = command.make_parser(context)
        parser.parse_args(words)


def every_command() -> dict[str, click.Command]:
    """Return all commands, including subcommands, by the words that people type."""
    found = {}
    for name in COMMANDS:
        command = group.get_command(click.Context(group), name)
        assert command is not None
        found[f"mt {name}"] = command
        below = command.commands if isinstance(command, click.Group) else {}
        found |= {f"mt {name} {part}": one for part, one in below.items()}
    return found


@pytest.mark.parametrize("path", every_command())
def test_every_help_ends_with_an_example_that_parses(path: str) -> None:
    words = (every_command()[path].epilog or "").removeprefix("Example: ")
    assert words.startswith(path), "its help needs an epilog, Example: mt ..."
    for line in words.split(" && "):
        check_parses(line)


def test_the_readme_shows_commands() -> None:
    assert len(commands(PAGES[0])) >= 5


def test_the_readme_fits_on_two_screens() -> None:
    assert len(PAGES[0].read_text(encoding="utf-8").splitlines()) <= 100


LINK = re.compile(r"\]\(([^)\s]+)\)|^\[[\w-]+\]: (\S+)$|<(https?://[^>\s]+)>", re.MULTILINE)


def links(page: Path) -> list[str]:
    """Return the targets of a page's links: inline, by reference, and bare; code is not a link."""
    text = re.sub(r"```.*?```|`[^`\n]*`", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    return [next(filter(None, found)) for found in LINK.findall(text)]


def anchors(page: Path) -> set[str]:
    """Return the anchors that headings make, as Markdown's table of contents does."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[-\s]+", "-", re.sub(r"[^\w\s-]", "", heading).strip().lower()) for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_of_a_page_leads_somewhere(page: Path) -> None:
    for target in links(page):
        if "://" in target:
            parts = urlsplit(target)
            assert parts.scheme == "https", f"{page.name} links to {target}"
            assert re.fullmatch(r"[a-z0-9-]+(\.[a-z0-9-]+)+", parts.netloc), f"{page.name} links to {target}"
            continue
        path, _, anchor = target.partition("#")
        there = page.parent / path if path else page
        assert there.exists(), f"{page.name} links to {target}"
        assert not anchor or anchor in anchors(there), f"{page.name} links to {target}"


def test_links_are_found() -> None:
    assert {"docs/comparison.md", "docs/report.png", "https://github.com/kaiko-ai/eva"} <= set(links(PAGES[0]))
    assert anchors(ROOT / "docs" / "backbones.md") >= {"without-a-network"}


def test_what_is_said_beside_other_tools_is_held_by_tests_that_are_there() -> None:
    named = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", (ROOT / "docs" / "comparison.md").read_text(encoding="utf-8"))
    assert len(named) >= 10
    for file, test in named:
        assert f"def {test}(" in (ROOT / file).read_text(encoding="utf-8"), f"{file}::{test}"
