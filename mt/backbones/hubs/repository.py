"""A model's files as its publisher lays them out: in a local folder, or in a repository of the Hugging Face hub."""

from __future__ import annotations

import importlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mt.errors import MissingExtraError, WeightsError
from mt.system.files import hash_of

HUB = "https://huggingface.co"
_OPEN_CLIP = ("open_clip_config.json",)


@dataclass(frozen=True)
class PublishedFiles:
    """The files of one model, all in one folder; repository and revision are None for a folder of the user's.

    A change of the `watched` files means that the model must be loaded again.  `code` names the files that are run.
    """

    path: Path
    files: tuple[Path, ...]
    repository: str | None = None
    revision: str | None = None
    watched: tuple[Path, ...] = ()
    code: tuple[str, ...] = ()

    def file(self, names: Sequence[str]) -> Path | None:
        """Return the first of these files that the folder has."""
        here = {file.name: file for file in self.files}
        return next((here[name] for name in names if name in here), None)

    def origin(self) -> dict[str, Any]:
        """Return repository, revision and the sha256 of each file, for the fingerprint; never a path."""
        said: dict[str, Any] = {
            "repository": self.repository,
            "revision": self.revision,
            "files": {file.name: hash_of(file) for file in sorted(self.files)},
        }
        return said | {"remote_code": list(self.code)} if self.code else said


@dataclass(frozen=True)
class Wanted:
    """Which files of a model are read: one of `config`, those of `optional` that are there, one form of the weights.

    `weights` are forms in order of preference, safetensors first; an index of shards brings its shards.
    """

    config: tuple[str, ...]
    optional: tuple[str, ...] = ()
    weights: tuple[str, ...] = ()


def library(module: str, use: str) -> Any:
    """Return an optional library.

    Raises:
        MissingExtraError: it is not installed.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise MissingExtraError(
            f"{use} needs {module}, which is not installed: pip install 'medical-transfer[hub]'"
        ) from error


def published_files(place: str, wanted: Wanted, *, name: str) -> PublishedFiles:
    """Return the wanted files of a local folder, or of ORG/NAME[@REVISION] on the hub or in its client's cache.

    Raises:
        WeightsError: they cannot be had; one line says what is missing and how to get it.
    """
    if is_path(place):
        return _local(Path(place).expanduser().absolute(), wanted, name)
    return _from_hub(place, wanted, name)


def fetched(files: PublishedFiles, file: str, *, name: str) -> Path | None:
    """Return one more file of the same folder or revision, None where it has none of that name.

    Raises:
        WeightsError: the hub refuses it.
    """
    if files.repository is not None:
        return _Hub(files.repository, name).fetched(file, files.revision)
    return files.path / file if (files.path / file).is_file() else None


def is_path(place: str) -> bool:
    """Return whether a place is a folder rather than ORG/NAME."""
    return place.startswith((".", "/", "~")) or Path(place).is_dir()


def _local(folder: Path, wanted: Wanted, name: str) -> PublishedFiles:
    if not folder.is_dir():
        raise WeightsError(f"No folder {folder} for '{name}'.")
    config = [folder / one for one in wanted.config if (folder / one).is_file()][:1]
    if not config:
        raise WeightsError(f"{folder} has no {' or '.join(wanted.config)}.{_other_form(folder)}")
    files = [*config, *(folder / one for one in wanted.optional if (folder / one).is_file())]
    weights = next((folder / one for one in wanted.weights if (folder / one).is_file()), None)
    if wanted.weights and weights is None:
        raise WeightsError(f"{folder} has no weights: expected {', '.join(wanted.weights)}.")
    if weights is not None:
        files += [weights, *(folder / shard for shard in _shards(weights))]
    return PublishedFiles(folder, tuple(files), watched=tuple(files))


def _from_hub(place: str, wanted: Wanted, name: str) -> PublishedFiles:
    """Fetch the files of one revision; what the client's cache holds is not fetched again."""
    repository, _, revision = place.partition("@")
    hub = _Hub(repository, name)
    first = hub.first(wanted.config, revision or None)
    if first is None:
        if wanted.config != _OPEN_CLIP and hub.fetched(*_OPEN_CLIP, revision or None) is not None:
            raise WeightsError(f"'{name}' is in open_clip's form: --model open_clip:hf-hub:{place}")
        raise hub.absent(wanted.config)
    commit = first.parent.name
    found = [hub.fetched(one, commit) for one in wanted.optional]
    weights = hub.first(wanted.weights, commit)
    if wanted.weights and weights is None:
        raise hub.absent(wanted.weights)
    shards = [] if weights is None else [hub.fetched(shard, commit) for shard in _shards(weights)]
    files = tuple(file for file in (first, *found, weights, *shards) if file is not None)
    reference = first.parent.parent.parent / "refs" / (revision or "main")
    watched = (*files, reference) if reference.is_file() else files
    return PublishedFiles(first.parent, files, repository, commit, watched)


