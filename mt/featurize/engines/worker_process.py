"""A worker in a process of its own on this machine: units come through a socket, answers go back through it."""

from __future__ import annotations

import os
import sys
import threading
from multiprocessing.connection import Connection
from typing import Any

CODE = (
    "import sys, json; sys.path[:] = json.loads(sys.argv[2]); "
    "from mt.featurize.engines.worker_process import main; main(int(sys.argv[1]))"
)


def main(descriptor: int) -> None:
    """Serve the process at the other end of a socket until that process closes it or ends."""
    sys.stdout = sys.stderr
    link: Connection[Any, Any] = Connection(descriptor)
    try:
        _serve(link)
    except (EOFError, BrokenPipeError, ConnectionResetError):
        pass
    except BaseException as error:
        from mt.featurize.engines.worker import in_words

        link.send(("failed", in_words(error)))
    sys.stderr.flush()
    os._exit(0)


def _serve(link: Connection[Any, Any]) -> None:
    from mt.featurize.engines.worker import UnitStream, started

    setup, device = link.recv()
    engine, facts = started(setup, device)
    link.send(("ready", facts))
    stream = UnitStream(engine, lambda answer: link.send(("answer", answer)))
    threading.Thread(target=_receive, args=(link, stream), name="receive", daemon=True).start()
    stream.run()


def _receive(link: Connection[Any, Any], stream: Any) -> None:
    """Pass units on to the stream as they arrive; the terms of a pass arrive before its first unit."""
    terms = None
    while True:
        try:
            kind, value = link.recv()
        except (EOFError, ConnectionResetError):
            os._exit(0)
        except BaseException as error:  # a source that opens its file when it arrives
            stream.fail(error)
            return
        if kind == "pass":
            terms = value
        else:
            stream.put(terms, value)
