"""Plain English: phrases that code, pages and tests do not use, with what to write instead.

    python tests/check_words.py

Prints each place, and exits with status 1 if there is one.  `make lint` runs it.  CHANGELOG.md keeps its words: it is
history.
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
SUFFIXES = {".py", ".md", ".html", ".js", ".yml", ".cfg", ".toml"}
MANY = (
    "batches|bytes|cases|class(?:es)?|columns?|draws|embedders?|errors?|facts?|features|files|fits|folders?|frames?|images?|"
    "labels?|lines?|means?|methods|numbers|objects?|ones?|operations|parts|predictions?|problems|readers|regressions?|rows?|"
    "rules?|scores?|seconds|tables?|times?|tokens?|values?|weights"
)
ONE = (
    "backbone|batch|block|case|class|column|dataset|draw|epoch|file|fit|fold|group|image|label|line|model|patient|pixel|"
    "row|second|slide|split|stage|step"
)
NUMBER = r"[0-9][0-9,.]*|one|two|three|four|five|six|eight|ten|many|several"
BANNED = {
    rf"\b({MANY}) an? ({ONE})\b(?!'| (of|takes|makes|can|may|needs|holds|at a time)\b)": "per",
    rf"\b({NUMBER}) an? ({ONE})\b(?!'| (of|takes|makes|can|may|needs|holds|at a time)\b)": "per",
    r", one each\b": "one per",
    r"(?<!there )(?<!There )(?<!whether )\b(is|are) no (?!longer\b)": "is not a, are not",
    r"\bso many\b": "the number",
    r"(?<![.`])\b[Tt]ells?\b(?!\()": "estimate, show, distinguish",
    r"(?<!\.)\btold\b": "estimated, given, said",
    r"\b[Ll]eft out\b": "omitted",
    r"\b[Gg]o(es)? on\b": "resume, continue",
    r"\banew\b": "again",
    r"\bDVME less\b|\bless (each|the other)\b": "minus",
    r"\bin a blink\b": "the time it takes",
    r"\bhas spoken\b|\bat (its|their) word\b|\bwhence\b(?!:| ==)|\bthereof\b|\bhitherto\b": "plain words",
}
QUOTES = {Path(__file__).name, "test_project.py"}  # these files name the phrases
# Names that other programs and stored files define.
NAMES = {"def tell(", 'digest({"left out"', "LC_ALL"}


def found(path: Path) -> Iterator[tuple[int, str, str]]:
    """Yield line number, phrase and advice of each banned phrase of a file."""
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        if not any(name in line for name in NAMES):
            for pattern, advice in BANNED.items():
                for match in re.finditer(pattern, line):
                    yield number, match[0], advice


def main() -> int:
    listed = subprocess.run(
        ["git", "ls-files"], cwd=ROOT, check=True, capture_output=True, text=True
    ).stdout.splitlines()
    files = [ROOT / name for name in listed if Path(name).suffix in SUFFIXES and name != "CHANGELOG.md"]
    places = [(path, *one) for path in files if path.name not in QUOTES for one in found(path)]
    for path, number, phrase, advice in places:
        print(f"{path.relative_to(ROOT)}:{number}: '{phrase}': write {advice}")
    return 1 if places else 0


if __name__ == "__main__":
    sys.exit(main())
