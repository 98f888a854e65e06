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
    from mt.study.finished import print_finished
    from mt.study.request import StudyRequest
    from mt.study.run import run_study
    from mt.study.study_file import parse_study, shipped

    began = time.monotonic()
    study = parse_study(shipped("demo"), Path("demo.toml"))
    request = StudyRequest.of(study, cache_dir=cache_dir, out=out)
    ran = run_study(request)
    if as_json:
        click.echo(json.dumps(ran.facts()))
    else:
        print_finished(ran, request)
    progress.note(f"Done in {time.monotonic() - began:.0f} s.")
