"""The `guestbook` command: kubectl's grammar for the lab, and the lab's own verbs."""

from __future__ import annotations

import sys
from collections.abc import Sequence


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command; returns the exit status. Prints through `sys.stdout` and `sys.stderr`."""
    from lab.cli.app import run

    return run(list(sys.argv[1:] if argv is None else argv))
