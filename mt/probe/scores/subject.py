"""What a table shows and what a comparison is about."""

from __future__ import annotations

from dataclasses import dataclass

from mt.results.store import Score


@dataclass(frozen=True)
class Subject:
    """One metric of one dataset, of all test cases or of one subgroup; level: one prediction per "row" or "group"."""

    dataset: str
    test_dataset: str
    metric: str
    level: str
    by: str | None = None
    subgroup: str | None = None

    @classmethod
    def of(cls, score: Score) -> Subject:
        return cls(score.dataset, score.test_dataset, score.metric, score.level, score.by, score.subgroup)

    @property
    def title(self) -> str:
        """Which cases are scored: of which dataset, and which subgroup."""
        tested = "" if self.test_dataset == self.dataset else f", tested on {self.test_dataset}"
        return self.dataset + tested + (f", {self.by} = {self.subgroup}" if self.by else "")

    @property
    def family(self) -> tuple[str, str, str, str]:
        """What Holm's correction counts as one family, at one budget: the subject with all of its subgroups."""
        return self.dataset, self.test_dataset, self.metric, self.level