class _Hub:
    """One repository of the hub, through its client and its client's cache; the client's errors become one line."""

    def __init__(self, repository: str, name: str) -> None:
        self.repository, self.name = repository, name
        self.page = f"{HUB}/{repository}"
        self._client = library("huggingface_hub", f"'{name}'")
        self._errors = library("huggingface_hub.errors", f"'{name}'")
        self._unreached = ""

    def first(self, names: Sequence[str], revision: str | None) -> Path | None:
        """Return the first of these files that exists."""
        for one in names:
            found = self.fetched(one, revision)
            if found is not None:
                return found
        return None

    def fetched(self, file: str, revision: str | None) -> Path | None:
        """Return a file, None where the repository (or, without a network, the cache) has none of that name.

        Raises:
            WeightsError: the repository is gated or not there, the token is refused, or the client fails otherwise.
        """
        errors = self._errors
        try:
            return Path(self._client.hf_hub_download(self.repository, file, revision=revision))
        except errors.GatedRepoError as error:
            raise self._gated() from error
        except errors.LocalEntryNotFoundError as error:
            if error.__cause__ is not None:  # the hub was asked, and could not be reached
                self._unreached = _first_line(error.__cause__)
            return None
        except errors.EntryNotFoundError:
            return None
        except errors.RevisionNotFoundError as error:
            raise WeightsError(
                f"'{self.repository}' has no revision '{revision or 'main'}'. See {self.page}/commits"
            ) from error
        except errors.RepositoryNotFoundError as error:
            raise WeightsError(
                f"The hub has no repository '{self.repository}' that you may read. If it is private or gated, set "
                f"HF_TOKEN; see {self.page}"
            ) from error
        except (errors.HFValidationError, OSError, ValueError) as error:
            if getattr(getattr(error, "response", None), "status_code", None) in (401, 403):
                raise WeightsError(
                    f"The hub refuses your token for '{self.name}'. Make one at {HUB}/settings/tokens that may read "
                    f"{self.page}, then set HF_TOKEN (or run: hf auth login)."
                ) from error
            raise WeightsError(
                f"Could not get {file} of '{self.name}' ({_first_line(error)}). It comes from {self.page}."
            ) from error

    def absent(self, files: Sequence[str]) -> WeightsError:
        """Return the error for files that neither the hub nor its client's cache has."""
        why = "the hub sent none"
        if library("huggingface_hub.constants", f"'{self.name}'").HF_HUB_OFFLINE:
            why = "HF_HUB_OFFLINE is set, and the hub's cache holds none"
        elif self._unreached:
            why = f"asking the hub failed ({self._unreached}), and its cache holds none"
        return WeightsError(
            f"'{self.name}' needs {' or '.join(files)} of {self.page}: {why}. If it is gated, accept its terms there "
            "and set HF_TOKEN. Without a network, fill the hub's cache (HF_HOME) elsewhere and copy it here, or name a "
            "folder."
        )

    def _gated(self) -> WeightsError:
        terms = f"accept its terms at {self.page}"
        if self._client.get_token() is None:
            how = f"{terms}, then set HF_TOKEN to your token (or run: hf auth login)."
        else:
            how = f"your token (HF_TOKEN, or of hf auth login) does not open it yet. With its account, {terms}."
        return WeightsError(f"'{self.name}' is gated: {how}")


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def _other_form(folder: Path) -> str:
    """Return the hint which loader reads the folder, or nothing if its form is unknown."""
    if (folder / "open_clip_config.json").is_file():
        return f" It is in open_clip's form: --model open_clip:local-dir:{folder}"
    return f" It is in transformers' form: --model hf:{folder}" if (folder / "config.json").is_file() else ""


def _shards(weights: Path) -> list[str]:
    """Return the names of the files that an index of shards lists; none for weights in one file."""
    if not weights.name.endswith(".index.json"):
        return []
    places: dict[str, str] = json.loads(weights.read_text(encoding="utf-8"))["weight_map"]
    return sorted(set(places.values()))
