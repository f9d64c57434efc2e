"""Log lines on standard output, a line an event.

Text is for people and for the exercises: an information line is the message alone, as in the
codelab; a warning or an error begins with its level. JSON has everything in fields. The access log
line of each request, and every warning and error, carry the trace id and the request id.
"""

import asyncio
import contextlib
import json
import logging
import sys
import time
from datetime import UTC, datetime
from typing import Any, TextIO

from services.common.context import current_request
from services.common.settings import CommonSettings

ACCESS = "access"
"""Name of the logger of the access log."""

ACCESS_LINE = "%s %s %d %.1fms"
"""Its line: method, path, status, milliseconds; in JSON these are fields as well."""


def configure(settings: CommonSettings) -> None:
    """Sends all logging of this process to standard output in the form of the settings."""
    # Not `sys.stdout`, which writes each line when Python runs unbuffered, as in a container.
    output = open(sys.stdout.fileno(), "w", 65536, "utf-8", "backslashreplace", closefd=False)  # noqa: SIM115
    handler = _TurnHandler(output)
    handler.setFormatter(_JSONFormatter() if settings.log_format == "json" else _TextFormatter())
    logging.basicConfig(handlers=[handler], level=logging.INFO, force=True)
    for name in ("uvicorn",):  # Their information lines repeat ours.
        logging.getLogger(name).setLevel(logging.WARNING)
    logging.setLogRecordFactory(_Record)
    logging._srcfile = None  # File and line are not printed either.


class _Record(logging.LogRecord):
    """A record without place, thread and task: they are not printed, and cost as much again."""

    def __init__(
        self,
        name: str,
        level: int,
        _path: str,
        _line: int,
        msg: object,
        args: Any,
        exc: Any,
        *_: Any,
    ) -> None:
        self.name, self.levelno, self.levelname = name, level, logging.getLevelName(level)
        self.msg, self.args, self.exc_info, self.created = msg, args, exc, time.time()


class _TextFormatter(logging.Formatter):
    """Formats the message as one line, whatever a client put in it; a traceback follows."""

    def format(self, record: logging.LogRecord) -> str:
        line = _escape(record.getMessage())
        important = record.levelno >= logging.WARNING
        if important:
            line = f"{record.levelname} {line}"
        request = current_request.get(None)
        if request is not None and (important or record.name == ACCESS):
            trace_id = f" trace_id={request.trace_id}" if request.trace_id else ""
            line += f"{trace_id} request_id={request.request_id}"
        if record.exc_info:
            lines = self.formatException(record.exc_info).split("\n")
            line = "\n".join([line, *map(_escape, lines)])
        return line


class _JSONFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        event: dict[str, Any] = {
            "timestamp": datetime.fromtimestamp(record.created, UTC).isoformat(),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.name == ACCESS and isinstance(record.args, tuple):
            event |= zip(("method", "path", "status", "duration_ms"), record.args, strict=True)
        if request := current_request.get(None):
            event |= {"trace_id": request.trace_id, "request_id": request.request_id}
        if record.exc_info:
            event["exc_info"] = self.formatException(record.exc_info)
        line = json.dumps(event, ensure_ascii=False)
        if line.isprintable():
            return line
        return "".join(c if c.isprintable() else json.dumps(c)[1:-1] for c in line)


class _TurnHandler(logging.StreamHandler[TextIO]):
    """Writes the lines of a turn of the event loop at once, in the next turn.

    Under load a turn has many lines, and the write is the dearest part of a line.
    """

    _due = False

    def flush(self) -> None:
        if self._due:
            return
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            self._write()
            return
        self._due = True
        loop.call_soon(self._write)

    def close(self) -> None:
        self._write()
        super().close()

    def _write(self) -> None:
        self._due = False
        with contextlib.suppress(OSError):  # A log without a reader is no error of a request.
            super().flush()


def _escape(text: str) -> str:
    """Returns the text with control, bidirectional and other invisible characters escaped."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
