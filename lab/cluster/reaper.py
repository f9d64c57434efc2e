"""`python -m lab.cluster.reaper MARK`: waits until the supervisor ends, then kills what it left."""

from __future__ import annotations

import os
import sys

from lab.cluster.process import sweep


def main() -> None:
    """Block on standard input, whose other end only the supervisor holds."""
    while os.read(0, 1):
        pass
    sweep(sys.argv[1])


if __name__ == "__main__":
    main()
