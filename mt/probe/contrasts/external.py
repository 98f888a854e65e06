"""Internal against external tests: what scores lose on another dataset, and how many images and patients are in both.

Both scores have the same draws and recipe.  The two test sets are taken as independent samples, so the variances of
their scores add.  Both share the draws, so the variance over draws is that of the differences.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from mt.cache.names import digest
from mt.probe.contrasts.difference import REVISION, Difference, difference
from mt.probe.questions import Budget
from mt.probe.scores.comparisons import holm
from mt.probe.scores.score_tables import row_name, scored
from mt.probe.scores.scoring import LEVEL, Subject
from mt.probe.scores.scoring import REVISION as OF_VIEWS
from mt.results.store import Score, ScoreStore
from mt.terminal.progress import counted
from mt.types import FEW_UNITS, LabelledRows, ScoredRows

if TYPE_CHECKING:
    from mt.cache.catalog import Entry

INTERNAL, EXTERNAL = "internal", "external"


@dataclass(frozen=True)
class Drop:
    """A row's score on the internal test split minus its score on the external one, at one budget.

    subject: the subject of the external test.  p_holm: the p-value of no difference, adjusted over the rows of one
    pair of datasets, budget and metric; NaN without one.
    """

    subject: Subject
    budget: Budget
    row_name: str
    found: Difference
    p_holm: float = float("nan")
    n_family: int = 1

    @property
    def flags(self) -> tuple[str, ...]:
        """What a reader should know: few cases, or the reason why there is no interval."""
        if self.found.reason:
            return (f"no interval: {self.found.reason}",)
        few = min(self.found.units) < FEW_UNITS
        kind = "cases" if self.found.independent else "groups"
        return (f"fewer than {FEW_UNITS} test {kind} of the rarest class",) if few else ()

    def row(self) -> dict[str, Any]:
        """Return it as one flat JSON object; a number that is undefined is null."""
        found = self.found
        numbers = {
            INTERNAL: found.a,
            EXTERNAL: found.b,
            "difference": found.value,
            "low": found.low,
            "high": found.high,
            "p": found.p,
            "p_holm": self.p_holm,
        }
        return {
            "drop": f"{self.subject.dataset} - {self.subject.test_dataset}",
            "row": self.row_name,
            **{name: value for name, value in vars(self.subject).items() if name not in ("by", "subgroup")},
            **vars(self.budget),
            **{name: None if value != value else value for name, value in numbers.items()},
            "n_draws": found.n_draws,
            "units": list(found.units),
            "independent": found.independent,
            "n_family": self.n_family,
            "flags": list(self.flags),
        }


def drops(
    external: Iterable[Score],
    internal: Iterable[Score],
    store: ScoreStore,
    *,
    name: Callable[[Score], str] = row_name,
) -> list[Drop]:
    """Return what every row loses at every budget, on the draws that both tests have.

    name: of the row of an external score.
    """
    there: dict[tuple[Any, ...], list[Score]] = {}
    for score in internal:
        if score.by is None and score.test_dataset == score.dataset:
            there.setdefault(_place(score), []).append(score)
    rows: dict[tuple[Subject, Budget, str], list[tuple[Score, Score]]] = {}
    for score in external:
        if score.by is not None or score.test_dataset == score.dataset:
            continue
        newest_first = reversed(there.get(_place(score), []))  # stratified and random draws may have the same seed
        own = next((one for one in newest_first if _same_draw(one, score, store)), None)
        if own is not None:
            place = Subject.of(score), Budget(score.fraction, score.shots), name(score)
            rows.setdefault(place, []).append((own, score))
    families: dict[tuple[Subject, Budget], list[Drop]] = {}
    for (subject, budget, row), pairs in rows.items():
        one = Drop(subject, budget, row, _kept(_distinct(pairs), store))
        families.setdefault((subject, budget), []).append(one)
    return [
        replace(one, p_holm=p_holm, n_family=len(family))
        for family in families.values()
        for one, p_holm in zip(family, holm([one.found.p for one in family]), strict=True)
    ]


def _place(score: Score) -> tuple[Any, ...]:
    """Return what must agree in the two scores of a fit, the features that it was trained on among them."""
    how = row_name(score), score.protocol, score.solver, score.select, score.metric, score.level
    return score.dataset, digest(score.fingerprints["train"]), *how, score.fraction, score.shots, score.seed


def _same_draw(a: Score, b: Score, store: ScoreStore) -> bool:
    one, other = store.fit(a.fit), store.fit(b.fit)
    return one.pool == other.pool and np.array_equal(one.rows, other.rows)


def _distinct(pairs: list[tuple[Score, Score]]) -> list[tuple[Score, Score]]:
    """Return the draws; only the first if all took every row."""
    return pairs[:1] if all(score.realised.get("everything") for _, score in pairs) else pairs


def _kept(pairs: Sequence[tuple[Score, Score]], store: ScoreStore) -> Difference:
    """Return a difference from the store, or compute and store it."""
    names = [[own.identity, other.identity] for own, other in pairs]
    key = digest({"drop": names, "confidence": LEVEL, "revisions": [REVISION, OF_VIEWS]})
    kept = store.recall(key)
    if kept is None:
        sides = (scored([own for own, _ in pairs], store), scored([other for _, other in pairs], store))
        a, b = ([_told_apart(cases, name) for cases in side] for side, name in zip(sides, "ab", strict=True))
        kept = vars(difference(pairs[0][1].metric, a, b, tested=True))
        store.remember(key, kept)
    return Difference(**{**kept, "units": tuple(kept["units"])})


def _told_apart(cases: ScoredRows, dataset: str) -> ScoredRows:
    """Return the cases with the dataset in their group names: the same name is another patient in another dataset."""
    groups = None if cases.groups is None else [f"{dataset} {group}" for group in cases.groups]
    return ScoredRows(LabelledRows(None, cases.y, groups), cases.p, cases.flags, cases.fold)


@dataclass(frozen=True)
class Overlap:
    """Numbers of test images whose content another dataset holds too, and of group names that both have.

    images: None if the content of images is not known.  groups: None if groups are not known.
    """

    dataset: str
    test_dataset: str
    split: str
    images: int | None
    groups: int | None

    @property
    def said(self) -> str:
        """The overlap and its meaning in words, and what is not known of it; empty if nothing is shared."""
        where = f"the {self.split} split of {self.dataset}"
        unknown = (
            f"Whether images of {self.test_dataset} are also in {where} is not known: they have no content hashes."
        )
        parts = [f"{counted(self.images, 'image')} (the same content)"] if self.images else []
        parts += (
            [counted(self.groups, "name of a patient or group", "names of patients or groups")] if self.groups else []
        )
        if not parts:
            return unknown if self.images is None else ""
        what = "the model was trained on them" if self.split == "train" else "the two tests are not independent"
        shares = f"The test split of {self.test_dataset} shares {' and '.join(parts)} with {where}: {what}."
        return f"{shares} {unknown}" if self.images is None else shares

    def row(self) -> dict[str, Any]:
        """Return it as one JSON object."""
        return {"overlap": f"{self.test_dataset} in {self.dataset}", **vars(self)}


def overlaps(external: Iterable[Score], internal: Iterable[Score], entries: Iterable[Entry]) -> list[Overlap]:
    """Return what the external test split shares with the train split and the test split of each training dataset."""
    files = {str(entry.fingerprints.get("file")): entry for entry in entries}
    tests = {score.dataset: files.get(_file(score, "test")) for score in internal}
    found: dict[tuple[str, str, str], Overlap] = {}
    for score in external:
        ours = {"train": files.get(_file(score, "train")), "test": tests.get(score.dataset)}
        theirs = files.get(_file(score, "test"))
        for split, own in ours.items():
            place = score.dataset, score.test_dataset, split
            if place not in found and own is not None and theirs is not None:
                found[place] = Overlap(*place, *_shared(own, theirs))
    return list(found.values())


def _file(score: Score, split: str) -> str:
    return str(score.fingerprints[split][0]["file"])


def _shared(own: Entry, other: Entry) -> tuple[int | None, int | None]:
    ours, theirs = own.open(), other.open()
    known, asked = set(_contents(ours.content)), _contents(theirs.content)
    images = sum(content in known for content in asked) if known and asked else None
    groups = None if ours.groups is None or theirs.groups is None else len(set(ours.groups) & set(theirs.groups))
    return images, groups


def _contents(content: Any) -> list[bytes]:
    """Return the known hashes of images, as bytes."""
    return [] if content is None else [row.tobytes() for row in np.asarray(content) if row.any()]
