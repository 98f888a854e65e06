"""DICOM headers of many files: what is an image, how many frames, whose, and a few columns; remembered without names.

A patient is remembered as a hash with a salt of the user's own: enough to distinguish patients, of no other use.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import secrets
import threading
import warnings
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from mt.cache.content import ContentIndex
from mt.cache.names import digest
from mt.datasets.decoding.kinds import looks_like_dicom
from mt.datasets.dicom.grey_values import number
from mt.datasets.dicom.object_pixels import class_name, import_pydicom
from mt.errors import InputError, MissingExtraError
from mt.system.device import cores

# Columns by name, and the attributes of the header that they hold.
COLUMNS = {
    "sex": "PatientSex",
    "age": "PatientAge",
    "view": "ViewPosition",
    "body_part": "BodyPartExamined",
    "modality": "Modality",
    "manufacturer": "Manufacturer",
    "study": "StudyInstanceUID",
    "series": "SeriesInstanceUID",
}
_TAGS = ("SOPClassUID", "PatientID", "NumberOfFrames", "Rows", *COLUMNS.values())
_REVISION = 1  # raised whenever `Facts` are read differently
_ONE_AT_A_TIME = threading.Lock()


@dataclass(frozen=True)
class Facts:
    """What the header of one file says.

    `kind`: an image, another DICOM object (`name` says which), a damaged one, or not a DICOM file.  `patient` is a
    hash, none where the header names nobody.
    """

    kind: Literal["image", "other", "damaged", "none"]
    name: str = ""
    frames: int = 1
    patient: str | None = None
    columns: dict[str, Any] = field(default_factory=dict)


class Headers:
    """The headers of a dataset's files, each read once and remembered by path, size and time.

    columns: names of `COLUMNS` that are wanted, or `all`.
    """

    def __init__(self, index: ContentIndex, columns: Sequence[str] = ()) -> None:
        self.columns = chosen_columns(columns)
        self._index = index
        self._known: dict[str, Facts] = {}

    def of(self, paths: Sequence[str]) -> list[Facts]:
        """Return the facts of each file."""
        new = [path for path in dict.fromkeys(paths) if path not in self._known]
        if new:
            key = {"revision": _REVISION, "columns": list(self.columns), "files": files_as_they_are(new)}
            found = self._index.recall("dicom headers", key)
            if found is None:
                found = [asdict(facts) for facts in self._read(new)]
                self._index.remember("dicom headers", key, found)
            self._known.update((path, Facts(**facts)) for path, facts in zip(new, found, strict=True))
        return [self._known[path] for path in paths]

    def _read(self, paths: Sequence[str]) -> Iterable[Facts]:
        salt = self._salt()
        with ThreadPoolExecutor(cores()) as pool:
            for path, dicom in zip(paths, pool.map(looks_like_dicom, paths), strict=True):
                yield self._facts(path, salt) if dicom else Facts("none")

    def _facts(self, path: str, salt: bytes) -> Facts:
        try:
            header = read_header(path)
        except MissingExtraError:
            return Facts("image")  # decoding says what is missing
        except Exception:  # decoding says what is wrong with it
            return Facts("damaged")
        name = class_name(header) or ""
        if header.get("Rows") is None:
            return Facts("damaged", name) if not name or "Image Storage" in name else Facts("other", name)
        patient = patient_of(header)
        return Facts(
            "image",
            name,
            int(number(header.get("NumberOfFrames")) or 1),
            None if patient is None else hmac.new(salt, patient.encode(), hashlib.sha256).hexdigest()[:32],
            {column: _value(header, column) for column in self.columns},
        )

    def _salt(self) -> bytes:
        salt = self._index.recall("salt", "dicom headers")
        if salt is None:
            salt = secrets.token_hex(32)
            self._index.remember("salt", "dicom headers", salt)
        return bytes.fromhex(str(salt))


def read_header(path: str) -> Any:
    """Return the few tags of a DICOM file that say what it is and whose.

    Raises:
        MissingExtraError: pydicom is not installed.
        Exception: whatever pydicom raises for a file that it cannot read.
    """
    pydicom = import_pydicom()
    with _ONE_AT_A_TIME, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # decoding counts them
        return pydicom.dcmread(path, force=True, stop_before_pixels=True, specific_tags=list(_TAGS))


def patient_of(header: Any) -> str | None:
    """Return the PatientID, or None where it is absent or empty."""
    value = str(header.get("PatientID") or "").strip("\0 ")
    return value or None


def chosen_columns(names: Sequence[str]) -> tuple[str, ...]:
    """Return the columns that `--column` names, in the order of `COLUMNS`.

    Raises:
        InputError: no such column.
    """
    for name in names:
        if name != "all" and name not in COLUMNS:
            raise InputError(f"--column {name} is not one: expected {', '.join(COLUMNS)} or all.")
    return tuple(name for name in COLUMNS if name in names or "all" in names)


def whole_years(value: str) -> int | None:
    """Return an age in whole years: `058Y`, `006M`, `010W`, `012D`, or a bare number of years."""
    count, unit = (value[:-1], value[-1]) if value[-1:].isalpha() else (value, "Y")
    if not count.isdecimal():
        return None
    return int(count) // {"Y": 1, "M": 12, "W": 52, "D": 365}.get(unit.upper(), 1)


def _value(header: Any, column: str) -> Any:
    value = header.get(COLUMNS[column])
    text = "" if value is None else str(value).strip("\0 ")
    return whole_years(text) if column == "age" else text


def files_as_they_are(paths: Sequence[str]) -> str:
    """Return a hash of the files' paths, sizes and times, which changes when any of them changes."""
    return digest([_as_it_is(path) for path in paths])


def _as_it_is(path: str) -> list[Any]:
    try:
        stat = os.stat(path)
    except OSError:  # a link to nowhere; reading says so
        return [os.path.abspath(path)]
    return [os.path.abspath(path), stat.st_size, stat.st_mtime_ns]
