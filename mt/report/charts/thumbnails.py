"""Small pictures for embedding maps, only where someone asked for them: they carry what patients' images show."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import Any

from mt.cache.catalog import Entry, cache_of
from mt.cache.salt import id_salt
from mt.errors import MtError
from mt.terminal import progress

SIDE = 56  # pixels
BUDGET = 4_000_000  # bytes of all pictures of a dataset


def thumbnails(entry: Entry, rows: Iterable[int], data_dir: Path | None, *, budget: int = BUDGET) -> dict[str, str]:
    """Return small JPEGs of a feature file's images as data URLs by id, until `budget` bytes are spent.

    Nothing where the images are not at hand; an image that cannot be read is omitted.
    """
    from mt.datasets.readers.made_from import load_recorded

    try:
        split = load_recorded(entry, data_dir).splits[entry.split]
    except (MtError, KeyError) as error:
        progress.note(f"No thumbnails of {entry.dataset}: {error}")
        return {}
    ids = split.stored_rows(partial(id_salt, cache_of(entry.path))).ids  # hashed, if the file's are
    found: dict[str, str] = {}
    for row in rows:
        (image,) = split.images.load(row, row + 1)
        text = "" if isinstance(image, Exception) else _small(image)
        budget -= len(text)
        if budget < 0:
            break
        found[ids[row]] = text
    return found


def _small(image: Any) -> str:
    """Return an image (PIL, or (H, W, 3) uint8) as the data URL of a small JPEG without its metadata."""
    from PIL import Image

    picture = (image if isinstance(image, Image.Image) else Image.fromarray(image)).convert("RGB")
    picture.thumbnail((SIDE, SIDE))
    out = io.BytesIO()
    Image.frombytes("RGB", picture.size, picture.tobytes()).save(out, "JPEG", quality=60)
    return "data:image/jpeg;base64," + base64.b64encode(out.getvalue()).decode()
