"""Every command on a page runs as it stands there, from top to bottom, unless it needs weights.

Features of models whose weights must be downloaded are put in the cache as `mt featurize` would leave them.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from mt.cli import group
from mt.system import files
from tests.importing.elsewhere import slide, write_table
from tests.probe.features import write_features, write_pair
from tests.test_readme import PAGES, commands

# Beginnings of lines that are not run, each with its reason.
NOT_RUN = {
    "mt featurize --model dino": "its weights are downloaded",
    "mt featurize --model simclr": "its weights are downloaded",
    "mt fuse --unfreeze": "its weights are downloaded, and it needs the images",
    "mt doctor --engine": "it needs a Ray cluster at that address",
    "torchrun": "its weights are downloaded, and it needs the images",
    "mt predict models slides/": "its weights are downloaded",
    "mt study paper.toml": "its weights are downloaded",
    "mt study study.toml": "runs as tests/study do; its dry run is run here",
    "mt models convert FILE": "FILE is the reader's own",
    "mt cache import FEATURES_DIRECTORY": "a folder of the reader's own; test_bags.py has CLAM's layout",
    'mt report --experiment "': "the name is that of a report of the reader's own",
}


def picture(path: Path, seed: int, shade: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(seed).integers(0, 60, (32, 32, 3))
    Image.fromarray((noise + shade).astype(np.uint8)).save(path)


def pcam(cache: Path) -> None:
    for model in ("simclr", "swav", "dino"):
        write_pair(cache, "pcam", model, n=400)


def photographs(cache: Path) -> None:
    """Write the `photos/`, `scans.csv` and `study.toml` that the first pages use."""
    pcam(cache)
    for number in range(12):
        for folder, shade in (("normal", 60), ("lesion", 120)):
            picture(Path("photos", folder, f"{number:03}.png"), number + shade, shade)
    rows = [
        (f"photos/{folder}/{number:03}.png", folder, f"p{number}")
        for number in range(12)
        for folder in ("normal", "lesion")
    ]
    write_table(
        Path("scans.csv"), dict(zip(("image", "label", "patient"), map(list, zip(*rows, strict=True)), strict=True))
    )
    Path("study.toml").write_text('datasets = ["folder:photos"]\nmodels = ["efficientnet-lite0"]\n')


def scores(cache: Path) -> None:
    pcam(cache)
    ran = CliRunner().invoke(group, ["probe", "--dataset", "pcam", "--fraction", "0.1", "--fraction", "1"])
    assert ran.exit_code == 0, ran.output


def elsewhere(cache: Path) -> None:
    """Write embeddings as other programs do, and bags of our own features."""
    random = np.random.default_rng(0)
    write_pair(cache, "digits", "dino")
    for part, n in (("train", 60), ("test", 40)):
        y = np.arange(n) % 2
        np.save(f"x{part[:2]}.npy", random.normal(y[:, None], 1, (n, 6)).astype(np.float32))
        np.save(f"y{part[:2]}.npy", y)
    names, n_of = [], {"train": 120, "test": 80}
    for split, n in n_of.items():
        names += [f"{split}-{row}" for row in range(n)]
    np.savez("uni2.npz", embeddings=random.normal(size=(len(names), 5)).astype(np.float32), ids=np.array(names))
    tiles = Path("trident/20x_256px_0px_overlap/features_uni_v2")
    for number in range(40):
        slide(tiles / f"S{number}.h5", random.normal(number % 2, 1, (9, 6)).astype(np.float32))
    cases = [f"S{number}.svs" for number in range(40)]
    splits = ["test" if number % 5 > 2 else "train" for number in range(40)]
    labels = [("benign", "tumour")[number % 2] for number in range(40)]
    write_table(Path("slides.csv"), {"slide_id": cases, "label": labels, "split": splits})
    for split, n in n_of.items():
        write_features(cache, "table:views", "dino", split, n=n, labels=np.arange(n) // 4 % 2, grouped=True)


PAGES_WITH_FILES: dict[str, Callable[[Path], None]] = {"import.md": elsewhere, "report.md": scores}


def skipped(line: str) -> bool:
    return any(line.startswith(start) for start in NOT_RUN) and "--dry-run" not in line


@pytest.mark.slow
@pytest.mark.parametrize(
    "page", [page for page in PAGES if page.name != "cli.md" and commands(page)], ids=lambda page: page.name
)
def test_the_commands_of_a_page_run(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    cache = files.cache_dir(None)
    PAGES_WITH_FILES.get(page.name, photographs)(cache)
    for line in commands(page):
        if skipped(line):
            continue
        ran = CliRunner().invoke(group, shlex.split(line, comments=True)[1:], env={"COLUMNS": "200"})
        assert ran.exit_code == 0, f"{page.name}: {line}\n{ran.output}\n{ran.exception!r}"


def test_every_line_that_is_not_run_is_on_a_page() -> None:
    lines = [line for page in PAGES for line in commands(page)]
    for start in NOT_RUN:
        assert any(line.startswith(start) for line in lines), f"no page has a line that begins with: {start}"
