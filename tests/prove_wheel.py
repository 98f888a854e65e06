"""Prove the packages: build sdist and wheel, install each, and run `mt demo` from a hostile folder to its report.

The sdist is built from the sources and the wheel from the sdist.  pip installs the wheel into one environment, and uv
the sdist into another.  Both borrow this environment's dependencies through a `.pth` file, so nothing is fetched again;
this one's editable `mt` is not visible there, since `.pth` files of a borrowed folder are not read.  The folder
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
    """Build, install and run both packages; the exit status is 0 if they work."""
    with tempfile.TemporaryDirectory() as folder:
        here = Path(folder)
        sdist, wheel = build(here / "dist")
        by_pip, by_uv = environment(here / "pip", with_pip=True), environment(here / "uv", with_pip=False)
        subprocess.run([by_pip, "-m", "pip", "install", "--quiet", "--no-deps", wheel], check=True)
        uv = [sys.executable, "-m", "uv", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation"]
        subprocess.run([*uv, "--python", by_uv, sdist], check=True)
        for python in (by_pip, by_uv):
            run_elsewhere(python, here / "elsewhere")
    print("the wheel works, installed by pip; the sdist works, installed by uv")


def build(out: Path) -> tuple[Path, Path]:
    """Return the sdist, and the wheel built from it, which must hold `mt` and nothing else at the top."""
    # The build backend comes from this environment's index settings, in isolation: as a release would be built.
    subprocess.run([sys.executable, "-m", "build", "--outdir", out, ROOT], check=True, stdout=subprocess.DEVNULL)
    (sdist,), (wheel,) = out.glob("*.tar.gz"), out.glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    tops = {name.split("/")[0] for name in names if ".dist-info" not in name}
    if tops != {"mt"} or "mt/py.typed" not in names:
        raise SystemExit(f"the wheel holds {sorted(tops)}, expected mt alone, with py.typed")
    return sdist, wheel


def environment(folder: Path, *, with_pip: bool) -> Path:
    """Return the Python of a new environment that borrows every dependency."""
    venv.create(folder, with_pip=with_pip)
    python = folder / "bin" / "python"
    command = [str(python), "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"]
    site = Path(subprocess.check_output(command, text=True).strip())
    (site / "borrowed.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return python


def run_elsewhere(python: Path, folder: Path) -> None:
    """Run `mt demo` with a fresh home, in a folder whose own `cache` and `probe` must not be imported instead of ours.

    The second run in one folder finds what the first one computed.
    """
    (folder / "cache").mkdir(parents=True, exist_ok=True)
    (folder / "cache" / "__init__.py").write_text("raise ImportError('this is the user\\'s own cache')\n")
    (folder / "probe.py").write_text("raise ImportError('this is the user\\'s own probe')\n")
    home = folder / "home"
    home.mkdir(exist_ok=True)
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("MT_", "XDG_", "PYTHONPATH"))}
    where = subprocess.check_output([python, "-c", "import mt; print(mt.__file__)"], text=True, cwd=folder, env=clean)
    if not Path(where.strip()).is_relative_to(python.parent.parent):
        raise SystemExit(f"mt was imported from {where.strip()}, not from its environment")
    demo = [str(python.parent / "mt"), "demo"]
    shown = subprocess.check_output(demo, cwd=folder, env=clean | {"HOME": str(home)}, text=True)
    print(shown, end="")
    report = folder.resolve() / "mt-demo.html"
    if str(report) not in shown.splitlines()[-1] or "</html>" not in report.read_text(encoding="utf-8"):
        raise SystemExit(f"mt demo did not end with its report, expected {report}")


if __name__ == "__main__":
    main()
