"""The example files of the page on scale and their commands parse; an array of jobs makes the file of one run."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from tests.test_readme import ROOT, check_parses

EXAMPLES = ROOT / "docs" / "examples"
# Runs the tasks of a job here, one after the other, and prints a number as `sbatch --parsable` does.
SBATCH = """#!/usr/bin/env bash
set -eu
tasks=none
while (($#)); do
    case $1 in
        --array=1-*) tasks=$(seq 1 "${1#--array=1-}") ;;
        --wrap) command=$2; shift ;;
    esac
    shift
done
for task in $tasks; do SLURM_ARRAY_TASK_ID=$task bash -c "$command" >&2; done
echo 1234
"""


def test_the_script_for_slurm_parses() -> None:
    subprocess.run(["bash", "-n", str(EXAMPLES / "slurm.sh")], check=True)


@pytest.mark.slow
def test_an_array_of_jobs_makes_the_file_of_one_run(tmp_path: Path) -> None:
    commands = tmp_path / "bin"
    commands.mkdir()
    for name, text in {"sbatch": SBATCH, "mt": f'#!/bin/sh\nexec {sys.executable} -m mt "$@"\n'}.items():
        (commands / name).write_text(text)
        (commands / name).chmod(0o755)
    for number in range(600):
        path = tmp_path / "photos" / ("a b", "c")[number % 2] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((8, 8, 3), number % 256, dtype=np.uint8)).save(path)
    words = ["--model", "timm:test_resnet", "--dataset", f"folder:{tmp_path / 'photos'}", "--weights", "random"]
    words += ["--device", "cpu", "--image-size", "32", "--batch-size", "64"]
    environment = {**os.environ, "PATH": f"{commands}:{os.environ['PATH']}", "PARTS": "2"}
    made = {}
    for cache, line in {
        "array": ["bash", str(EXAMPLES / "slurm.sh"), *words],
        "plain": ["mt", "featurize", *words],
    }.items():
        there = {**environment, "MT_CACHE_DIR": str(tmp_path / cache)}
        ran = subprocess.run(line, env=there, capture_output=True, text=True, check=False)
        assert ran.returncode == 0, ran.stderr
        made[cache] = {path.name: path.read_bytes() for path in (tmp_path / cache).rglob("*.h5")}
        assert not list((tmp_path / cache).rglob("*.shard"))
    assert len(made["plain"]) == 2
    assert made["array"] == made["plain"]


def test_the_job_for_kuberay_is_one_and_its_command_parses() -> None:
    job = yaml.safe_load((EXAMPLES / "kuberay.yaml").read_text(encoding="utf-8"))
    assert (job["apiVersion"], job["kind"]) == ("ray.io/v1", "RayJob")
    check_parses(job["spec"]["entrypoint"])
    cluster = job["spec"]["rayClusterSpec"]
    groups = [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]
    for group in groups:
        pod = group["template"]["spec"]
        volumes = {volume["name"] for volume in pod["volumes"]}
        for container in pod["containers"]:
            assert {mount["name"] for mount in container["volumeMounts"]} <= volumes
    assert groups[1]["template"]["spec"]["containers"][0]["resources"]["limits"]["nvidia.com/gpu"] == "1"


def test_the_job_for_ray_compiles_and_says_how_it_is_called() -> None:
    text = (EXAMPLES / "ray_job.py").read_text(encoding="utf-8")
    compile(text, "ray_job.py", "exec")
    line = next(line for line in text.splitlines() if line.startswith("python ray_job.py"))
    check_parses(f"mt featurize {line.partition('8265 ')[2]} --engine ray")


def test_the_page_links_every_example() -> None:
    page = (ROOT / "docs" / "scale.md").read_text(encoding="utf-8")
    for path in EXAMPLES.iterdir():
        assert f"](examples/{path.name})" in page
    assert shutil.which("bash")
