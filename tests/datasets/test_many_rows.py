"""Tables of many images: memory per row stays small, and fingerprints equal those of lists of strings."""

from __future__ import annotations

import os
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mt.cache.content import ContentIndex
from mt.cache.names import digest, digest_of_rows
from mt.datasets import Dataset, load_dataset
from mt.types import Prefixed, Texts

BYTES = 400  # of memory that a row may take while its table is read


def written(folder: Path, rows: int) -> Path:
    """Write a table of this many images, all but the first hard links to it."""
    images = folder / f"images-{rows}"
    images.mkdir()
    lines = ["image,label,patient,sex"]
    for row in range(rows):
        image = images / f"tile-{row:08}.png"
        if row == 0:
            Image.new("RGB", (4, 4)).save(image)
        else:
            os.link(images / "tile-00000000.png", image)
        label = ("benign", "malignant")[row * 7919 % 13 > 8]
        lines.append(f"{images.name}/{image.name},{label},P{row // 20:07},{'FM'[row % 2]}")
    table = folder / f"{rows}.csv"
    table.write_text("\n".join(lines) + "\n")
    return table


def peak_of(table: Path) -> tuple[Dataset, int]:
    tracemalloc.start()
    try:
        dataset = load_dataset(f"table:{table}")
        return dataset, tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_a_row_of_a_table_takes_few_bytes(tmp_path: Path) -> None:
    small, large = written(tmp_path, 10_000), written(tmp_path, 30_000)
    load_dataset(f"table:{small}")
    peaks = {table: peak_of(table)[1] for table in (small, large)}
    assert peaks[large] - peaks[small] < 20_000 * BYTES


def test_ids_groups_and_paths_of_a_table_are_arrays(tmp_path: Path) -> None:
    split = load_dataset(f"table:{written(tmp_path, 200)}").splits["train"]
    assert isinstance(split.ids, Texts)
    assert isinstance(split.groups, Texts)
    assert isinstance(split.images.paths, Prefixed)  # type: ignore[attr-defined]
    assert split.images.paths.rest is split.ids  # type: ignore[attr-defined]


def test_a_split_is_described_as_its_lists_would_be(tmp_path: Path) -> None:
    split = load_dataset(f"table:{written(tmp_path, 200)}").splits["train"]
    described = split.describe(ContentIndex(tmp_path / "index.sqlite"))
    assert described["ids"] == digest(list(split.ids))
    assert described["labels"] == digest(split.labels.tolist())
    assert described["groups"] == digest(list(split.groups or ()))
    assert described["columns"]["sex"] == digest(list(split.columns["sex"]))


@pytest.mark.parametrize("count", [0, 1, (1 << 13) - 1, 1 << 13, (1 << 13) + 1, 3 << 13])
def test_the_digest_of_many_rows_is_that_of_their_list(count: int) -> None:
    for values in ([f"é{row}" for row in range(count)], [None] * count, [[row, 1.5] for row in range(count)]):
        assert digest_of_rows(values) == digest(values)
    assert digest_of_rows(np.arange(count)) == digest(list(range(count)))
