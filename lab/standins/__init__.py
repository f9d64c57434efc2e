"""Local programs that play a container image."""

import os
import shutil
import sys
from collections.abc import Iterable

EMBEDDED = "GUESTBOOK_EMBEDDED"
"""When set in the environment, the embedded stand-ins are used where real servers exist, too."""


def installed(servers: Iterable[str], path: str | None = None) -> str | None:
    """Returns the first of some servers that this machine has, if a real one is wanted."""
    if os.environ.get(EMBEDDED):
        return None
    return next((found for name in servers if (found := shutil.which(name, path=path))), None)


def say(line: str) -> None:
    """Prints a line to the container's log at once."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()
