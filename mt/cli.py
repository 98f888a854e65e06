"""The `mt` command: a lazy group, one line per command; a stage is imported when one of its commands runs."""

from __future__ import annotations

import errno
import importlib
import os
import sys
from collections.abc import Sequence
from typing import Any, NoReturn

import click

from mt.errors import MtError

# command -> (module:attribute, the line `mt --help` shows)
COMMANDS = {
    "featurize": ("mt.featurize.cli:featurize", "Embed a dataset's images with frozen backbones, once."),
    "probe": ("mt.probe.cli:probe", "Fit linear probes on cached features and print the scores."),
    "fuse": ("mt.fuse.cli:fuse", "Fuse the features of several models with DVME."),
    "predict": ("mt.predict.cli:predict", "Predict for new images with a saved probe or DVME."),
    "study": ("mt.study.cli:study", "Run a grid of datasets, models and budgets from one file."),
    "report": ("mt.report.cli:report", "Draw the stored scores as one offline HTML page."),
    "models": ("mt.backbones.cli:models", "List the backbones; convert a checkpoint."),
    "datasets": ("mt.datasets.cli:datasets", "List the datasets; check one before using it."),
    "cache": ("mt.cache.cli:cache", "List, import, verify, export and clean the feature files."),
    "doctor": ("mt.doctor:doctor", "Check this machine: what is missing, and how to get it."),
    "demo": ("mt.demo:demo", "Run a whole study on real images, with nothing to download."),
}
# Commands that join a group of a lower floor: their modules may import what the group's own may not.
ABOVE = {"cache": ("mt.importing.cli:import_", "mt.upkeep.cli:upgrade", "mt.upkeep.cli:forget")}


class LazyGroup(click.Group):
    """A group that imports a command's module when the command is asked for, not to list it."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        command = _load(COMMANDS[cmd_name][0])
        if cmd_name in ABOVE and isinstance(command, click.Group):
            for one in ABOVE[cmd_name]:
                command.add_command(_load(one))
        if "_MT_COMPLETE" not in os.environ:
            return command
        from mt.completion import with_completions

        return with_completions(command)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and not args[0].startswith("-") and args[0] not in COMMANDS:
            from mt.errors import unknown

            raise unknown("command", args[0], COMMANDS, see="mt --help")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, line) for name, (_, line) in COMMANDS.items()])


def _version(ctx: click.Context, _: click.Parameter, asked: bool) -> None:
    if not asked:
        return
    from importlib.metadata import version

    from mt.system.extras import DISTRIBUTION, missing_of_extras

    missing = missing_of_extras()
    click.echo(f"mt {version(DISTRIBUTION)}, Python {sys.version.split()[0]}, torch {version('torch')}")
    click.echo(f"extras installed: {', '.join(extra for extra in missing if not missing[extra]) or 'none'}")
    for extra, names in missing.items():
        if names:
            click.echo(f"not installed: {extra} ({', '.join(names)}): pip install '{DISTRIBUTION}[{extra}]'")
    ctx.exit()


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--version",
    is_flag=True,
    expose_value=False,
    is_eager=True,
    callback=_version,
    help="Show the versions of mt and its extras, and exit.",
)
def group() -> None:
    """Which pretrained features suit a medical image classifier, with how many labels?

    \b
    mt featurize --model dino --dataset pcam
    mt probe --fraction 0.01
    mt fuse
    """


def main(args: list[str] | None = None) -> NoReturn:
    """Run the command line: an error becomes one line on stderr and exit status 1.

    Exit status: 0 done, 1 bad input or a failed check, 130 interrupted.  `MT_DEBUG=1` shows tracebacks.
    """
    if sys.platform == "win32":
        _fail("mt runs on Linux and macOS, not on Windows. Use WSL: https://learn.microsoft.com/windows/wsl")
    try:
        status = group.main(args=args, prog_name="mt", standalone_mode=False)
        sys.stdout.flush()
    except click.exceptions.NoArgsIsHelpError as help_text:
        click.echo(help_text.format_message())
        status = 0
    except (KeyboardInterrupt, click.Abort) as stop:
        # click turns a Ctrl-C inside a command into an Abort whose cause is the interrupt.
        _fail(str(stop.__cause__ or stop) or "Interrupted.", status=130)
    except Exception as error:
        if os.environ.get("MT_DEBUG"):
            raise
        _fail(_explain(error, sys.argv[1:] if args is None else args))
    sys.exit(status if isinstance(status, int) else 0)


def _load(place: str) -> click.Command:
    """Import a command by `module:attribute`."""
    module, attribute = place.split(":")
    command: click.Command = getattr(importlib.import_module(module), attribute)
    return command


def _explain(error: Exception, args: Sequence[str]) -> str:
    """Return the one line that says what was wrong."""
    if isinstance(error, MtError):
        return str(error)
    if isinstance(error, click.UsageError):
        return f"{error.format_message()} See: {error.ctx.command_path if error.ctx else _command(args)} --help"
    if isinstance(error, click.ClickException):
        return error.format_message()
    if isinstance(error, BrokenPipeError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return "The program that read the output has ended."
    if isinstance(error, OSError) and error.errno is not None:
        where = f" {error.filename}" if error.filename else ""
        extra = " Free some space and run the same command again." if error.errno == errno.ENOSPC else ""
        return f"{error.strerror}:{where}{extra}" if where else f"{error.strerror}.{extra}"
    if isinstance(error, MemoryError):
        return "Out of memory. Use a smaller --batch-size, or close other programs."
    return f"Internal error, please report it: {type(error).__name__}: {error} (MT_DEBUG=1 shows where it happened)"


def _command(args: Sequence[str]) -> str:
    """Return the command that arguments name, as `mt cache list`; click's parser error lacks it."""
    command: click.Command | None = group
    path = ["mt"]
    for word in args:
        command = command.get_command(click.Context(command), word) if isinstance(command, click.Group) else None
        if command is None:
            break
        path.append(word)
    return " ".join(path)


def _fail(message: str, *, status: int = 1) -> NoReturn:
    from rich.console import Console

    line = " ".join(message.split())
    Console(stderr=True, highlight=False, soft_wrap=True).print(
        "[bold red]Error:[/]" if status == 1 else "[yellow]Stopped:[/]", _plain(line)
    )
    sys.exit(status)


def _plain(text: str) -> Any:
    """Return text that rich prints as it is: brackets in a file name are not markup."""
    from rich.text import Text

    return Text(text)
