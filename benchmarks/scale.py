"""Many rows: how long a table of 100,000 and of 1,000,000 images takes to list, to recognise and to start probing.

`python -m benchmarks.scale [ROWS ...] [--folder FOLDER]`.  Each step is a process of its own, whose peak memory is
stated less that of the same process without rows.  The images are hard links to a few small files, so that a million of
them need no disk but their names; the cache holds embeddings of 8 numbers, written by the real writer.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks._pairs import machine

ROWS = (100_000, 1_000_000)
FOLDER_ROWS = 10_000  # images in one folder
LINKS = 20_000  # names of one file: file systems limit them
DIM = 8
STEPS = ("imports", "list", "featurize", "recognise", "read", "catalog", "probe")
# What must be reached at a million rows: seconds, and bytes of memory per row.
GOALS = {"list": (20.0, 400), "recognise": (5.0, None)}


def main(arguments: list[str] | None = None) -> None:
    """Print seconds and memory of each step at each number of rows."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scale")
    parser.add_argument("rows", nargs="*", type=int, default=list(ROWS))
    parser.add_argument("--folder", type=Path, help="where the images and the cache go, then removed")
    parser.add_argument("--split", action="store_true", help="the table has a column of splits: none is drawn")
    asked = parser.parse_args(arguments)
    print(f"  {machine()}")
    for rows in asked.rows:
        with tempfile.TemporaryDirectory(prefix="mt-scale-", dir=asked.folder) as folder:
            began = time.perf_counter()
            table = made(Path(folder), rows, split=asked.split)
            print(f"  {rows:,} rows, made in {time.perf_counter() - began:.0f} s", flush=True)
            base = 0.0
            for step in STEPS:
                found = measured(step, table)
                base = base or found["peak"]
                each = (found["peak"] - base) / rows
                parts = ", ".join(f"{name} {value:.2f} s" for name, value in found["seconds"].items())
                memory = f"peak {found['peak'] / 1e6:.0f} MB, {each:,.0f} bytes per row"
                print(f"    {step:<10} {parts}; {memory}", flush=True)


def made(folder: Path, rows: int, *, split: bool = False) -> Path:
    """Write a table of this many images and the images; return the table."""
    from PIL import Image

    table = folder / "tiles.csv"
    with table.open("w", encoding="utf-8") as file:
        file.write("image,label,patient,sex" + (",split\n" if split else "\n"))
        for row in range(rows):
            place = f"images/{row // FOLDER_ROWS:04}/tile-{row:08}.png"
            if row % FOLDER_ROWS == 0:
                (folder / place).parent.mkdir(parents=True)
            if row % LINKS == 0:
                source = folder / place
                Image.new("RGB", (8, 8), (row // LINKS % 256, row // LINKS // 256, 7)).save(source)
            else:
                os.link(source, folder / place)
            part = "," + ("test" if row % 5 == 0 else "train") if split else ""
            file.write(
                f"{place},{('benign', 'malignant')[row * 7919 % 13 > 8]},P{row // 20:07},{'FM'[row % 2]}{part}\n"
            )
    return table


def measured(step: str, table: Path) -> dict[str, Any]:
    """Return the seconds of each part of a step and the peak memory of its process, in bytes."""
    home = table.parent / "home"
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("MT_", "XDG_"))}
    clean |= {"HOME": str(home), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks._scale_steps", step, str(table)],
        stdout=subprocess.PIPE,
        text=True,
        env=clean,
    )
    if done.returncode:
        raise SystemExit(f"{step} failed: {done.returncode}")
    return dict(json.loads(done.stdout.splitlines()[-1]))


if __name__ == "__main__":
    main()
