"""`python -m lab.cluster.reaper MARK`: kills a lab's processes when the supervisor has ended."""

from __future__ import annotations

import os
import sys

from lab.cluster.process import sweep


def main() -> None:
    """Waits for the end of standard input, whose other end only the supervisor holds."""
    while os.read(0, 1):
        pass
    sweep(sys.argv[1])


if __name__ == "__main__":
    main()
