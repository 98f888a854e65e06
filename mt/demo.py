"""`mt demo`: a shipped study on real input, with nothing to download."""

from __future__ import annotations

import json
import time
from pathlib import Path

import click

from mt.terminal import options, progress


@click.command(epilog="Example: mt demo --cache-dir ./features")
@options.cache_dir
@click.option("--out", type=click.Path(dir_okay=False), help="The report.  [default: mt-demo.html, in this folder]")
@options.as_json
def demo(cache_dir: str | None, out: str | None, as_json: bool) -> None:
    """Run a whole study on real images, with nothing to download, and end with its report.

    scikit-learn's 1,797 scanned digits and generated tissue patches go through three EfficientNets with ImageNet
    weights from the package index; linear probes on 1 %, 10 % and 100 % of the labels show what few labels buy, their
    fusion with DVME what several models add.
    """
    from mt.study.run import places, print_ran, run_study
    from mt.study.study_file import parse_study, shipped

    began = time.monotonic()
    where = places(cache_dir)
    study = parse_study(shipped("demo"), Path("demo.toml"))
    ran = run_study(study, where, out=Path(out).absolute() if out else None)
    if as_json:
        click.echo(json.dumps(ran.facts()))
    else:
        print_ran(ran, where)
    progress.note(f"Done in {time.monotonic() - began:.0f} s.")
