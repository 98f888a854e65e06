"""Resuming an unfinished feature file: only the missing blocks are computed, and only if the inputs are the same."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from mt.cache import open_features, peek
from mt.errors import CacheError, IncompleteError
from mt.types import LabelledRows
from tests.cache import samples


class TestResume:
    def test_it_goes_on_with_what_is_missing(self, path: Path, reference: bytes) -> None:
        samples.write_some(path, [0, 2])
        with pytest.raises(IncompleteError, match=r"8 of 11 rows\. Finish it with: mt featurize --model dino"):
            open_features(path)
        with samples.open_writer(path) as writer:
            assert writer.missing == [1]
            assert not writer.created
            samples.fill(writer)
            writer.finish()
        assert path.read_bytes() == reference

    def test_it_computes_damaged_blocks_again(self, path: Path, reference: bytes) -> None:
        partial = samples.write_some(path, [0, 1])
        with partial.open("r+b") as file:
            file.seek(partial.stat().st_size - 11 * samples.DIM * 4 + 7)
            file.write(b"\x55")
        assert peek(partial).n_blocks_done == 2
        with samples.open_writer(path) as writer:
            assert writer.missing == [0, 2]
            assert peek(partial).n_blocks_done == 1  # the untrue checksum is gone at once
        samples.write(path)
        assert path.read_bytes() == reference

    def test_it_takes_batch_size_threads_and_block_size_from_the_file(self, path: Path) -> None:
        samples.write_some(path, [0])
        compute = {"device": "cpu", "batch_size": 64, "threads": 16, "versions": {"torch": "2.6"}}
        with samples.open_writer(path, manifest=samples.manifest(compute=compute), block_rows=100) as writer:
            assert writer.resumed_manifest["compute"]["batch_size"] == 4
            assert writer.block_rows == samples.BLOCK

    def test_other_versions_or_devices_are_refused_by_name(self, path: Path) -> None:
        samples.write_some(path, [0])
        compute = {"device": "cuda", "batch_size": 4, "threads": 2, "versions": {"torch": "2.9"}}
        with pytest.raises(CacheError) as refused:
            samples.open_writer(path, manifest=samples.manifest(compute=compute))
        assert "device: cpu in the file, cuda here; versions.torch: 2.6 in the file, 2.9 here" in str(refused.value)
        assert "--allow-mixed" in str(refused.value)

    def test_mixing_knowingly_is_recorded(self, path: Path) -> None:
        samples.write_some(path, [0])
        other = samples.manifest(compute={"device": "cuda"})
        for _ in range(2):  # the second time it is known already
            with samples.open_writer(path, manifest=other, allow_mixed=True) as writer:
                assert writer.missing == [1, 2]
        samples.write(path, manifest=other, allow_mixed=True)
        manifest = open_features(path, verify=True).manifest
        assert manifest["compute"]["device"] == "cpu"
        assert manifest["mixed_compute"] == [{"device": "cuda"}]
        assert len(manifest["warnings"]) == 1

    @pytest.mark.parametrize("change", ["fingerprint", "labels", "dim"])
    def test_a_partial_file_of_something_else_is_refused(self, path: Path, change: str) -> None:
        samples.write_some(path, [0])
        options: dict[str, object] = {
            "fingerprint": {"manifest": samples.manifest(fingerprints={"file": "0" * 64})},
            "labels": {"rows": LabelledRows(None, np.ones(samples.N, "i8"), ids=samples.rows().ids)},
            "dim": {"dim": 3},
        }[change]  # type: ignore[assignment]
        with pytest.raises(CacheError, match=r"is of something else .* --overwrite"):
            samples.open_writer(path, **options)

    def test_discarding_removes_only_what_this_call_created(self, path: Path) -> None:
        with samples.open_writer(path) as writer:
            writer.discard()
        assert not path.with_suffix(".partial").exists()
        samples.write_some(path, [0])
        with samples.open_writer(path) as writer:
            writer.discard()
        assert path.with_suffix(".partial").exists()
