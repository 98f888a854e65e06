"""A complete cache recognised: `mt featurize` again, as a whole process, against `import torch`."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from functools import partial

from benchmarks._pairs import machine, paired, row

ROUNDS = 7


def main() -> None:
    """Print the ratio for digits and for synthetic images."""
    print(f"  {machine()}")
    with tempfile.TemporaryDirectory() as home:
        for dataset in ("digits", "synthetic"):
            again = [sys.executable, "-m", "mt", "featurize", "--model", "efficientnet-lite0", "--dataset", dataset]
            again += ["--image-size", "32"]
            run(again, home)
            mine, torch, ratio = paired(
                partial(run, again, home),
                lambda: run([sys.executable, "-c", "import torch"], home),
                rounds=ROUNDS,
            )
            times = f"{mine:.2f} / {torch:.2f} s"
            row(f"{dataset}: rerun / import torch (time)", 1 / ratio, reach="<= 0.5", note=times)


def run(command: list[str], home: str) -> None:
    """Run a command in a fresh home, silently."""
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("MT_", "XDG_"))}
    subprocess.run(command, check=True, env=clean | {"HOME": home}, stdout=subprocess.DEVNULL)


if __name__ == "__main__":
    main()
