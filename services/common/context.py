"""The request being handled, for whoever needs it further down: logs, metrics, outgoing calls."""

from __future__ import annotations

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
"""What W3C Trace Context and B3 (single and multiple) put on a request."""

_KEPT = frozenset((REQUEST_ID, *TRACE_HEADERS))


@dataclass(slots=True)
class RequestContext:
    method: str
    kept: dict[bytes, bytes]
    """The trace headers and the request id of the request, as they came."""
    request_id: str
    status: int = 500
    """The answer's status; 500 until one is sent, for that is what an exception becomes."""
    answered: bool = False
    """Whether the answer has begun."""
    span_trace_id: str | None = None
    """The trace id of our own span, where spans are made."""

    @property
    def trace_id(self) -> str | None:
        """The trace this request belongs to: lower-case hexadecimal digits, or None."""
        return self.span_trace_id or _incoming_trace_id(self.kept)


current_request: ContextVar[RequestContext] = ContextVar("current_request")


def new_request(method: str, headers: list[tuple[bytes, bytes]]) -> RequestContext:
    """Remember what matters of a request; one that brings no `x-request-id` is given one."""
    kept: dict[bytes, bytes] = {}
    for name, value in headers:
        if name in _KEPT:
            # A header may be repeated (tracestate); together they are one list.
            kept[name] = kept[name] + b"," + value if name in kept else value
    request_id = kept.get(REQUEST_ID)
    return RequestContext(
        method, kept, request_id.decode("latin-1") if request_id else str(uuid.uuid4())
    )


def _incoming_trace_id(kept: dict[bytes, bytes]) -> str | None:
    if parent := kept.get(b"traceparent"):
        parts = parent.split(b"-", 2)
        return parts[1].decode("latin-1") if len(parts) == 3 else None
    if (single := kept.get(b"b3")) and b"-" in single:
        return single.split(b"-", 1)[0].decode("latin-1")
    multiple = kept.get(b"x-b3-traceid")
    return multiple.decode("latin-1") if multiple else None
