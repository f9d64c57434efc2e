"""The `guestbook` command: kubectl's grammar for the lab, and the lab's own verbs."""

from __future__ import annotations

import gc
import os
import sys
import warnings
from collections.abc import Sequence

_UNUSED = ("pydantic.v1", "httpx._main")
"""Parts that libraries import where they are installed, and that nothing here uses."""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command; returns the exit status. Prints through `sys.stdout` and `sys.stderr`."""
    # These three are a quarter of a command's CPU time.
    gc.set_threshold(50_000)  # Imports make 100,000 objects, which stay.
    os.environ["PYDANTIC_DISABLE_PLUGINS"] = "__all__"  # It would read every package's metadata.
    for name in _UNUSED:
        sys.modules.setdefault(name, None)  # type: ignore[arg-type]
    # Envoy takes a certificate with the serial number 0, as commands of Istio's pages make them.
    warnings.filterwarnings("ignore", "Parsed a serial number which wasn't positive")
    from lab.cli.app import run

    return run(list(sys.argv[1:] if argv is None else argv))
