"""Draw files: JSON files (format `mt-draws`) that list the rows of draws by id, so that others train on the same rows.

    {"format": "mt-draws", "format_version": 1, "dataset": "pcam", "fingerprint": "<of the dataset>", "unit": "row",
     "draws": [{"fraction": 0.01, "shots": null, "seed": 0, "ids": ["...", ...], "realised": {...}}, ...]}

Required are `format`, `format_version`, `dataset` and `draws`, and in each draw `ids`.  Two draws of a file must differ
in `fraction`, `shots` or `seed`.  `realised` is counted again when a file is read, except `forced`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from mt.cache.names import digest
from mt.errors import InputError
from mt.probe.budgets.draw import UNITS, Asked, Draw, DrawSource, account, class_matrix
from mt.probe.questions import Budget, Pair, Question, budgets
from mt.results.store import ScoreStore
from mt.stratification import Ints
from mt.system import files
from mt.types import CaseFeatures, Groups, sortable

FORMAT = "mt-draws"
FORMAT_VERSION = 1
Name = tuple[float | None, int | None, int]  # fraction, shots and seed: they identify a draw in its file


class DrawFile(DrawSource):
    """The draws that a file lists, regardless of the seeds asked for; it is read once per train split."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.path = path
        self._read: tuple[CaseFeatures, dict[tuple[Budget, int], Draw]] | None = None

    def asked(self, fractions: Sequence[float], shots: Sequence[int], seeds: int) -> list[Asked]:
        """Return the draws that the file holds; their rows are part of the identity.

        Raises InputError if other budgets are asked for.
        """
        listed, wanted = [budget for budget, _ in self._listed], budgets(fractions, shots)
        if (fractions or shots) and set(listed) != set(wanted):
            there, other = (", ".join(map(str, dict.fromkeys(found))) for found in (listed, wanted))
            raise InputError(
                f"{self.path} lists draws of {there}; asked for were {other}. Remove --fraction and --shots, or "
                "write other draws to a new file: mt probe --draw-file FILE"
            )
        return [(budget, seed, {"ids": ids}) for (budget, seed), ids in self._listed.items()]

    def repeats(self, question: Question, realised: Mapping[str, Any]) -> bool:
        return False  # every draw that a file lists was asked for

    def draw(self, train: CaseFeatures, budget: Budget, seed: int) -> Draw:
        if self._read is None or self._read[0] is not train:
            draws = read_draws(
                self.path,
                ids=train.ids,
                labels=train.labels,
                task=train.task,
                n_classes=len(train.class_names),
                dataset=train.dataset,
                fingerprint=train.fingerprints["dataset"],
                groups=train.groups,
            )
            listed = [replace(found, realised={**found.realised, "listed": self._content}) for found in draws]
            self._read = train, {(Budget(d.fraction, d.shots), d.seed): d for d in listed}
        return self._read[1][budget, seed]

    @cached_property
    def _content(self) -> str:
        """The start of the digest of all draws in the file: draws of different files are of different kinds."""
        return digest([[str(budget), seed, ids] for (budget, seed), ids in self._listed.items()])[:12]

    @cached_property
    def _listed(self) -> dict[tuple[Budget, int], str]:
        """The digest of the ids of each (budget, seed), read without the features."""
        return {(Budget(fraction, shots), seed): ids for (fraction, shots, seed), ids in list_draws(self.path).items()}


def check_draw_file(path: Path, pairs: Sequence[Pair]) -> None:
    """Raise InputError for a draw file in a folder that does not exist, or for more than one dataset."""
    if not path.parent.is_dir():
        raise InputError(f"No folder {path.parent} to write the draws to. Make it: mkdir -p {path.parent}")
    names = sorted({pair.dataset for pair in pairs})
    if len(names) > 1:
        raise InputError(
            f"--draw-file holds the draws of one dataset, found {', '.join(names)}. Name one: --dataset {names[0]}"
        )


def save_draws(path: Path, questions: Sequence[Question], source: DrawSource, store: ScoreStore) -> None:
    """Write the rows of every draw that was asked for, from the stored fits."""
    kept = store.has_fits(question.identity for question in questions)
    draws: dict[tuple[Budget, int], Draw] = {}
    pool = ""
    for question in questions:
        budget, seed = question.budget, question.seed
        if question.identity in kept and (budget, seed) not in draws:
            fit = store.fit(question.identity)
            realised, pool = dict(fit.outcome["realised"]), fit.pool
            if not source.repeats(question, realised):
                draws[budget, seed] = Draw(fit.rows, budget.fraction, budget.shots, seed, realised)
    train = questions[0].pair.train[0]
    write_draws(
        path,
        list(draws.values()),
        ids=store.cases(pool).ids,
        dataset=train.dataset,
        fingerprint=train.fingerprints["dataset"],
    )


def write_draws(path: Path, draws: Sequence[Draw], *, ids: Sequence[str], dataset: str, fingerprint: str) -> None:
    """Write draws by the ids of their rows; `ids` are those of all rows of the training split."""
    content = {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "dataset": dataset,
        "fingerprint": fingerprint,
        "unit": draws[0].realised["unit"] if draws else "row",
        "draws": [
            {
                "fraction": draw.fraction,
                "shots": draw.shots,
                "seed": draw.seed,
                "ids": [str(ids[row]) for row in draw.rows],
                "realised": draw.realised,
            }
            for draw in draws
        ],
    }
    files.write_whole(path, json.dumps(content, indent=1, allow_nan=False).encode())


