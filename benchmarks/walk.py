"""How many files of `mt` one `mt probe --fraction 0.01` walks through, from the command to the printed row.

Each walk is a process of its own under a profiler.  A file is entered if one of its functions is called, and read if
any of its code runs, importing it included.  Cold: five draws are fitted.  Warm: the score database answers.

    python -m benchmarks.walk            # both numbers, cold and warm
    python -m benchmarks.walk --files    # and every file that is entered, with the number of calls into it
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
    """Print the files entered and read, cold and warm."""
    for state, (entered, read) in walks().items():
        print(f"  {state}: {len(entered)} files entered (at most {GOAL}), {len(read)} read")
        for name in sorted(entered) if "--files" in sys.argv else ():
            print(f"    {entered[name]:>8,}  {name}")


def walks() -> dict[str, tuple[dict[str, int], dict[str, int]]]:
    """Return the calls into each file, and the runs of any of its code, of the cold and of the warm walk."""
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
    """Run the command; return the calls into each file of `mt`, and the runs of any of its code."""
    entered, read = Counter[str](), Counter[str]()
    package = str(Path(__file__).parent.parent / "mt") + "/"

    def profile(frame: FrameType, event: str, _: Any) -> None:
        code = frame.f_code
        if event == "call" and code.co_filename.startswith(package):
            name = code.co_filename.removeprefix(package)
            read[name] += 1
            # Bodies of modules and classes are not optimised, as functions are: they run while importing.
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
