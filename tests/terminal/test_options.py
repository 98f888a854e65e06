"""Options that several commands share."""

from __future__ import annotations

import click
import pytest
from click.testing import CliRunner

from mt.cli import group
from mt.terminal import options


@click.command()
@click.option("--before", default="x")
@options.device
@click.option("--memory", type=options.MemoryAmount())
def command(before: str, device: str, memory: int | None) -> None:
    """Show what was given."""
    click.echo(f"{before} {device} {memory}")


def test_the_cap_is_set_before_the_command_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[tuple[int, str]] = []

    def cap(amount: int, device: str) -> None:
        calls.append((amount, device))

    monkeypatch.setattr(options, "cap_gpu_memory", cap)
    done = CliRunner().invoke(command, ["--gpu-memory", "512MB", "--device", "cuda:1", "--memory", "2"])
    assert (done.stdout, calls) == (f"x cuda:1 {2 << 30}\n", [(512 << 20, "cuda:1")])


def test_without_the_option_nothing_is_capped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(options, "cap_gpu_memory", lambda *_: pytest.fail("not asked for"))
    assert CliRunner().invoke(command, []).stdout == "x auto None\n"


def test_on_a_cpu_one_line_says_that_the_cap_has_no_effect() -> None:
    done = CliRunner().invoke(command, ["--gpu-memory", "8GB", "--device", "cpu"])
    assert done.stderr == "Note: --gpu-memory has no effect: this run computes on cpu.\n"
    assert done.exit_code == 0


@pytest.mark.parametrize("name", ["featurize", "probe", "fuse", "predict", "study"])
def test_every_command_with_a_device_takes_a_cap(name: str) -> None:
    words = CliRunner().invoke(group, [name, "--help"]).stdout
    assert "--device" in words
    assert "--gpu-memory AMOUNT" in words
    done = CliRunner().invoke(group, [name, "--gpu-memory", "much"])
    assert str(done.exception) == "--gpu-memory takes an amount of memory such as 4, 4GB or 512MB; got 'much'."
