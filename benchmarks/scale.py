"""Seconds and memory of each command on 100,000 and on 1,000,000 images.

    python -m benchmarks.scale [ROWS ...] [--generated] [--folder FOLDER]
    python -m benchmarks.scale --writer [--workers K]

The first form measures six steps: list the table, featurize it, recognise the finished files, read them, find them in
the catalog, and probe them.  Each step runs in its own process.  "Bytes per row" is the peak memory of that process,
minus the peak with 1,000 rows, divided by the rows.  The images are hard links to a few small files, so that a million
of them need disk only for their names.  They are listed and hashed, but not decoded.  A network of one layer computes 8
numbers per image.  With `--generated` there are no files: the rows are made in memory.

The second form measures how fast one process writes what K simulated workers send.  Their network computes nothing.  It
writes two kinds of files, one with ordinary blocks and one with small blocks, at two lengths each.
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
FOLDER_ROWS = 10_000  # images per folder
LINKS = 20_000  # hard links per file: file systems limit their number
DIM = 8
STEPS = ("list", "featurize", "recognise", "read", "catalog", "probe")
FEW = 1_000  # rows of the process whose peak memory is subtracted
# The files of `--writer`: name, width, type, and the number of blocks of a short and of a long one.
FILES = (("ordinary", 1536, "float32", (200, 800)), ("small", 8, "float16", (2_000, 8_000)))


def main(arguments: list[str] | None = None) -> None:
    """Print seconds and memory of each step at each number of rows."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scale")
    parser.add_argument("rows", nargs="*", type=int, default=list(ROWS))
    parser.add_argument("--folder", type=Path, help="where the images and the cache go, then removed")
    parser.add_argument("--generated", action="store_true", help="rows without a table and without files")
    parser.add_argument("--split", action="store_true", help="the table has a column of splits: none is drawn")
    parser.add_argument("--writer", action="store_true", help="measure the process that writes, and nothing else")
    parser.add_argument("--workers", type=int, default=8, help="simulated workers of --writer")
    asked = parser.parse_args(arguments)
    if asked.folder:
        asked.folder.mkdir(parents=True, exist_ok=True)
    print(f"  {machine()}")
    if asked.writer:
        writer(asked.workers, asked.folder)
        return
    for rows in asked.rows:
        with tempfile.TemporaryDirectory(prefix="mt-scale-", dir=asked.folder) as folder:
            began = time.perf_counter()
            if not asked.generated:
                made(Path(folder), rows, split=asked.split)
            print(f"  {rows:,} rows, made in {time.perf_counter() - began:.0f} s", flush=True)
            steps(Path(folder), rows)


def steps(folder: Path, rows: int) -> None:
    """Print the seconds and the memory of each step, and the size of the files on disk."""
    few = folder / "few"
    few.mkdir()
    without = {step: measured(step, few, FEW)["peak"] for step in STEPS}
    for step in STEPS:
        found = measured(step, folder, rows)
        parts = ", ".join(f"{name} {wall:.2f} s ({cpu:.2f} of CPU)" for name, (wall, cpu) in found["seconds"].items())
        each = (found["peak"] - without[step]) / rows
        print(f"    {step:<10} {parts}; peak {found['peak'] / 1e6:.0f} MB, {each:,.0f} bytes per row", flush=True)
        if step == "featurize":
            sizes = {"feature files": size_of(folder / "cache"), "hashes": size_of(folder / "home")}
            disk = ", ".join(f"{name} {size / 1e6:.0f} MB, {size / rows:,.0f} per row" for name, size in sizes.items())
            print(f"    disk       {disk}", flush=True)


def size_of(folder: Path) -> int:
    """Return the bytes of all files below a folder."""
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


def writer(workers: int, folder: Path | None = None) -> None:
    """Print how fast blocks are written, per second and per CPU second, and how much memory the process adds."""
    print(
        f"  {workers} simulated workers; blocks of 256 rows; must reach 200 MB/s (ordinary) and 1,000 blocks/s (small)"
    )
    for name, dim, dtype, lengths in FILES:
        for blocks in lengths:
            with tempfile.TemporaryDirectory(prefix="mt-scale-", dir=folder) as place:
                words = [str(Path(place) / "file.h5"), str(blocks), str(dim), dtype, str(workers)]
                found = said([sys.executable, "-m", "benchmarks._scale_writer", *words], dict(os.environ))
            wall, cpu, size = found["seconds"], found["cpu"], found["bytes"] / 1e6
            rates = f"{size / wall:,.0f} MB/s, {blocks / wall:,.0f} blocks/s, {wall:.2f} s"
            of_cpu = f"per second of CPU {size / cpu:,.0f} MB, {blocks / cpu:,.0f} blocks"
            print(f"    {name:<9} {blocks:>6,} blocks of {dim} {dtype}: {rates}; {of_cpu}", end="; ")
            print(f"memory {found['added'] / 1e6:.0f} MB", flush=True)


def made(folder: Path, rows: int, *, split: bool = False) -> None:
    """Write the images, and the table that lists them."""
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


def measured(step: str, folder: Path, rows: int) -> dict[str, Any]:
    """Run a step in its own process; return wall and CPU seconds of each part, and the peak memory in bytes."""
    home = folder / "home"
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("MT_", "XDG_"))}
    clean |= {"HOME": str(home), "OMP_NUM_THREADS": "1"}
    return said([sys.executable, "-m", "benchmarks._scale_steps", step, str(folder), str(rows)], clean)


def said(command: list[str], environment: dict[str, str]) -> dict[str, Any]:
    """Run a command and return the JSON in its last line."""
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, env=environment)
    if done.returncode:
        raise SystemExit(f"{' '.join(command[2:])} failed: {done.returncode}")
    return dict(json.loads(done.stdout.splitlines()[-1]))


if __name__ == "__main__":
    main()
