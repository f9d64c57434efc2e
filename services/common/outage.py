"""One log line when a dependency fails and one when it works again."""

import logging


class Outage:
    """The state of a dependency. Each change of it is logged once."""

    def __init__(self, logger: logging.Logger, failed: str, works: str) -> None:
        self._logger = logger
        self._failed = failed
        self._works = works
        self._reason: str | None = None
        """Why it fails, as it was logged; None when it works."""

    def fails(self, reason: object, *, each: bool = False) -> None:
        """Notes a failure; the first one, or `each` other reason, is a warning."""
        if self._reason is None or (each and self._reason != str(reason)):
            self._reason = str(reason)
            self._logger.warning("%s: %s", self._failed, reason)

    def works(self) -> None:
        """Notes a success; the first one after a failure is logged."""
        if self._reason is not None:
            self._reason = None
            self._logger.info("%s", self._works)
