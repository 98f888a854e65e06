"""Where draws come from: our seeded orders, or a draw file that others wrote (`--draw-file`)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mt.cache.fingerprint import digest
from mt.errors import InputError
from mt.probe.budgets.draw import Draw, draw
from mt.probe.budgets.draw_file import list_draws, read_draws, write_draws
from mt.probe.questions import Budget, Pair, Question, budgets, seeds_of
from mt.results.store import ScoreStore

if TYPE_CHECKING:
    from mt.cache.feature_file.read import FeatureFile

REVISION = 1  # of the order that draws are prefixes of; raised whenever it changes
Asked = tuple[Budget, int, Any]  # budget, seed, identity of how its rows are drawn


class DrawSource:
    """Draws as prefixes of our seeded orders."""

    def __init__(self) -> None:
        self._whole: dict[tuple[str, str, str, str, Budget], int] = {}

    def asked(self, fractions: Sequence[float], shots: Sequence[int], seeds: int) -> list[Asked]:
        """Return every draw of the budgets: budget, seed, and what identifies its rows beside the data."""
        if seeds < 1:
            raise InputError(f"--seeds must be at least 1, got {seeds}.")
        here = {"order": REVISION}
        return [(budget, seed, here) for budget in budgets(fractions, shots) for seed in seeds_of(budget, seeds)]

    def repeats(self, question: Question, realised: Mapping[str, Any]) -> bool:
        """Return whether a question's draw took every row, as an earlier question's on the same budget did.

        There is only one such draw, whatever its seed.
        """
        if not realised.get("everything"):
            return False
        pair = question.pair
        asked = pair.dataset, pair.test_dataset, pair.model, question.method, question.budget
        return self._whole.setdefault(asked, question.seed) != question.seed

    def draw(self, train: FeatureFile, budget: Budget, seed: int) -> Draw:
        """Return the rows of one draw from a train split."""
        return draw(
            train.labels, task=train.task, n_classes=len(train.class_names), fraction=budget.fraction,
            shots=budget.shots, seed=seed, groups=train.groups, unit=train.manifest["budget_unit"],
        )  # fmt: skip


class DrawFile(DrawSource):
    """Draws as a file lists them, whatever seeds were asked for; read once per train split."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.path = path
        self._read: tuple[FeatureFile, dict[tuple[Budget, int], Draw]] | None = None

    def asked(self, fractions: Sequence[float], shots: Sequence[int], seeds: int) -> list[Asked]:
        """Return the draws that the file holds; their rows are part of the identity.

        Raises InputError if other budgets are asked for.
        """
        listed, wanted = [budget for budget, _ in self._listed], budgets(fractions, shots)
        if (fractions or shots) and set(listed) != set(wanted):
            there, other = (", ".join(map(str, dict.fromkeys(found))) for found in (listed, wanted))
            raise InputError(
                f"{self.path} lists draws of {there}; asked for were {other}. Remove --fraction and --shots, or "
                "write the others to a new file: mt probe --draw-file FILE"
            )
        return [(budget, seed, {"ids": ids}) for (budget, seed), ids in self._listed.items()]

    def repeats(self, question: Question, realised: Mapping[str, Any]) -> bool:
        return False  # every draw that a file lists was asked for

    def draw(self, train: FeatureFile, budget: Budget, seed: int) -> Draw:
        if self._read is None or self._read[0] is not train:
            draws = read_draws(
                self.path, ids=train.ids, labels=train.labels, task=train.task, n_classes=len(train.class_names),
                dataset=train.dataset, fingerprint=train.fingerprints["dataset"], groups=train.groups,
            )  # fmt: skip
            listed = [replace(found, realised={**found.realised, "listed": self._content}) for found in draws]
            self._read = train, {(Budget(d.fraction, d.shots), d.seed): d for d in listed}
        return self._read[1][budget, seed]

    @cached_property
    def _content(self) -> str:
        """The beginning of the digest of all that the file lists: draws of two files are not of one kind."""
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
    """Write the rows of every draw that was asked for, as the store keeps them."""
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
        path, list(draws.values()), ids=store.cases(pool).ids, dataset=train.dataset,
        fingerprint=train.fingerprints["dataset"],
    )  # fmt: skip
