"""The request being handled: its trace headers, its id and the status of its answer."""

import re
import uuid
from contextvars import ContextVar
from dataclasses import dataclass

REQUEST_ID = b"x-request-id"

_W3C = (b"traceparent", b"tracestate")
_B3 = (b"b3", b"x-b3-traceid", b"x-b3-spanid", b"x-b3-parentspanid", b"x-b3-sampled", b"x-b3-flags")
_KEPT = frozenset((REQUEST_ID, *_W3C, *_B3))

LONGEST_VALUE = 1000
"""Bytes of a trace header; a longer one is not relayed."""

_REQUEST_ID_FORM = re.compile(rb"[A-Za-z0-9._:/+=@-]{1,128}")
_TRACE_ID_FORM = re.compile(rb"[0-9a-f]{32}|[0-9a-f]{16}")


@dataclass(slots=True)
class RequestContext:
    """The parts of a request that logs, metrics and outgoing calls need."""

    kept: dict[bytes, bytes]
    """The trace headers and the request id, as they came."""
    request_id: str
    trace_id: str | None
    """In lower-case hexadecimal digits: of this process's own span, else of the trace headers."""
    status: int | None = None
    """Status of the answer; None until it begins."""


current_request: ContextVar[RequestContext] = ContextVar("current_request")


def new_request(headers: list[tuple[bytes, bytes]]) -> RequestContext:
    """Returns the context of a request; one without a valid `x-request-id` is given one.

    Trace headers that cannot be relayed as they are (not printable ASCII, too long) are dropped.
    """
    kept: dict[bytes, bytes] = {}
    for name, value in headers:
        if name in _KEPT:
            # A repeated header (tracestate) is one list.
            kept[name] = kept[name] + b"," + value if name in kept else value
    for name, value in tuple(kept.items()):
        if not (value.isascii() and value.decode().isprintable() and len(value) <= LONGEST_VALUE):
            del kept[name]
    if not _REQUEST_ID_FORM.fullmatch(kept.get(REQUEST_ID, b"")):
        kept[REQUEST_ID] = str(uuid.uuid4()).encode()
    return RequestContext(kept, kept[REQUEST_ID].decode(), _incoming_trace_id(kept))


def _incoming_trace_id(kept: dict[bytes, bytes]) -> str | None:
    if b"traceparent" in kept:
        trace_id = kept[b"traceparent"].partition(b"-")[2].partition(b"-")[0]
    elif b"b3" in kept:
        trace_id = kept[b"b3"].partition(b"-")[0]
    else:
        trace_id = kept.get(b"x-b3-traceid", b"")
    return trace_id.decode() if _TRACE_ID_FORM.fullmatch(trace_id) else None
