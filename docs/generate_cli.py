"""Writes docs/cli.md from the commands themselves:  python docs/generate_cli.py"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import click

from mt.cli import COMMANDS, group

PAGE = Path(__file__).parent / "cli.md"
_WIDTH = 100


def page() -> str:
    """Return the reference of all commands, in the order of `mt --help`."""
    head = (
        "# Command line\n\n"
        "Written by `python docs/generate_cli.py` from the commands themselves. `mt --version` prints the version.\n"
        "Exit status: 0 done, 1 bad input or a failed check (one line says what to do), 130 interrupted.\n"
    )
    return "\n".join([head, *(part for name in COMMANDS for part in _command(f"mt {name}", _find(name)))])


def _find(name: str) -> click.Command:
    command = group.get_command(click.Context(group), name)
    assert command is not None
    return command


def _command(name: str, command: click.Command) -> Iterator[str]:
    """Yield the help of a command and of the commands below it."""
    context = click.Context(
        command,
        info_name=name,
        terminal_width=_WIDTH,
        max_content_width=_WIDTH,
        help_option_names=group.context_settings["help_option_names"],
    )
    yield f"## {name}\n\n```text\n{command.get_help(context).rstrip()}\n```\n"
    if isinstance(command, click.Group):
        for part, below in command.commands.items():
            yield from _command(f"{name} {part}", below)


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
    print(PAGE)
