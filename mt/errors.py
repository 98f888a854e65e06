"""The exceptions of `mt`.

    MtError
    ├── InputError            a name, setting or file given by the user is wrong
    │   └── DatasetError      a dataset's files are missing, malformed or contradict each other
    ├── WeightsError          weights cannot be found, downloaded, verified or loaded
    ├── MissingExtraError     an optional package is not installed
    ├── CacheError            a feature file or the score database cannot be used
    │   ├── NotAFeatureFileError   not mt's, or written by a newer version
    │   ├── IncompleteError        not all rows are there yet; names the command that finishes it
    │   ├── DamagedError           a checksum disagrees; names the rows
    │   ├── LockedError            another process is writing
    │   └── NoSpaceError           the disk cannot hold what the run will write
    └── FitError              a probe cannot be fitted on these labels or features

The command line prints the message as one line and exits with status 1.  A message names the thing, what was
expected, what was found, and the next command to type.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Sequence


class MtError(Exception):
    """Base of everything `mt` raises on purpose."""


class InputError(MtError, ValueError):
    """A name, setting or file given by the user is wrong."""


class DatasetError(InputError):
    """A dataset's files are missing, malformed or contradict each other."""


class WeightsError(MtError):
    """Weights cannot be found, downloaded, verified or loaded."""


class MissingExtraError(MtError, ImportError):
    """An optional package is not installed."""


class CacheError(MtError):
    """A feature file or the score database cannot be used."""


class NotAFeatureFileError(CacheError):
    """The file is not a feature file of mt, or was written by a newer version of the format."""


class IncompleteError(CacheError):
    """Not all rows of a feature file are there yet."""


class DamagedError(CacheError):
    """A checksum of a feature file disagrees with its bytes."""


class LockedError(CacheError):
    """Another process is writing the file."""


class NoSpaceError(CacheError):
    """The disk cannot hold what the run will write."""


class FitError(MtError, ValueError):
    """A probe cannot be fitted on these labels or features."""


# Other names of metrics, in lower case without spaces and signs, and the name in this project.
_SYNONYMS = {
    "auroc": "roc_auc",
    "auc": "roc_auc",
    "rocauc": "roc_auc",
    "aucroc": "roc_auc",
    "auprc": "average_precision",
    "ap": "average_precision",
    "prauc": "average_precision",
    "acc": "accuracy",
    "bacc": "balanced_accuracy",
    "qwk": "quadratic_kappa",
    "kappa": "quadratic_kappa",
    "cohenkappa": "quadratic_kappa",
    "f1score": "f1",
    "map": "mean_ap",
    "mauc": "mean_auc",
    "nll": "log_loss",
    "crossentropy": "log_loss",
}


def unknown(kind: str, name: str, known: Iterable[str], *, see: str) -> InputError:
    """Return the error for a name that no registry holds, with the closest known name and where to look."""
    close = nearest(name, list(known))
    hint = f" Did you mean '{close}'?" if close else ""
    return InputError(f"No {kind} '{name}'.{hint} See: {see}")


def nearest(name: str, known: Sequence[str]) -> str | None:
    """Return the known name that was probably meant, or None.

    In this order: a synonym, the same parts in any order, a close spelling, or a name that contains all its parts.
    """
    synonym = _SYNONYMS.get("".join(filter(str.isalnum, name)).lower())
    if synonym in known:
        return synonym
    parts = _parts_in_order(name)
    for one in known:
        if parts and parts == _parts_in_order(one):
            return one
    for reading in (str.lower, _parts_in_order):
        read = {reading(one): one for one in reversed(known)}
        close = difflib.get_close_matches(reading(name), read, n=1)
        if close:
            return read[close[0]]
    return next((one for one in known if parts and set(parts.split()) <= set(_parts_in_order(one).split())), None)


def _parts_in_order(name: str) -> str:
    """Return the parts of a name in alphabetical order: `knn-dino` and `dino-knn` are alike."""
    return " ".join(sorted(re.findall(r"[^\W_]+", name.lower())))
