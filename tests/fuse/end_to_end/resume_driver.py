"""Train with `mt fuse --unfreeze`'s function once uninterrupted, once killed with SIGKILL again and again.

    python -m tests.fuse.end_to_end.resume_driver CACHE FOLDER

Every try is a process of its own (forked, since importing torch each time would take longer than training).  A try is
killed after N steps, or before the Nth change of the disk, half-way through a write.
Prints how many tries were killed.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import scipy.stats  # noqa: F401  (these three are imported once, before forking)
import sklearn.linear_model  # noqa: F401
import timm  # noqa: F401

from mt.fuse.end_to_end import loop
from mt.fuse.end_to_end.choice import schedule
from mt.fuse.end_to_end.loop import Run
from mt.fuse.end_to_end.request import FinetuneRequest, Machine, Settings
from mt.fuse.end_to_end.run import run_unfrozen
from mt.fuse.request import FuseRequest
from mt.system import files
from tests.cache.operations import Killer
from tests.fuse.end_to_end.small import RESNET, VIT, always_trained

# Two candidates are tried on four fifths, an epoch each, then trained on all: 32 steps, then 2 times 25.
KILLS = (("steps", 3), ("changes", 50), ("steps", 7), ("changes", 40), ("steps", 9))
SETTINGS = Settings(learning_rates=(1e-3, 1e-4), epochs=5, dropout=0.3, augment="flip")
MACHINE = Machine(batch_size=4, accumulate=2, checkpoint_every=2, workers=1)


def train(cache: Path, folder: Path) -> None:
    cached = FuseRequest(
        cache,
        models=[RESNET, VIT],
        fractions=[1.0],
        everything=True,
        device="cpu",
        scores=folder / "scores.sqlite",
        save=folder / "model",
    )
    run_unfrozen(FinetuneRequest(cached, SETTINGS, MACHINE, checkpoints=folder / "checkpoints"))


def killed(cache: Path, folder: Path, what: str, k: int) -> bool:
    """Run one try; say whether it was killed."""
    child = os.fork()
    if child == 0:
        if what == "changes":
            vars(files)["os"] = Killer(k, torn=True)
        elif what == "steps":
            _kill_after_steps(k)
        train(cache, folder)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL:
        return True
    if status:
        raise SystemExit(f"{what} {k} failed with {status}")
    return False


def _kill_after_steps(k: int) -> None:
    done = 0
    real = Run._finish_step

    def finish(run: Run, *arguments: object) -> None:
        nonlocal done
        real(run, *arguments)  # type: ignore[arg-type]
        done += 1
        if done == k:
            os.kill(os.getpid(), signal.SIGKILL)

    setattr(Run, "_finish_step", finish)  # noqa: B010  (an assignment would have to repeat its types)


def main(cache: Path, folder: Path) -> None:
    always_trained()
    schedule.LONG_ENOUGH = 0.0  # trials predict, though they are short
    loop.WRITING = float("inf")  # a checkpoint at the end of every epoch: kills are counted in changes of the disk
    killed(cache, folder / "whole", "nothing", 0)
    print(sum(killed(cache, folder / "killed", what, k) for what, k in (*KILLS, ("nothing", 0))))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
