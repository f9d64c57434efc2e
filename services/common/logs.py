"""Log lines on standard output, a line an event.

Text is for people and for the exercises: an information line is the message alone, as in the
codelab; a warning or an error begins with its level. JSON has everything in fields. The access log
line of each request, and every warning and error, carry the trace id and the request id.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import sys
import time
from typing import Any, TextIO

from services.common import telemetry
from services.common.context import current_request
from services.common.settings import CommonSettings

ACCESS = "access"
"""Name of the logger of the access log."""

ACCESS_LINE = "%s %s %d %.1fms"
"""Its line: method, path, status, milliseconds; in JSON these are fields as well."""


class TextFormatter(logging.Formatter):
    """Formats the message as one line, whatever a client put in it; a traceback follows."""

    def format(self, record: logging.LogRecord) -> str:
        line = escape(record.getMessage())
        if record.levelno >= logging.WARNING:
            line = f"{record.levelname} {line}{_ids()}"
        elif record.name == ACCESS:
            line += _ids()
        if record.exc_info:
            lines = self.formatException(record.exc_info).split("\n")
            line = "\n".join([line, *map(escape, lines)])
        return line


class _Record(logging.LogRecord):
    """A record without place, thread and task, which are not printed and cost as much again."""

    def __init__(
        self,
        name: str,
        level: int,
        pathname: str,  # noqa: ARG002
        lineno: int,  # noqa: ARG002
        msg: object,
        args: Any,
        exc_info: Any,
        func: str | None = None,  # noqa: ARG002
        sinfo: str | None = None,
        **_: object,
    ) -> None:
        self.name, self.levelno, self.levelname = name, level, logging.getLevelName(level)
        self.msg, self.args = msg, args
        self.exc_info, self.exc_text, self.stack_info = exc_info, None, sinfo
        self.created = time.time()


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
            super().flush()
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


def configure(settings: CommonSettings) -> None:
    """Sends all logging of this process to standard output in the form of the settings."""
    # Not `sys.stdout`, which writes each line when Python runs unbuffered, as in a container.
    output = open(sys.stdout.fileno(), "w", 65536, "utf-8", "backslashreplace", closefd=False)  # noqa: SIM115
    handler = _TurnHandler(output)
    handler.setFormatter(_json_formatter() if settings.log_format == "json" else TextFormatter())
    logging.basicConfig(handlers=[handler], level=logging.INFO, force=True)
    for name in ("uvicorn", "httpx"):  # Their information lines repeat ours.
        logging.getLogger(name).setLevel(logging.WARNING)
    logging.setLogRecordFactory(_Record)
    logging._srcfile = None  # No file and line are looked up; they are not printed.


def escape(text: str) -> str:
    """Returns the text with control, bidirectional and other invisible characters escaped."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def _ids() -> str:
    request = current_request.get(None)
    if request is None:
        return ""
    trace_id = telemetry.trace_id()
    ids = f" trace_id={trace_id}" if trace_id else ""
    return f"{ids} request_id={request.request_id}"


def _json_formatter() -> logging.Formatter:
    from pythonjsonlogger.json import JsonFormatter

    class WithIds(JsonFormatter):
        def add_fields(
            self, log_data: dict[str, Any], record: logging.LogRecord, message_dict: dict[str, Any]
        ) -> None:
            super().add_fields(log_data, record, message_dict)
            if record.name == ACCESS:
                args: Any = record.args
                method, path, status, milliseconds = args
                log_data |= {"method": method, "path": path, "status": status}
                log_data["duration_ms"] = round(milliseconds, 3)
            request = current_request.get(None)
            if request is not None:
                log_data["trace_id"] = telemetry.trace_id()
                log_data["request_id"] = request.request_id

        def format(self, record: logging.LogRecord) -> str:
            line = super().format(record)
            if line.isprintable():
                return line
            return "".join(c if c.isprintable() else json.dumps(c)[1:-1] for c in line)

    return WithIds(
        "%(levelname)s%(name)s%(message)s",
        rename_fields={"levelname": "level", "name": "logger"},
        timestamp=True,
        json_ensure_ascii=False,
    )
