"""Experiments: the scores that may stand on one curve, what each is called, and which of several is shown.

An experiment is one method with one recipe on one train and one test fingerprint, with draws of one kind, by one
revision of our code.  Several of one name arise where features were made again with another image size or other groups,
where networks were trained with other settings, or where code changed.  They are never joined: the newest complete one
is shown, grouped before ungrouped.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, TypeVar

from mt.cache.names import Variant, bare_name, digest, newest_grouped, taken, typed
from mt.errors import unknown
from mt.fuse.end_to_end.request import options_of
from mt.probe.questions import Budget
from mt.report.origins import DATA_FACTS, FIRST_FACTS, REVISIONS, Facts, Origins
from mt.results.store import Score

Item = TypeVar("Item")
Key = TypeVar("Key")
_LIMITED = re.compile(r" \([\d,]+ rows\)$")
RECIPE = ("protocol", "solver", "select")  # parts of a method's recipe that its name may state
_OF_FOLDS = ("k", "repeats", "seed", "algorithm", "revision")  # what distinguishes test folds
_AT_RANDOM = {"random": "random draws", "random-groups": "random draws of groups"}
_SHORT = 8  # characters of a fingerprint in a name


@dataclass(frozen=True)
class Method:
    """What names a curve: backbones and recipe, without fingerprints."""

    model: str
    method: str
    protocol: str
    solver: str
    select: str

    @classmethod
    def of(cls, score: Score) -> Method:
        prints = [kept["backbone"] for kept in score.fingerprints["train"]]
        parts = score.model.split(" + ")
        if len(parts) == len(prints):
            parts = [_plain(part, own) for part, own in zip(parts, prints, strict=True)]
        return cls(" + ".join(parts), score.method, score.protocol, score.solver, score.select)

    def label(self, fields: Iterable[str]) -> str:
        """Return the method in words, with these parts of its recipe."""
        parts = [str(getattr(self, name)) for name in fields]
        return _joined(self.model if self.method == "probe" else f"{self.method}: {self.model}", *parts)


@dataclass(frozen=True)
class Data:
    """What was trained and tested on: the datasets' plain names, and the fingerprints of the splits' content.

    folds: the test folds, where there is no test split.
    """

    dataset: str
    test_dataset: str
    prints: tuple[str, ...]
    folds: str = ""

    @classmethod
    def of(cls, score: Score) -> Data:
        train, test = score.fingerprints["train"], score.fingerprints["test"]
        names = (
            _plain(bare_name(score.dataset), train[0]["dataset"]),
            _plain(bare_name(score.test_dataset), test[0]["dataset"]),
        )
        content = tuple(sorted({f"{kept['dataset']} {kept['split']}" for kept in (*train, *test)}))
        return cls(*names, content, folds_of(score))

    @property
    def title(self) -> str:
        return self.dataset if self.dataset == self.test_dataset else f"{self.dataset} → {self.test_dataset}"


@dataclass(frozen=True)
class Experiment:
    """Scores that may stand on one curve; if a question was answered twice, the later answer.

    name: unique among the experiments of its dataset.  label: its name without what distinguishes its features.
    newest: place of its last score among all.
    made: when the newest of its features were written, 0 where they are gone.
    """

    identity: str
    data: Data
    method: Method
    scores: tuple[Score, ...]
    newest: int
    made: float = 0.0
    facts: Facts = field(default_factory=dict)
    name: str = ""
    label: str = ""
    shown: bool = False

    @cached_property
    def draws(self) -> dict[Budget, set[int]]:
        """The seeds that were drawn of each budget."""
        found: dict[Budget, set[int]] = {}
        for score in self.scores:
            found.setdefault(Budget(score.fraction, score.shots), set()).add(score.seed)
        return found

    @property
    def dataset(self) -> str:
        """The train dataset's name with its settings."""
        last = self.scores[-1]
        return _plain(last.dataset, last.fingerprints["train"][0]["dataset"])

    @property
    def test_dataset(self) -> str:
        """The test dataset's name with its settings."""
        last = self.scores[-1]
        return _plain(last.test_dataset, last.fingerprints["test"][0]["dataset"])

    @property
    def title(self) -> str:
        plain = self.dataset if self.dataset == self.test_dataset else f"{self.dataset} → {self.test_dataset}"
        return _joined(plain, self.data.folds)

    @property
    def grouped(self) -> bool:
        """Whether the train split knows its patients."""
        return self.scores[-1].realised.get("n_groups") is not None

    def is_complete(self, others: Iterable[Experiment]) -> bool:
        """Return whether nothing suggests that the experiment was interrupted.

        Two things suggest it: another experiment of this name has all of its budgets and more; or its budgets have
        unequal numbers of draws, and another on the same test split or folds has more draws of one of them.
        """
        several = {len(seeds) for budget, seeds in self.draws.items() if not budget.is_everything}
        for other in others:
            if self.draws.keys() < other.draws.keys():
                return False
            fewer = any(len(seeds) < len(other.draws.get(budget, ())) for budget, seeds in self.draws.items())
            if len(several) > 1 and fewer and other.data.folds == self.data.folds:
                return False
        return True


