"""`--device` and `--gpu-memory`, and the cap on a GPU's memory."""

from __future__ import annotations

from types import SimpleNamespace

import click
import pytest
import torch
from click.testing import CliRunner

from mt.cli import group
from mt.system.device import cap_gpu_memory, device_options
from mt.terminal.options import MemoryAmount

GB = 1 << 30


@pytest.mark.parametrize(
    ("device", "environment", "amount", "capped"),
    [
        ("cuda:0", {}, 20 * GB, (0.25, 0)),
        ("cuda", {}, 20 * GB, (0.25, 1)),
        ("cuda", {"LOCAL_RANK": "3"}, 20 * GB, (0.25, 3)),
        ("auto", {}, 800 * GB, (1.0, 1)),
    ],
)
def test_the_cap_is_on_the_card_that_computes(
    device: str, environment: dict[str, str], amount: int, capped: tuple[float, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    caps: list[tuple[float, int]] = []
    monkeypatch.setattr(torch, "empty", lambda *args, **named: None)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 1)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: SimpleNamespace(total_memory=80 * GB))
    monkeypatch.setattr(
        torch.cuda, "set_per_process_memory_fraction", lambda share, where: caps.append((share, where.index))
    )
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert cap_gpu_memory(amount, device) is None
    assert caps == [capped]


@pytest.mark.parametrize("device", ["cpu", "pretend"])
def test_elsewhere_the_cap_says_that_it_has_no_effect(
    device: str, pretend: torch.device, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "set_per_process_memory_fraction", lambda *_: pytest.fail("there is no card"))
    line = cap_gpu_memory(GB, device)
    assert line == f"Note: --gpu-memory has no effect: this run computes on {device}."


@click.command()
@click.option("--before", default="x")
@device_options
@click.option("--memory", type=MemoryAmount())
def command(before: str, device: str, memory: int | None) -> None:
    """Show what was given."""
    click.echo(f"{before} {device} {memory}")


def test_the_cap_is_set_before_the_command_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[tuple[int, str]] = []

    def cap(amount: int, device: str) -> None:
        calls.append((amount, device))

    monkeypatch.setattr("mt.system.device.cap_gpu_memory", cap)
    done = CliRunner().invoke(command, ["--gpu-memory", "512MB", "--device", "cuda:1", "--memory", "2"])
    assert (done.stdout, calls) == (f"x cuda:1 {2 << 30}\n", [(512 << 20, "cuda:1")])


def test_without_the_option_nothing_is_capped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mt.system.device.cap_gpu_memory", lambda *_: pytest.fail("not asked for"))
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
