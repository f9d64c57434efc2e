"""`python -m lab.cli`: the same as `guestbook`."""

from __future__ import annotations

import sys

from lab.cli import main

if __name__ == "__main__":
    sys.exit(main())
