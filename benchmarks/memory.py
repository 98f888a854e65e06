"""Peak memory of `mt featurize` at 100,000 rows against 1,000: it must not grow with the dataset."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile

from benchmarks._pairs import machine

# A child process featurizes `synthetic@N` with a tiny network and prints its own peak, in MB.
CHILD = """
import resource, sys
from mt import extract
from mt.featurize.request import Compute, FeaturizeRequest
extract(FeaturizeRequest([f"synthetic@{sys.argv[1]}"], ["timm:test_resnet.r160_in1k"], ["train"], weights=["random"],
                         image_size=32, compute=Compute(device="cpu")))
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1024 if sys.platform == "linux" else 1024**2))
"""


def main() -> None:
    """Print both peaks and their difference."""
    print(f"  {machine()}")
    small, large = peak(1_000), peak(100_000)
    print(f"  peak at 1,000 rows {small:.0f} MB, at 100,000 rows {large:.0f} MB: {large - small:+.0f} MB (<= +100)")


def peak(rows: int) -> float:
    """Return the peak resident memory, in MB, of a fresh process that featurizes this number of rows."""
    with tempfile.TemporaryDirectory() as home:
        clean = {k: v for k, v in os.environ.items() if not k.startswith(("MT_", "XDG_"))}
        out = subprocess.run(
            [sys.executable, "-c", CHILD, str(rows)],
            check=True,
            capture_output=True,
            text=True,
            env=clean | {"HOME": home},
        )
    return float(out.stdout.split()[-1])


if __name__ == "__main__":
    main()