def experiments(scores: Iterable[Score], origins: Origins) -> list[Experiment]:
    """Return the experiments that scores belong to: each is named, and marked if it is shown by default."""
    parts: dict[str, list[tuple[int, Score]]] = {}
    for place, score in enumerate(scores):
        parts.setdefault(_identity(score), []).append((place, score))
    found = [_experiment(identity, part, origins) for identity, part in parts.items()]
    return _named([_chosen(several) for several in _by_title(found)])


def among(found: Iterable[Experiment]) -> list[Experiment]:
    """Return a selection of experiments under their names, marked for what the selection alone shows by default."""
    return [one for several in _by_title(found) for one in _chosen(several)]


def asked_for(found: Sequence[Experiment], names: Sequence[str]) -> list[Experiment]:
    """Return the experiments of these names, or those shown by default without any.

    A name without its distinguishing suffix stands for all of its experiments.  Raises InputError for a name that is
    not there, and if no rule chooses which settings of a dataset are shown by default.
    """
    if not names:
        for several in _by_title(found):
            taken(list(_variants(several)), what="Scores")
        return [one for one in found if one.shown]
    for name in names:
        if not any(name in (one.name, one.label) for one in found):
            raise unknown("experiment", name, dict.fromkeys(one.name for one in found), see="mt report --list")
    return [one for one in found if one.name in names or one.label in names]


def data_titles(found: Iterable[Experiment]) -> dict[Data, str]:
    """Return what to call each dataset, its settings included; several contents of one name are distinguished."""
    by_title: dict[str, dict[Data, Experiment]] = {}
    for one in {one.data: one for one in found}.values():
        by_title.setdefault(one.title, {})[one.data] = one
    titles: dict[Data, str] = {}
    for title, several in by_title.items():
        words = _words([one.facts for one in several.values()], DATA_FACTS)
        unique = len(set(words)) == len(words)
        for data, said in zip(several, words, strict=True):
            parts = [said] if said and unique else [said, f"content {digest(list(data.prints))[:_SHORT]}"]
            titles[data] = title if len(several) == 1 else _joined(title, *parts)
    return titles


def _by_title(found: Iterable[Experiment]) -> list[list[Experiment]]:
    """Return the experiments of each dataset, or of one dataset tested on another."""
    by_title: dict[tuple[str, str], list[Experiment]] = {}
    for one in found:
        by_title.setdefault((one.data.dataset, one.data.test_dataset), []).append(one)
    return [by_title[title] for title in sorted(by_title)]


def _identity(score: Score) -> str:
    revisions = {name: score.versions.get(name) for name in REVISIONS}
    data, method = Data.of(score), Method.of(score)
    names = [data.dataset, data.test_dataset, vars(method)]
    training = _training(score)
    return digest([names, score.fingerprints, revisions, _kind(score), *([training] if training else [])])


