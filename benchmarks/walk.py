"""How many files of `mt` one `mt probe --fraction 0.01` walks through, from the command to the printed row.

A file counts if at least one of its functions is called; importing it does not count.  Cold: the five draws are fitted.
Warm: the same command is answered from the score database.

    python -m benchmarks.walk            # both numbers
    python -m benchmarks.walk --files    # and every file, with the number of calls into it
"""

from __future__ import annotations

import contextlib
import inspect
import io
import sys
import tempfile
import threading
from collections import Counter
from pathlib import Path
from types import FrameType
from typing import Any

import mt
from mt.cli import group
from tests.probe.features import write_features

PACKAGE = Path(mt.__file__).parent
GOAL = 30


def main() -> None:
    """Print the files entered cold and warm."""
    with tempfile.TemporaryDirectory() as folder:
        cache = Path(folder)
        write_features(cache, "walked", split="train", n=2000, dim=32, grouped=True)
        write_features(cache, "walked", split="test", n=500, dim=32, grouped=True)
        for state in ("cold", "warm"):
            entered, printed = walk(cache)
            print(f"{state}: {len(entered)} files of mt entered (goal: at most {GOAL})")
            if "--files" in sys.argv:
                for name, calls in sorted(entered.items()):
                    print(f"    {calls:>8,}  {name}")
        print(printed)


def walk(cache: Path) -> tuple[Counter[str], str]:
    """Run the command; return the calls into each file of `mt`, and what was printed."""
    entered: Counter[str] = Counter()

    def profile(frame: FrameType, event: str, _: Any) -> None:
        code = frame.f_code
        # Bodies of modules and classes run while importing; they are not optimised as functions are.
        if event == "call" and code.co_flags & inspect.CO_OPTIMIZED and code.co_filename.startswith(str(PACKAGE)):
            entered[str(Path(code.co_filename).relative_to(PACKAGE))] += 1

    out = io.StringIO()
    threading.setprofile(profile)
    sys.setprofile(profile)
    try:
        with contextlib.redirect_stdout(out):
            group.main(["probe", "--fraction", "0.01", "--cache-dir", str(cache)], standalone_mode=False)
    finally:
        sys.setprofile(None)
        threading.setprofile(None)  # type: ignore[arg-type]
    return entered, out.getvalue()


if __name__ == "__main__":
    main()
