"""A study that is killed, or stopped by Ctrl-C: the same command resumes, and nothing is doubled or lost."""

from __future__ import annotations

import hashlib
import json
import os
import re
import signal
import sqlite3
import subprocess
import sys
from collections import Counter
from contextlib import closing
from pathlib import Path

import pytest

from mt.results.store import ScoreStore

STUDY = """
datasets = ["synthetic@60"]
models = ["efficientnet-lite0", "efficientnet-lite1"]
methods = ["probe", "concat"]
fractions = [0.5, 1.0]
seeds = 2
[featurize]
image_size = 32
"""
pytestmark = pytest.mark.slow
FITS = 3 * (2 + 1)
# Runs `mt`, and sends itself a signal when a function has been called N times.
DRIVER = """
import importlib, os, sys
module, place, after, number, *arguments = sys.argv[1:]
*owner, name = place.split(".")
target = importlib.import_module(module)
for part in owner:
    target = getattr(target, part)
plain, left = getattr(target, name), int(after)
def counted(*given, **named):
    global left
    found = plain(*given, **named)
    left -= 1
    if left == 0:
        os.kill(os.getpid(), int(number))
    return found
setattr(target, name, counted)
from mt.cli import main
main(arguments)
"""
# Where a study is stopped, one point after another: after the first block of features, after two of its six probes,
# after one of its three fusions, after the report's page.
POINTS = {
    "features": ("mt.cache.feature_file.write", "FeatureWriter.write_block", 1),
    "probes": ("mt.results.store", "ScoreStore.add_fit", 2),
    "fusions": ("mt.results.store", "ScoreStore.add_fit", 5),
    "report": ("mt.report.writing", "_write", 1),
}


def study(folder: Path, *, stop: str | None = None, sent: int = 0) -> subprocess.CompletedProcess[str]:
    """Run the study in a folder, stopped at a point or not."""
    (folder / "study.toml").write_text(STUDY, encoding="utf-8")
    asked = ["study", "study.toml", "--json", "--cache-dir", str(folder / "cache")]
    command = ["-m", "mt"] if stop is None else ["-c", DRIVER, *map(str, POINTS[stop]), str(sent)]
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("MT_", "XDG_"))} | {"HOME": str(folder)}
    run = [sys.executable, *command, *asked]
    return subprocess.run(run, capture_output=True, text=True, cwd=folder, env=clean, check=False)


def kept(folder: Path) -> dict[str, str]:
    """Return a hash of the predictions of each fit that the store holds, by identity."""
    path = folder / "cache" / "scores.sqlite"
    if not path.exists():
        return {}
    with closing(sqlite3.connect(path)) as sql:
        rows = sql.execute("SELECT identity, probabilities FROM fits").fetchall()
    return {identity: hashlib.sha256(content).hexdigest() for identity, content in rows}


def scored(folder: Path) -> Counter[str]:
    """Return how many scores each fit has."""
    with ScoreStore(folder / "cache" / "scores.sqlite") as store:
        return Counter(score.fit for score in store.scores())


def features(folder: Path) -> dict[str, str]:
    files = sorted((folder / "cache").rglob("*.h5"))
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("undisturbed")
    ran = study(folder)
    assert ran.returncode == 0, ran.stderr
    assert len(kept(folder)) == FITS
    return folder


def test_killed_at_every_point_the_same_command_goes_on(undisturbed: Path, tmp_path: Path) -> None:
    stored = []
    for point in POINTS:
        killed = study(tmp_path, stop=point, sent=signal.SIGKILL)
        assert killed.returncode == -signal.SIGKILL, killed.stderr
        stored.append(len(kept(tmp_path)))
    assert stored == [0, 2, 7, FITS]
    check_the_rest(tmp_path, undisturbed)


def test_after_ctrl_c_too_and_it_says_so(undisturbed: Path, tmp_path: Path) -> None:
    for point in ("features", "probes"):
        stopped = study(tmp_path, stop=point, sent=signal.SIGINT)
        assert stopped.returncode == 130, stopped.stderr
        assert stopped.stderr.splitlines()[-1].startswith("Stopped: ")
        assert "same command" in stopped.stderr.splitlines()[-1]
        assert "Traceback" not in stopped.stderr
    assert 0 < len(kept(tmp_path)) < FITS
    check_the_rest(tmp_path, undisturbed)


def check_the_rest(folder: Path, undisturbed: Path) -> None:
    """Run the study to its end: what was stored is skipped and stays as it is, and all is as if undisturbed."""
    before, finished = kept(folder), features(folder)
    again = study(folder)
    assert again.returncode == 0, again.stderr
    assert n_stored(again) == len(before)
    assert before.items() <= kept(folder).items()
    assert kept(folder) == kept(undisturbed)
    assert set(scored(folder).values()) == {1}
    assert finished.items() <= features(folder).items()
    assert features(folder) == features(undisturbed)
    assert Path(json.loads(again.stdout)["page"]).read_text(encoding="utf-8").endswith("</html>")
    assert not list(folder.glob("**/.*.partial"))


def n_stored(ran: subprocess.CompletedProcess[str]) -> int:
    """Return how many fits a run found in the store, as it says."""
    counts = [re.search(r"(\d+) fitted, (\d+) stored", line) for line in ran.stderr.splitlines()]
    return sum(int(count[2]) for count in counts if count)