def _training(score: Score) -> dict[str, Any]:
    """Return the recipe of end-to-end training; empty for another method."""
    recipe = score.settings.get("recipe") if score.protocol == "end-to-end" else None
    return {name: value for name, value in (recipe or {}).items() if name != "start"}  # the start is chosen by draw


def _kind(score: Score) -> list[Any]:
    """Return the kind of a score's draws: stratified, at random, or as a file lists them."""
    kind: list[Any] = [score.realised.get(name, False) for name in ("listed", "draw")]
    folds = score.realised.get("test_folds")
    return kind if folds is None else [*kind, {name: folds[name] for name in _OF_FOLDS}]


def how_drawn(score: Score) -> str:
    """Return the kind of a score's draws in words."""
    listed = score.realised.get("listed")
    if listed:
        return "listed draws" if listed is True else f"listed draws {listed}"
    return _AT_RANDOM.get(score.realised.get("draw", ""), "stratified draws")


def folds_of(score: Score) -> str:
    """Return what the test folds of a score are called, "5-fold x 3"; empty on a test split."""
    return str(score.realised.get("test_folds", {}).get("name", ""))


def _experiment(identity: str, part: Sequence[tuple[int, Score]], origins: Origins) -> Experiment:
    latest = {(score.fraction, score.shots, score.seed, score.metric): score for _, score in part}
    last_place, last = part[-1]
    facts = dict(origins.facts(last.fingerprints))
    facts["groups"] = "ungrouped" if last.realised.get("n_groups") is None else "grouped"
    facts["folds"] = folds_of(last) or "test split"
    facts["draws"] = how_drawn(last)
    if training := _training(last):
        options = options_of(training)
        facts["training"] = " ".join(one for one in options if not one.startswith(("--unfreeze", "--lora")))
    facts |= {name: f"{name} {last.versions[name]}" for name in REVISIONS if last.versions.get(name)}
    made = origins.made(last.fingerprints)
    return Experiment(identity, Data.of(last), Method.of(last), tuple(latest.values()), last_place, made, facts)


def _named(titles: Sequence[Sequence[Experiment]]) -> list[Experiment]:
    """Name the experiments of every dataset.

    What must be said on one dataset to distinguish experiments is said on all, so that names agree across datasets.
    Where some draws are random and others are not, every name states its kind of draws.
    """
    kinds = {one.facts["draws"] for found in titles for one in found}
    always = ["draws"] if len(kinds) > 1 and not kinds.isdisjoint(_AT_RANDOM.values()) else []
    recipes: dict[tuple[str, str], list[list[Method]]] = {}
    features: dict[Method, list[list[Facts]]] = {}
    for found in titles:
        for method, same in _grouped(found, lambda one: one.method).items():
            features.setdefault(method, []).append([one.facts for one in same])
        for row, some in _grouped(
            dict.fromkeys(one.method for one in found), lambda one: (one.model, one.method)
        ).items():
            recipes.setdefault(row, []).append(some)
    named = []
    for found in titles:
        for method, same in _grouped(found, lambda one: one.method).items():
            fields = _differing([list(map(vars, some)) for some in recipes[method.model, method.method]], RECIPE)
            label = method.label(fields)
            differing = _differing(features[method], FIRST_FACTS)
            suffixes = _suffixes(same, [name for name in FIRST_FACTS if name in (*differing, *always)])
            named += [replace(one, name=label + end, label=label) for one, end in zip(same, suffixes, strict=True)]
    return named


def _grouped(some: Iterable[Item], key: Callable[[Item], Key]) -> dict[Key, list[Item]]:
    """Return items by their key, in the order in which keys come first."""
    groups: dict[Key, list[Item]] = {}
    for one in some:
        groups.setdefault(key(one), []).append(one)
    return groups


