"""The request of `mt study`: a study, and where it reads, writes and computes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from mt.study.study_file import StudyFile
from mt.system import files
from mt.system.device import device_names


@dataclass(frozen=True)
class StudyRequest:
    """A study to run.

    cache: the folder of feature files.  scores: the score database.  out: the report's page; None: as the study file
    says.  device: one device, or several that featurize.  engine: what featurizes: local or ray[:HOST:PORT].
    """

    study: StudyFile
    cache: Path
    scores: Path
    device: str = "auto"
    out: Path | None = None
    engine: str = "local"

    @classmethod
    def of(
        cls,
        study: StudyFile,
        *,
        cache_dir: str | None = None,
        scores: str | None = None,
        device: str = "auto",
        out: str | None = None,
        engine: str = "local",
    ) -> StudyRequest:
        """Return the request, with the folders as every command finds them."""
        cache = files.cache_dir(cache_dir)
        page = Path(out).absolute() if out else None
        return cls(study, cache, files.scores_path(scores, cache), device, page, engine)

    @property
    def fitting_device(self) -> str:
        """Where probes and fusions are fitted: the first of several devices."""
        return device_names(self.device)[0]

    @property
    def page(self) -> Path:
        """Where the report goes."""
        return self.out or Path(self.study.report.out)
