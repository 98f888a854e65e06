"""Patients who must not be named: groups by number, and hashes made with a cache's own salt where they are stored."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from mt.cache.salt import hashed
from mt.datasets.dicom.headers import Facts, patient_of, read_header

PATIENT = "patient"  # the column of the feature file that holds the hashes


@dataclass(frozen=True)
class HiddenPatients:
    """The patients of some rows, known only while they are hashed.

    `find` returns the patient of a row's key, which is the patient's name or the path of a DICOM file.  A row without a
    patient is a patient of its own, by its id.
    """

    ids: Sequence[str]
    keys: Sequence[str] = field(repr=False)
    find: Callable[[str], str | None] = field(repr=False)

    def only(self, places: Sequence[int]) -> HiddenPatients:
        """Return the patients of some of the rows."""
        ids, keys = [self.ids[place] for place in places], [self.keys[place] for place in places]
        return replace(self, ids=ids, keys=keys)

    def hashes(self, salt: bytes) -> list[str]:
        """Return one hash per row, the same for rows of one patient."""
        found = {key: self.find(key) for key in dict.fromkeys(self.keys)}
        names = (found[key] for key in self.keys)
        return [
            hashed(f"patient:{name}" if name is not None else f"row:{id_}", salt)
            for id_, name in zip(self.ids, names, strict=True)
        ]


def patients_of_files(ids: Sequence[str], paths: Sequence[str]) -> HiddenPatients:
    """Return the patients that DICOM files name, read from them when they are hashed."""
    return HiddenPatients(ids, paths, _patient_of_file)


def patients_of_values(ids: Sequence[str], values: Sequence[str]) -> HiddenPatients:
    """Return patients that a table names."""
    return HiddenPatients(ids, values, str)


def numbered(names: Sequence[str]) -> list[str]:
    """Return the number of each row's name, from 1 in order of first row."""
    numbers: dict[str, str] = {}
    return [numbers.setdefault(name, str(len(numbers) + 1)) for name in names]


def dicom_groups(ids: Sequence[str], facts: Sequence[Facts | None]) -> tuple[list[str] | None, list[str]]:
    """Return the number of each row's patient by DICOM headers, and warnings; None if the headers name none or one."""
    patients = [None if one is None else one.patient for one in facts]
    known = {patient for patient in patients if patient is not None}
    if not known:
        return None, []
    if len(known) == 1 and len(ids) > 1 and None not in patients:
        return None, ["all DICOM files name one PatientID: it distinguishes no patients and is not used as the group"]
    without = sum(patient is None for patient in patients)
    warnings = [f"{without:,} of {len(ids):,} images name no PatientID: each is a group of its own"] if without else []
    names = [f"row:{id_}" if patient is None else patient for id_, patient in zip(ids, patients, strict=True)]
    return numbered(names), warnings


def _patient_of_file(path: str) -> str | None:
    try:
        return patient_of(read_header(path))
    except Exception:  # an unreadable file names nobody, as when its header was first read
        return None