def _differing(datasets: Iterable[Sequence[Mapping[str, str]]], names: Iterable[str]) -> list[str]:
    """Return those of these names for which two different values are stated on one of the datasets."""
    several = list(datasets)
    return [name for name in names if any(len({one[name] for one in some if one.get(name)}) > 1 for some in several)]


def _suffixes(same: Sequence[Experiment], stated: Sequence[str]) -> list[str]:
    """Return what distinguishes experiments of one method: ` at 32 px, grouped`.

    stated: the facts that all of them state.  If these do not suffice, those not shown by default also state facts of
    their data, then revisions of code, then fingerprints; if that does not suffice either, all state their identity.
    """
    words = [_joined(*(one.facts.get(name, "") for name in stated)) for one in same]
    others: tuple[Callable[[], list[str]], ...] = (
        lambda: _words([one.facts for one in same], DATA_FACTS[1:]),
        lambda: _words([one.facts for one in same], REVISIONS),
        lambda: [f"features {one.scores[-1].fingerprints['train'][0]['file'][:_SHORT]}" for one in same],
    )
    for further in others:
        if len(set(words)) < len(words):
            words = [
                _joined(said, "" if one.shown else own) for said, own, one in zip(words, further(), same, strict=True)
            ]
    if len(set(words)) < len(words):
        words = [_joined(said, one.identity[:_SHORT]) for said, one in zip(words, same, strict=True)]
    return [f" {said}" if said.startswith("at ") else f", {said}" if said else "" for said in words]


def _words(several: Sequence[Facts], names: Iterable[str]) -> list[str]:
    """Return, for each, the facts that distinguish it from the others: as many, in this order, as are needed.

    A fact distinguishes only where two different values of it are stated.
    """
    words = [""] * len(several)
    for name in names:
        stated = {facts[name] for facts in several if facts.get(name)}
        if len(stated) > 1 and (name in FIRST_FACTS or len(set(words)) < len(words)):
            words = [_joined(said, facts.get(name, "")) for said, facts in zip(words, several, strict=True)]
    return words


def _joined(*parts: str) -> str:
    return ", ".join(filter(None, parts))


def _chosen(found: Sequence[Experiment]) -> list[Experiment]:
    """Mark what is shown of one dataset: one variant, one content of it, and one experiment per method on it.

    Nothing is marked where several variants are equal.
    """
    variants = _variants(found)
    best = newest_grouped(list(variants))
    if best is None:
        return list(found)

    def merit(one: Experiment) -> tuple[bool, float, int]:
        return _is_complete(one, found), one.made, one.newest

    data = max(variants[best], key=merit).data
    shown: dict[Method, Experiment] = {}
    for one in variants[best]:
        if one.data == data and (one.method not in shown or merit(one) > merit(shown[one.method])):
            shown[one.method] = one
    return [replace(one, shown=shown.get(one.method) is one) for one in found]


def _variants(found: Sequence[Experiment]) -> dict[Variant, list[Experiment]]:
    """Return the experiments of one dataset by the settings of their train features; only complete ones, if any is."""
    complete = [one for one in found if _is_complete(one, found)] or found
    parts: dict[tuple[str, bool], list[Experiment]] = {}
    for one in found:
        parts.setdefault((typed(one.dataset), one.grouped), []).append(one)
    return {
        Variant(name, grouped, max((one.made, one.newest) for one in some)): some
        for (name, grouped), some in parts.items()
        if any(one in complete for one in some)
    }


def _is_complete(one: Experiment, found: Sequence[Experiment]) -> bool:
    return one.is_complete(other for other in found if other.method == one.method and other is not one)


def _plain(name: str, print_: str) -> str:
    """Return a name without its distinguishing suffix: `dino@1a2b3c4d` and `dino (9 rows)` are `dino`."""
    name = _LIMITED.sub("", name)
    head, _, tail = name.rpartition("@")
    return head if head and len(tail) == _SHORT and print_.startswith(tail) else name
