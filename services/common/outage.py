"""One log line when a dependency fails and one when it works again."""

import logging


class Outage:
    """The state of a dependency. Each change of it is logged once."""

    def __init__(self, logger: logging.Logger, failed: str, works: str) -> None:
        self._logger = logger
        self._failed = failed
        self._works = works
        self._down = False

    def fails(self, reason: object) -> None:
        """Notes a failure; the first one is a warning with its reason."""
        if not self._down:
            self._down = True
            self._logger.warning("%s: %s", self._failed, reason)

    def works(self) -> None:
        """Notes a success; the first one after a failure is logged."""
        if self._down:
            self._down = False
            self._logger.info("%s", self._works)
