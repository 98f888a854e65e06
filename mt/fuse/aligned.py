"""The features of several models on the same cases: files joined by id, and refused if they disagree."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby

import numpy as np

from mt.errors import InputError
from mt.probe.questions import Pair
from mt.probe.run import Features, Opening, open_cases
from mt.terminal import progress
from mt.types import Array, CaseFeatures, LabelledRows

_SHOWN = 3  # differences that a message names


def join_pairs(pairs: Sequence[Pair], *, named: bool = True) -> list[Pair]:
    """Return one pair of several models for each dataset among pairs of one model each.

    named: the datasets were asked for by name.  If they were not, one with one model only is omitted with a note,
    provided that another can be fused.

    Raises InputError for a dataset with one model only, or with the same backbone twice.
    """

    def dataset(pair: Pair) -> tuple[str, str]:
        return pair.dataset, pair.test_dataset

    models = [list(found) for _, found in groupby(sorted(pairs, key=dataset), key=dataset)]
    alone = [found[0] for found in models if len(found) == 1]
    if alone and (named or len(alone) == len(models)):
        raise InputError(_one_model(alone[0]))
    for pair in alone:
        progress.note(f"{pair.dataset} is omitted. {_one_model(pair)}")
    return [_join(found) for found in models if len(found) > 1]


def _one_model(pair: Pair) -> str:
    return (
        f"Fusion needs at least two models on '{pair.dataset}', and only '{pair.model}' has features. "
        f"One model is a probe: mt probe --model {pair.model}; or add one: mt featurize --model dino "
        f"--dataset {pair.dataset}"
    )


def _join(pairs: list[Pair]) -> Pair:
    first = pairs[0]
    backbones = [pair.train[0].fingerprints["backbone"] for pair in pairs]
    for number, backbone in enumerate(backbones):
        if backbone in backbones[:number]:
            twin = pairs[backbones.index(backbone)].model
            raise InputError(
                f"'{pairs[number].model}' and '{twin}' are the same model on '{first.dataset}'. Name others."
            )
    return Pair(
        first.dataset,
        first.test_dataset,
        " + ".join(pair.model for pair in pairs),
        tuple(pair.train[0] for pair in pairs),
        tuple(pair.test[0] for pair in pairs),
        tuple(entry for pair in pairs for entry in pair.val),
    )


def leave_one_out(pair: Pair) -> list[Pair]:
    """Return the pairs that lack one model each; none for two models, since one alone cannot be fused."""
    models = pair.model.split(" + ")
    if len(models) < 3:
        return []

    def without(number: int) -> Pair:
        kept = [other for other in range(len(models)) if other != number]
        return Pair(
            pair.dataset,
            pair.test_dataset,
            " + ".join(models[k] for k in kept),
            tuple(pair.train[k] for k in kept),
            tuple(pair.test[k] for k in kept),
            tuple(pair.val[k] for k in kept if pair.val),
        )

    return [without(number) for number in range(len(models))]


@dataclass(frozen=True)
class AlignedFeatures:
    """The opened files of several models: the first one's `Features` for rows and labels, embeddings in its order."""

    first: Features
    train: tuple[Array, ...]
    test: tuple[Array, ...]

    @classmethod
    def load(cls, pair: Pair, opened: Opening = open_cases) -> AlignedFeatures:
        """Open every file, checksums verified, and join them by id.  opened: opens one entry.

        Raises InputError, with the first differences, for files whose ids or labels disagree; DamagedError.
        """
        one = Pair(pair.dataset, pair.test_dataset, pair.model, pair.train[:1], pair.test[:1])
        first = Features.load(one, opened)
        train = [first.train, *(opened(entry, None) for entry in pair.train[1:])]
        test = [first.test, *(opened(entry, None) for entry in pair.test[1:])]
        return cls(first, in_first_order(train), in_first_order(test))

    @property
    def task(self) -> str:
        return self.first.train.task

    @cached_property
    def concatenated_test(self) -> Array:
        return np.concatenate(self.test, axis=1)

    def drawn(self, rows: Array) -> LabelledRows[tuple[Array, ...]]:
        """Return a budget, in file order: one embedding matrix per model, labels, groups and ids."""
        rows = np.sort(rows)
        pool = self.first.pool
        groups = None if pool.groups is None else np.asarray(pool.groups)[rows]
        X, ids = tuple(X[rows] for X in self.train), [pool.ids[row] for row in rows]
        return LabelledRows(X, pool.y[rows], groups, ids)


def in_first_order(files: Sequence[CaseFeatures]) -> tuple[Array, ...]:
    """Return each file's embeddings, rows in the order of the first file's ids."""
    first = files[0]
    return (first.embeddings, *(_rows_like(first, other) for other in files[1:]))


def _rows_like(first: CaseFeatures, other: CaseFeatures) -> Array:
    names = f"'{first.backbone}' and '{other.backbone}' features of '{first.dataset}' ({first.split})"
    for what, one, two in (("tasks", first.task, other.task), ("classes", first.class_names, other.class_names)):
        if one != two:
            raise InputError(f"{names} have other {what}: {one} and {two}. Make both from the same files.")
    ours, theirs = set(first.ids), set(other.ids)
    lacking = [name for name in first.ids if name not in theirs]
    extra = [name for name in other.ids if name not in ours]
    if lacking or extra:
        raise InputError(
            f"{names} hold other cases: {_some('only in the first', lacking)}"
            f"{_some('only in the second', extra)}Make both from the same files."
        )
    order = order_of(first.ids, other.ids)
    labels = other.labels[order]
    different = np.flatnonzero((first.labels != labels).reshape(len(labels), -1).any(axis=1))
    if len(different):
        shown = ", ".join(f"{first.ids[r]}: {first.labels[r]} and {labels[r]}" for r in different[:_SHOWN])
        raise InputError(f"{names} disagree on {len(different)} labels: {shown}. Make both from the same files.")
    embeddings: Array = other.embeddings
    return embeddings if (np.diff(order) == 1).all() and order[0] == 0 else embeddings[order]


def order_of(ids: Sequence[str], others: Sequence[str]) -> Array:
    """Return the place of each of `ids` among `others`, which hold them in any order."""
    if list(ids) == list(others):
        return np.arange(len(ids))
    place = {name: row for row, name in enumerate(others)}
    return np.array([place[name] for name in ids], dtype=np.int64)


def _some(what: str, names: Sequence[str]) -> str:
    if not names:
        return ""
    return f"{len(names)} {what} ({', '.join(names[:_SHOWN])}{', ...' if len(names) > _SHOWN else ''}). "
