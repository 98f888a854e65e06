"""`mt`, with a part for the trained network in every fit: `python -m tests.fuse.end_to_end.trained_cli fuse ...`."""

from __future__ import annotations

from mt.cli import main
from tests.fuse.end_to_end.small import always_trained

if __name__ == "__main__":
    always_trained()
    main()
