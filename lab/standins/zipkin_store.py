"""Spans of the Zipkin stand-in, by trace, in memory; the oldest traces are dropped."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

MAX_TRACES = 2000
MAX_SPANS = 100_000


class Endpoint(BaseModel):
    model_config = ConfigDict(extra="allow")

    service_name: str | None = Field(default=None, alias="serviceName")


class Span(BaseModel):
    """One span of Zipkin's v2 model; times are in microseconds."""

    model_config = ConfigDict(extra="allow", populate_by_name=True)

    trace_id: Annotated[str, Field(alias="traceId", pattern="^[0-9a-fA-F]{1,32}$")]
    id: Annotated[str, Field(pattern="^[0-9a-fA-F]{1,16}$")]
    parent_id: str | None = Field(default=None, alias="parentId")
    name: str = ""
    kind: str | None = None
    timestamp: int = 0
    duration: int = 0
    local_endpoint: Endpoint | None = Field(default=None, alias="localEndpoint")
    remote_endpoint: Endpoint | None = Field(default=None, alias="remoteEndpoint")
    tags: dict[str, str] = Field(default_factory=dict)

    @property
    def service(self) -> str:
        return (self.local_endpoint.service_name if self.local_endpoint else None) or ""

    @property
    def label(self) -> str:
        """The service, the method and the name."""
        return " ".join(filter(None, (self.service, self.tags.get("http.method"), self.name)))

    @property
    def status(self) -> str:
        return self.tags.get("http.status_code", "")

    @property
    def failed(self) -> bool:
        return "error" in self.tags or self.status.startswith("5")

    def as_json(self) -> dict[str, Any]:
        return self.model_dump(by_alias=True, exclude_none=True, exclude_defaults=True)


def key_of(trace_id: str) -> str:
    """Returns a trace id with 128 bits, also for one written with 64."""
    return trace_id.lower().zfill(32)


@dataclass(slots=True)
class Store:
    """The latest traces."""

    limit: int = MAX_TRACES
    span_limit: int = MAX_SPANS
    traces: OrderedDict[str, list[Span]] = field(default_factory=OrderedDict)
    spans: int = 0

    def add(self, spans: Iterable[Span]) -> None:
        for span in spans:
            self.traces.setdefault(key_of(span.trace_id), []).append(span)
            self.spans += 1
        while len(self.traces) > self.limit or self.spans > self.span_limit:
            _, dropped = self.traces.popitem(last=False)
            self.spans -= len(dropped)

    def services(self) -> list[str]:
        found = {span.service for spans in self.traces.values() for span in spans}
        return sorted(name.lower() for name in found if name)

    def span_names(self, service: str) -> list[str]:
        found = {
            span.name.lower()
            for spans in self.traces.values()
            for span in spans
            if span.service.lower() == service.lower() and span.name
        }
        return sorted(found)

    def trace(self, trace_id: str) -> list[Span]:
        return sorted(self.traces.get(key_of(trace_id), []), key=lambda span: span.timestamp)

    def find(
        self, *, service: str = "", name: str = "", limit: int = 10, since: int = 0
    ) -> list[list[Span]]:
        """Returns the latest traces with a span of this service and name, from `since` (µs) on."""
        found = []
        for key in self.traces:
            spans = self.trace(key)
            chosen = [
                span
                for span in spans
                if (not service or span.service.lower() == service.lower())
                and (not name or span.name.lower() == name.lower())
            ]
            if chosen and spans[-1].timestamp >= since:
                found.append(spans)
        found.sort(key=start_of, reverse=True)
        return found[:limit]


def start_of(spans: Sequence[Span]) -> int:
    """Returns when a trace began (µs); 0 when no span says."""
    return min((span.timestamp for span in spans if span.timestamp), default=0)
