"""The number of files of `mt` whose code one `mt probe --fraction 0.01` runs, from the command to the printed row.

    python -m benchmarks.walk            # the numbers, cold and warm
    python -m benchmarks.walk --files    # also each file that is entered, with the number of calls into it

The command runs twice, each time in its own process under a profiler.  Cold, it fits five draws.  Warm, the score
database answers.  A file is "entered" if one of its functions is called.  It is "read" if any of its code runs, even
if only an import runs it.
"""

from __future__ import annotations

import inspect
import json
import subprocess
import sys
import tempfile
import threading
from collections import Counter
from pathlib import Path
from types import FrameType
from typing import Any

GOAL = 30


def main() -> None:
    """Print the number of files entered and read, cold and warm."""
    for state, (entered, read) in walks().items():
        print(f"  {state}: {len(entered)} files entered (at most {GOAL}), {len(read)} read")
        for name in sorted(entered) if "--files" in sys.argv else ():
            print(f"    {entered[name]:>8,}  {name}")


def walks() -> dict[str, tuple[dict[str, int], dict[str, int]]]:
    """Return, cold and warm, the number of calls into each file and the number of runs of any of its code."""
    from tests.probe.features import write_features

    found = {}
    with tempfile.TemporaryDirectory() as folder:
        for split, n in (("train", 2000), ("test", 500)):
            write_features(Path(folder), "walked", split=split, n=n, dim=32, grouped=True, signal=0.1)
        for state in ("cold", "warm"):
            command = [sys.executable, "-m", "benchmarks.walk", "--walk", folder]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            found[state] = tuple(json.loads(done.stdout.splitlines()[-1]))
    return found


def walk(cache: str) -> tuple[Counter[str], Counter[str]]:
    """Run the command; return the number of calls into each file of `mt`, and of runs of any of its code."""
    entered, read = Counter[str](), Counter[str]()
    package = str(Path(__file__).parent.parent / "mt") + "/"

    def profile(frame: FrameType, event: str, _: Any) -> None:
        code = frame.f_code
        if event == "call" and code.co_filename.startswith(package):
            name = code.co_filename.removeprefix(package)
            read[name] += 1
            # CO_OPTIMIZED marks functions.  Bodies of modules and classes lack it: they run during an import.
            entered[name] += bool(code.co_flags & inspect.CO_OPTIMIZED)

    threading.setprofile(profile)
    sys.setprofile(profile)
    try:
        from mt.cli import main as command

        command(["probe", "--fraction", "0.01", "--cache-dir", cache])
    except SystemExit:
        pass
    finally:
        sys.setprofile(None)
    return +entered, read


if __name__ == "__main__":
    if "--walk" in sys.argv:
        print(json.dumps(walk(sys.argv[-1])))
    else:
        main()
