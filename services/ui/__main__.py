"""`python -m services.ui`: the ui, configured by environment variables."""

from __future__ import annotations

import logging
from functools import partial

from services.common import logs
from services.common.health import Check
from services.common.server import run
from services.common.settings import load
from services.ui import sessions
from services.ui.app import create_app
from services.ui.settings import Settings


def main() -> None:
    """Run the ui until it is told to stop."""
    settings = load(Settings)
    logs.configure(settings)
    logging.getLogger("httpx").setLevel(logging.WARNING)  # else a line for every call
    redis = sessions.connect(settings)

    check = Check("redis", partial(sessions.ping, redis))
    run(create_app(settings, redis), settings=settings, checks=[check])


if __name__ == "__main__":
    main()
