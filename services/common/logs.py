"""Log lines on standard output, a line an event, written at once.

Text is for people and for the exercises: an information line is the message alone, as in the
codelab; a warning or an error begins with its level. JSON has everything in fields. The access log
line of each request, and every warning and error, carry the trace id and the request id.
"""

from __future__ import annotations

import logging
import sys
from typing import Any

from services.common import telemetry
from services.common.context import current_request
from services.common.settings import CommonSettings

ACCESS = "access"
"""Name of the logger of the access log."""

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
        line = record.getMessage()
        if not line.isprintable():
            line = line.translate(_CONTROL)
        if record.levelno >= logging.WARNING:
            line = f"{record.levelname} {line}{_ids()}"
        elif record.name == ACCESS:
            line += _ids()
        if record.exc_info:
            line += "\n" + self.formatException(record.exc_info)
        return line


def configure(settings: CommonSettings) -> None:
    """Send all logging of this process to standard output in the form the settings ask for."""
    handler = logging.StreamHandler(sys.stdout)
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


def _ids() -> str:
    request = current_request.get(None)
    if request is None:
        return ""
    trace_id = telemetry.trace_id()
    ids = f" trace_id={trace_id}" if trace_id else ""
    return (ids + f" request_id={request.request_id}").translate(_CONTROL)


def _json_formatter() -> logging.Formatter:
    from pythonjsonlogger.json import JsonFormatter

    class WithIds(JsonFormatter):
        def add_fields(
            self, log_data: dict[str, Any], record: logging.LogRecord, message_dict: dict[str, Any]
        ) -> None:
            super().add_fields(log_data, record, message_dict)
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
