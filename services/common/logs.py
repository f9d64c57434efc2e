"""Log lines on standard output, a line an event, those of a turn of the event loop in one write.

Text is for people and for the exercises: an information line is the message alone, as in the
codelab; a warning or an error begins with its level. JSON has everything in fields. The access log
line of each request, and every warning and error, carry the trace id and the request id.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import sys
from typing import Any, TextIO

from services.common import telemetry
from services.common.context import current_request
from services.common.settings import CommonSettings

ACCESS = "access"
"""Name of the logger of the access log."""

ACCESS_LINE = "%s %s %d %.1fms"
"""Its line, of method, path, status and milliseconds; in JSON these are fields as well."""

_CONTROL = {code: f"\\x{code:02x}" for code in (*range(32), *range(127, 160))} | {
    ord("\n"): "\\n",
    ord("\r"): "\\r",
    ord("\t"): "\\t",
    0x2028: "\\u2028",
    0x2029: "\\u2029",
}


class TextFormatter(logging.Formatter):
    """The message, one line, whatever a client put in it; a traceback follows on its own lines."""

    def format(self, record: logging.LogRecord) -> str:
        line = _one_line(record.getMessage())
        if record.levelno >= logging.WARNING:
            line = f"{record.levelname} {line}{_ids()}"
        elif record.name == ACCESS:
            line += _ids()
        if record.exc_info:
            line += "\n" + self.formatException(record.exc_info)
        return line


class _TurnHandler(logging.StreamHandler[TextIO]):
    """Writes in the next turn of the event loop, and at once where none runs.

    Under load a turn has many lines, and the write is what a line costs most.
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
        with contextlib.suppress(OSError):  # Nobody reads any more; that is no error of a request.
            super().flush()


def configure(settings: CommonSettings) -> None:
    """Send all logging of this process to standard output in the form the settings ask for."""
    # Not `sys.stdout`, which writes each line when Python runs unbuffered, as in a container.
    output = open(sys.stdout.fileno(), "w", 65536, "utf-8", "backslashreplace", closefd=False)  # noqa: SIM115
    handler = _TurnHandler(output)
    handler.setFormatter(_json_formatter() if settings.log_format == "json" else TextFormatter())
    logging.basicConfig(handlers=[handler], level=logging.INFO, force=True)
    # Its start and stop lines repeat ours.
    logging.getLogger("uvicorn").setLevel(logging.WARNING)
    # Nobody prints these, and collecting them costs each line (see "Optimization" in the
    # documentation of logging).
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False
    logging._srcfile = None
    if sys.version_info >= (3, 12):
        logging.logAsyncioTasks = False


def _one_line(text: str) -> str:
    return text if text.isprintable() else text.translate(_CONTROL)


def _ids() -> str:
    request = current_request.get(None)
    if request is None:
        return ""
    trace_id = telemetry.trace_id()
    ids = f" trace_id={trace_id}" if trace_id else ""
    return _one_line(f"{ids} request_id={request.request_id}")


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

    return WithIds(
        "%(levelname)s%(name)s%(message)s",
        rename_fields={"levelname": "level", "name": "logger"},
        timestamp=True,
        json_ensure_ascii=False,
    )
