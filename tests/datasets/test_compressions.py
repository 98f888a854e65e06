"""Small samples of DICOM's compressions show which of them an installation decodes."""

from __future__ import annotations

import sys
from dataclasses import replace

import pytest

from mt.datasets.dicom.compressions import SAMPLES, EncodedRamp, decoded_compressions
from mt.errors import MissingExtraError


@pytest.mark.parametrize("sample", SAMPLES, ids=lambda sample: sample.name)
def test_every_compression_of_the_extra_works(sample: EncodedRamp) -> None:
    assert sample.decodes()


def test_the_samples_are_what_hospitals_files_need() -> None:
    kinds = {"JPEG Baseline", "JPEG Lossless", "JPEG Lossless SV1", "JPEG-LS Lossless", "JPEG 2000", "RLE"}
    assert kinds <= {name for name, works in decoded_compressions() if works}


def test_what_does_not_come_back_does_not_work() -> None:
    sample = SAMPLES[0]
    assert not replace(sample, text=sample.text[:80]).decodes()
    assert not replace(sample, text=SAMPLES[-1].text).decodes()
    assert not replace(SAMPLES[5], error=0).decodes()  # near-lossless is not lossless


def test_without_pydicom(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pydicom", None)
    with pytest.raises(MissingExtraError):
        list(decoded_compressions())
