"""The GPU's benchmark runs everywhere at a small size; what it prints there says nothing of speed."""

from __future__ import annotations

import pytest

from benchmarks import gpu


@pytest.mark.slow
def test_the_gpu_benchmark_runs_at_a_small_size(capsys: pytest.CaptureFixture[str]) -> None:
    gpu.main(["--small", "--device", "cpu"])
    table = capsys.readouterr().out.split("| what |")[1]
    for what in ("PCam", "in one pass", "small JPEG", "large PNG", "DVME", "end-to-end step", "solver"):
        assert what in table
