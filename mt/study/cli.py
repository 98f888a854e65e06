"""`mt study`: a grid of datasets, models, budgets and methods from one file, ending with the report."""

from __future__ import annotations

import json
import shlex
from dataclasses import asdict
from pathlib import Path

import click

from mt.errors import InputError, MtError
from mt.system import files
from mt.system.device import device_options, first_device
from mt.terminal import options
from mt.terminal.progress import counted


@click.command(epilog="Example: mt study --paper && mt study paper.toml --dry-run")
@click.argument("file", type=click.Path(dir_okay=False), required=False)
@click.option("--dry-run", is_flag=True, help="Print what would be done and how large it is, and stop.")
@click.option("--paper", is_flag=True, help="Write the paper's own study to FILE (paper.toml without one), and stop.")
@click.option("--out", type=click.Path(dir_okay=False), help="The report.  [default: what FILE says, or report.html]")
@options.cache_dir
@options.scores
@device_options
@options.engine
@options.as_json
def study(
    file: str | None,
    dry_run: bool,
    paper: bool,
    out: str | None,
    cache_dir: str | None,
    scores: str | None,
    device: str,
    engine: str,
    as_json: bool,
) -> None:
    """Run the study that FILE describes: do what is missing, skip what is stored, and draw the report.

    FILE is TOML: datasets, models, methods (probe, concat, average, dvme, fine-tune), fractions or shots, seeds,
    protocols.  After an interruption the same command resumes.
    """
    from mt.study.dry_run import plan
    from mt.study.request import StudyRequest
    from mt.study.run import run_study
    from mt.study.study_file import load_study

    if paper:
        _write_paper(Path(file or "paper.toml"))
        return
    if file is None:
        raise InputError("FILE is missing: expected a study file. Write the paper's to start from: mt study --paper")
    first_device(device, "Fitting")
    request = StudyRequest.of(
        load_study(Path(file)), cache_dir=cache_dir, scores=scores, device=device, out=out, engine=engine
    )
    if dry_run:
        for line in plan(request):
            stored = f"  ({line.stored})" if line.stored else ""
            click.echo(json.dumps(asdict(line)) if as_json else f"{line.what}: {line.size}{stored}")
        return
    ran = run_study(request)
    if as_json:
        click.echo(json.dumps(ran.facts()))
    else:
        from mt.study.finished import print_finished

        print_finished(ran, request)
    if ran.missing:
        are = counted(len(ran.missing), "step of the plan is", "steps of the plan are")
        raise MtError(
            f"{are} missing, first: {ran.missing[0]} "
            f"The report holds the others; to do what is missing: mt study {shlex.quote(str(file))}"
        )


def _write_paper(path: Path) -> None:
    """Write the paper's study where there is no file yet."""
    from mt.study.study_file import shipped

    if path.exists():
        raise InputError(f"{path} is there already: expected a new file. Run it: mt study {path} --dry-run")
    files.write_whole(path, shipped("paper").encode())
    click.echo(f"{path}\n  See what it would do: mt study {path} --dry-run")
