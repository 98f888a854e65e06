"""Prove the wheel: build it, install it into a second environment, run `mt demo` from a hostile folder to its report.

The second environment borrows the first one's dependencies through a `.pth` file, so nothing is fetched again; the
first one's editable `mt` is not visible there, since `.pth` files of a borrowed folder are not read.  The folder
holds a `cache/` package and a `probe.py`, names that a user's own project may well have.
"""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import tempfile
import venv
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def main() -> None:
    """Build, install, run; the exit status says whether the wheel works."""
    with tempfile.TemporaryDirectory() as folder:
        wheel = build(Path(folder) / "dist")
        environment = install(wheel, Path(folder) / "env")
        run_elsewhere(environment, Path(folder) / "elsewhere")
    print("the wheel works")


def build(out: Path) -> Path:
    """Return the wheel built from the sources, checked to hold `mt` and nothing else at the top."""
    # The build backend comes from this environment's index settings, in isolation: as a release would be built.
    command = [sys.executable, "-m", "build", "--wheel", "--outdir", out, ROOT]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    (wheel,) = out.glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    tops = {name.split("/")[0] for name in names if ".dist-info" not in name}
    if tops != {"mt"} or "mt/py.typed" not in names:
        raise SystemExit(f"the wheel holds {sorted(tops)}, expected mt alone, with py.typed")
    return wheel


def install(wheel: Path, environment: Path) -> Path:
    """Return a second environment that holds the wheel and borrows every dependency."""
    venv.create(environment, with_pip=True)
    python = environment / "bin" / "python"
    borrowed = sysconfig.get_path("purelib")
    subprocess.run([python, "-m", "pip", "install", "--quiet", "--no-deps", wheel], check=True)
    site = subprocess.check_output(
        [python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"], text=True
    ).strip()
    (Path(site) / "borrowed.pth").write_text(borrowed + "\n")
    return environment


def run_elsewhere(environment: Path, folder: Path) -> None:
    """Run `mt demo` in a folder whose own `cache` and `probe` must not be taken for ours, with a fresh home."""
    (folder / "cache").mkdir(parents=True)
    (folder / "cache" / "__init__.py").write_text("raise ImportError('this is the user\\'s own cache')\n")
    (folder / "probe.py").write_text("raise ImportError('this is the user\\'s own probe')\n")
    home = folder / "home"
    home.mkdir()
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("MT_", "XDG_", "PYTHONPATH"))}
    where = subprocess.check_output(
        [environment / "bin" / "python", "-c", "import mt; print(mt.__file__)"], text=True, cwd=folder, env=clean
    )
    if not Path(where.strip()).is_relative_to(environment):
        raise SystemExit(f"mt was imported from {where.strip()}, not from the wheel")
    demo = [environment / "bin" / "mt", "demo"]
    shown = subprocess.check_output(demo, cwd=folder, env=clean | {"HOME": str(home)}, text=True)
    print(shown, end="")
    report = folder.resolve() / "mt-demo.html"
    if str(report) not in shown.splitlines()[-1] or "</html>" not in report.read_text(encoding="utf-8"):
        raise SystemExit(f"mt demo did not end with its report, expected {report}")


if __name__ == "__main__":
    main()
