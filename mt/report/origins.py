"""Where features came from: the command and the settings that made each file, also once the file is gone."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from mt.cache.names import digest
from mt.errors import CacheError

if TYPE_CHECKING:
    from mt.cache.catalog import Catalog, Entry
    from mt.results.store import ScoreStore

Facts = Mapping[str, str]
# Facts that distinguish experiments of one name, in the order in which names list them: the first always, the others
# only if the first do not suffice.  Those of the data also distinguish different contents of one dataset.
FIRST_FACTS = ("image_size", "embedding", "precision", "weights", "groups", "folds", "draws", "training")
DATA_FACTS = ("groups", "group_regex", "seed", "task", "limit", "other", "location", "rows")
# Of code that changes a score.
REVISIONS = ("protocol", "solver", "fuse", "unfrozen", "scaling", "metrics", "scoring", "resamples")
# Options of `mt featurize` that say how a dataset is read.
_OPTIONS = {"group_regex": "groups by", "seed": "split seed", "task": "read as", "limit": "at most"}
# Options that say nothing of the dataset: other facts state them, or they change no embedding.
NOT_OF_THE_DATASET = (
    "--model",
    "--dataset",
    "--split",
    "--data-dir",
    "--image-size",
    "--device",
    "--precision",
    "--weights",
    "--on-error",
)
_DEFAULTS = {"seed": "split seed 0", "limit": "all rows"}


class Origins:
    """The command and the facts of feature files, by fingerprint: from the catalog, else as an earlier report kept."""

    def __init__(self, store: ScoreStore, catalog: Catalog | None = None) -> None:
        entries = catalog.entries(everything=True) if catalog else []
        self._entries = {str(entry.fingerprints.get("file")): entry for entry in entries}
        self._store = store
        self._known: dict[str, dict[str, Any]] = {}

    def command(self, file: str) -> str:
        """Return the command that made a file; empty where it is not known."""
        return str(self._of(file).get("command", ""))

    def made(self, fingerprints: Mapping[str, Sequence[Mapping[str, Any]]]) -> float:
        """Return when the newest of the features that a score rests on was written; 0 where they are gone."""
        files = (str(kept["file"]) for several in fingerprints.values() for kept in several)
        return max((self._entries[file].modified for file in files if file in self._entries), default=0.0)

    def facts(self, fingerprints: Mapping[str, Sequence[Mapping[str, Any]]]) -> Facts:
        """Return what is known of the features that a score rests on, in words."""
        several = [self._of(kept["file"]).get("facts", {}) for kept in fingerprints["train"]]
        names = dict.fromkeys(name for facts in several for name in facts)
        found = {name: " and ".join(dict.fromkeys(facts[name] for facts in several if name in facts)) for name in names}
        counts = (f"{fingerprints[split][0]['rows']:,} {split}" for split in ("train", "test"))
        return {**found, "rows": f"{' and '.join(counts)} images"}

    def _of(self, file: str) -> dict[str, Any]:
        if file not in self._known:
            key = digest({"origin of features": file})
            known = self._store.recall(key)
            if known is None and file in self._entries:
                known = _read(self._entries[file])
                with suppress(CacheError):  # a report of a database that cannot be written is drawn all the same
                    self._store.remember(key, known)
            self._known[file] = known or {}
        return self._known[file]


def _read(entry: Entry) -> dict[str, Any]:
    """Return the command and the facts that a feature file states."""
    manifest = entry.manifest
    command, backbone = str(manifest.get("command") or ""), manifest.get("inputs", {}).get("backbone") or {}
    weights = "random weights" if manifest.get("random_weights") else f"weights {str(backbone.get('weights'))[:8]}"
    if backbone.get("imported"):
        weights = "imported embeddings"
    facts = {
        "image_size": f"at {backbone['image_size']} px" if backbone.get("image_size") else "",
        "embedding": f"{backbone.get('embedding', '')} embedding" if backbone.get("embedding") else "",
        "precision": str(backbone.get("precision", "")),
        "weights": weights,
        "location": f"in {manifest['location']}" if manifest.get("location") else "",
    }
    options = options_of(command)
    for name, said in _OPTIONS.items():
        value = options.pop(f"--{name.replace('_', '-')}", "")
        facts[name] = f"{said} {value}" if value else _DEFAULTS.get(name, "")
    facts["other"] = " ".join(
        f"{option} {value}".strip() for option, value in options.items() if option not in NOT_OF_THE_DATASET
    )
    return {"command": command, "facts": {name: value for name, value in facts.items() if value}}


def options_of(command: str) -> dict[str, str]:
    """Return the options of a command, each with its values as one text."""
    found: dict[str, list[str]] = {}
    option = ""
    for word in shlex.split(command):
        if word.startswith("--"):
            option = word
            found.setdefault(option, [])
        elif option:
            found[option].append(word)
    return {name: " ".join(words) for name, words in found.items()}
