"""The README's commands exist and parse, so that they cannot rot."""

from __future__ import annotations

import re
from pathlib import Path

import click
import pytest

from mt.cli import COMMANDS, group

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def commands(page: Path) -> list[str]:
    """Return the `mt ...` command lines of a page's shell blocks."""
    blocks = re.findall(r"```(?:sh|console|bash)\n(.*?)```", page.read_text(), re.DOTALL)
    lines = "\n".join(blocks).replace("\\\n", " ").splitlines()
    return [line.removeprefix("$ ").split("  #")[0].strip() for line in lines if re.match(r"(\$ )?mt ", line)]


LINES = sorted({line for page in PAGES for line in commands(page)})


@pytest.mark.parametrize("line", LINES)
def test_a_documented_command_parses(line: str) -> None:
    name, *rest = line.split()[1:]
    assert name in COMMANDS
    command: click.Command | None = group.get_command(click.Context(group), name)
    while isinstance(command, click.Group) and rest and rest[0] in command.commands:
        command = command.commands[rest.pop(0)]
    assert command is not None
    words = [word.strip("'\"") for word in rest]
    with click.Context(command, resilient_parsing=False) as context:
        parser = command.make_parser(context)
        parser.parse_args(words)


def test_the_readme_shows_commands() -> None:
    assert len(commands(PAGES[0])) >= 5


def test_every_link_of_a_page_leads_somewhere() -> None:
    for page in PAGES:
        for target in re.findall(r"\]\((?!https?://|#)([^)#]+)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"