def read_draws(
    path: Path,
    *,
    ids: Sequence[str],
    labels: ArrayLike,
    task: str,
    n_classes: int,
    dataset: str,
    fingerprint: str,
    groups: Groups | None = None,
) -> list[Draw]:
    """Read the draws of a file against the training split that `ids`, `labels` and `groups` describe.

    Raises InputError if the file is not a draw file, has another version, belongs to another dataset or other content
    of it, or lists an id twice or an id that the split lacks.
    """
    content = _content(path)
    _check_origin(path, content, dataset, fingerprint)
    unit = content.get("unit", "row")
    if unit not in UNITS:
        raise InputError(f"{path}: 'unit' is one of {', '.join(UNITS)}, found {unit!r}")
    matrix = class_matrix(labels, task=task, n_classes=n_classes)
    row_of_id = {str(name): row for row, name in enumerate(ids)}
    group_of_row = None if groups is None else sortable(groups)
    found = []
    for number, entry in enumerate(content["draws"]):
        where = f"{path}, draw {number}"
        rows, (fraction, shots, seed) = _rows(where, entry, row_of_id), _name(where, entry)
        realised = account(labels, matrix, rows, group_of_row, task=task, unit=unit, forced=_forced(where, entry))
        found.append(Draw(rows, fraction, shots, seed, realised))
    return found


def list_draws(path: Path) -> dict[Name, str]:
    """Return the digest of the ids of every draw of a file, by (fraction, shots, seed); needs no split.

    Raises InputError if the file is not a draw file, or if two draws agree in fraction, shots and seed.
    """
    found: dict[Name, str] = {}
    for number, entry in enumerate(_content(path)["draws"]):
        where = f"{path}, draw {number}"
        ids, name = _ids(where, entry), _name(where, entry)
        if name in found:
            raise InputError(f"{where}: another draw has its fraction, shots and seed too. Give each its own 'seed'")
        found[name] = digest(ids)
    return found


def _content(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"No draw file {path}. Write one with: mt probe --draw-file") from None
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}") from None
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise InputError(f"{path} is not a draw file: expected JSON, found {error}") from None
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise InputError(f"{path} is not a draw file: expected a JSON object with format '{FORMAT}'")
    version = content.get("format_version")
    if version != FORMAT_VERSION:
        raise InputError(f"{path} has draw-file version {version}, this program reads {FORMAT_VERSION}")
    if not isinstance(content.get("draws"), list) or not content["draws"]:
        raise InputError(f"{path} holds no draw: expected a list 'draws' with at least one entry")
    return content


def _check_origin(path: Path, content: dict[str, Any], dataset: str, fingerprint: str) -> None:
    if content.get("dataset") != dataset:
        raise InputError(f"{path} was drawn from dataset '{content.get('dataset')}', not from '{dataset}'")
    written = content.get("fingerprint")
    if written not in (None, fingerprint):
        raise InputError(
            f"{path} was drawn from other content of '{dataset}': fingerprint {str(written)[:12]}, "
            f"here {fingerprint[:12]}. See: mt datasets check"
        )


def _ids(where: str, entry: Any) -> list[str]:
    if not isinstance(entry, dict) or not isinstance(entry.get("ids"), list) or not entry["ids"]:
        raise InputError(f"{where}: expected an object with a non-empty list 'ids'")
    return [str(name) for name in entry["ids"]]


def _name(where: str, entry: dict[str, Any]) -> Name:
    fraction, shots, seed = entry.get("fraction"), entry.get("shots"), entry.get("seed", 0)
    if fraction is not None and not (type(fraction) in (int, float) and 0 < fraction <= 1):
        raise InputError(f"{where}: 'fraction' is null or a number in (0, 1], found {fraction!r}")
    if shots is not None and not (type(shots) is int and shots >= 1):
        raise InputError(f"{where}: 'shots' is null or a whole number of at least 1, found {shots!r}")
    if fraction is not None and shots is not None:
        raise InputError(f"{where}: a draw has a 'fraction' or 'shots', found both")
    if not (type(seed) is int and seed >= 0):
        raise InputError(f"{where}: 'seed' is a whole number of at least 0, found {seed!r}")
    return fraction, shots, seed


def _forced(where: str, entry: dict[str, Any]) -> list[int]:
    """Return the classes that were forced according to the file; the rows of a draw do not show this."""
    realised = entry.get("realised", {})
    forced = realised.get("forced", []) if isinstance(realised, dict) else None
    if not isinstance(forced, list) or not all(type(number) is int for number in forced):
        raise InputError(f"{where}: 'realised' must be an object whose 'forced' lists class numbers, or be omitted")
    return forced


def _rows(where: str, entry: Any, row_of_id: dict[str, int]) -> Ints:
    names = _ids(where, entry)
    unknown = [name for name in names if name not in row_of_id]
    if unknown:
        raise InputError(f"{where}: the training split lacks {len(unknown)} of {len(names)} ids: '{unknown[0]}'")
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise InputError(f"{where}: id '{twice}' is named twice")
    return np.array([row_of_id[name] for name in names], dtype=np.int64)
