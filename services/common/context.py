"""The request being handled: its trace headers, its id and the status of its answer."""

from __future__ import annotations

import re
import uuid
from contextvars import ContextVar
from dataclasses import dataclass

REQUEST_ID = b"x-request-id"

TRACE_HEADERS = (
    b"traceparent",
    b"tracestate",
    b"b3",
    b"x-b3-traceid",
    b"x-b3-spanid",
    b"x-b3-parentspanid",
    b"x-b3-sampled",
    b"x-b3-flags",
)
"""Headers of W3C Trace Context and of B3, single and multiple."""

LONGEST_VALUE = 1000
"""Bytes of a trace header; a longer one is not relayed."""

_KEPT = frozenset((REQUEST_ID, *TRACE_HEADERS))
_REQUEST_ID_FORM = re.compile(rb"[A-Za-z0-9._:/+=@-]{1,128}")
_TRACE_ID_FORM = re.compile(rb"[0-9a-f]{32}|[0-9a-f]{16}")


@dataclass(slots=True)
class RequestContext:
    """The parts of a request that logs, metrics and outgoing calls need."""

    method: str
    kept: dict[bytes, bytes]
    """The trace headers and the request id, as they came."""
    request_id: str
    status: int = 500
    """Status of the answer; 500 until one is sent, as an exception becomes one."""
    answered: bool = False
    """Whether the answer has begun."""
    span_trace_id: str | None = None
    """Trace id of this process's own span, where spans are exported."""

    @property
    def trace_id(self) -> str | None:
        """The trace id in lower-case hexadecimal digits, None without a valid one."""
        return self.span_trace_id or _incoming_trace_id(self.kept)


current_request: ContextVar[RequestContext] = ContextVar("current_request")


def new_request(method: str, headers: list[tuple[bytes, bytes]]) -> RequestContext:
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
    request_id = kept.get(REQUEST_ID, b"")
    if not _REQUEST_ID_FORM.fullmatch(request_id):
        request_id = kept[REQUEST_ID] = str(uuid.uuid4()).encode()
    return RequestContext(method, kept, request_id.decode())


def _incoming_trace_id(kept: dict[bytes, bytes]) -> str | None:
    if b"traceparent" in kept:
        trace_id = kept[b"traceparent"].split(b"-", 2)[1:2]
    elif b"b3" in kept:
        trace_id = kept[b"b3"].split(b"-", 1)[:1]
    else:
        trace_id = [kept.get(b"x-b3-traceid", b"")]
    valid = [each.decode() for each in trace_id if _TRACE_ID_FORM.fullmatch(each)]
    return valid[0] if valid else None
