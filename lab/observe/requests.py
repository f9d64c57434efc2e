"""The stream of requests and connections that the lab's Envoys report."""

from __future__ import annotations

import asyncio
import json
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from itertools import islice
from typing import Any, Literal

from lab import names
from lab.kinds.telemetry.becomes import canonical_name, canonical_revision, workload_name
from lab.model import Pod

Json = dict[str, Any]

Event = Literal["opened", "open", "closed", "refused"]

WINDOW = 30.0
"""Seconds for which every request is kept, up to MOST of them."""

FEW = 5_000
"""The number of requests that is kept however old they are."""

MOST = 60_000
"""The number of requests that is never exceeded."""

UNKNOWN = "unknown"
"""The value of Istio's labels for what is not known."""


@dataclass(frozen=True, slots=True)
class Workload:
    """One end of a request; every field is `unknown` for one outside the lab."""

    namespace: str = UNKNOWN
    name: str = UNKNOWN
    """The Deployment or StatefulSet, or the pod of none."""
    app: str = UNKNOWN
    """The label `app`."""
    version: str = UNKNOWN
    """The label `version`."""
    service: str = UNKNOWN
    """Istio's canonical service."""
    revision: str = UNKNOWN
    """Istio's canonical revision."""
    pod: str = UNKNOWN
    account: str = UNKNOWN
    meshed: bool = False
    """Whether it has a proxy."""
    gateway: bool = False


NOBODY = Workload()


def workload(pod: Pod) -> Workload:
    """Returns a pod as an end of requests."""
    labels = pod.labels
    return Workload(
        namespace=pod.namespace,
        name=workload_name(pod),
        app=labels.get("app", UNKNOWN),
        version=labels.get("version", UNKNOWN),
        service=canonical_name(pod),
        revision=canonical_revision(pod),
        pod=pod.name,
        account=pod.service_account,
        meshed=pod.proxy != "none",
        gateway=pod.proxy == "gateway",
    )


# Not frozen: one is made for each report, and to freeze it takes longer than the rest.
@dataclass(slots=True)
class Request:
    """One request, or one report of a TCP connection, as one proxy has seen it."""

    time: float
    """The start, in seconds since 1970."""
    reporter: Literal["source", "destination"]
    """The side of the proxy: that of the caller (also a gateway), or that of the server."""
    kind: Literal["http", "tcp"]
    event: Event
    """The state of a connection at this report of it; of a request always `closed`. One that is
    `refused` was taken by no filter chain, or TLS failed."""
    source: Workload
    destination: Workload
    """The pod that was chosen; unknown when none was."""
    service: str
    """The host that was called, `message-service.default.svc.cluster.local`."""
    service_namespace: str
    port: int
    """The Service's port; 0 where the report does not tell."""
    protocol: str
    """`HTTP/1.1`, `HTTP/2`, `gRPC` or `TCP`."""
    method: str
    path: str
    authority: str
    request_id: str
    """Of a TCP connection the address from which the caller's proxy connects, `IP:PORT`."""
    code: int
    """The status; 0 when there was no answer, and for a connection."""
    grpc_status: str
    flags: tuple[str, ...]
    """Envoy's response flags; `lab.observe.flags` has their meaning."""
    details: str
    """Envoy's response code details: `via_upstream`, `rbac_access_denied_matched_policy[…]`."""
    termination: str
    """The reason why the proxy ended the connection."""
    failure: str
    """The reason why the connection, or its TLS, failed."""
    duration: float
    """Milliseconds to the complete answer, injected delays and retries included."""
    received: int
    """Bytes of the request's body; of a connection, those since its last report."""
    sent: int
    """Bytes of the answer's body; of a connection, those since its last report."""
    attempts: int
    """Tries with a pod, the first included."""
    cluster: str
    """Envoy's cluster, `outbound|80|v1|message-service.default.svc.cluster.local`."""
    upstream: str
    """The address that was connected to, `IP:PORT`."""
    address: str
    """The address that the client connected to, `IP:PORT`."""
    virtual_host: str
    lines: Mapping[str, str]
    """`file:line` of the VirtualService's rule, under the empty name, and of its fields."""
    source_principal: str
    """The caller's identity, `spiffe://cluster.local/ns/default/sa/ui-sa`; empty without mTLS."""
    destination_principal: str
    mutual_tls: bool
    connection: int
    """The number of the client's connection to this proxy."""
    place: str = ""
    """`file:line` of what decided about it, as the configuration was then; empty where no proxy
    decided."""
    entering: bool = False
    """Whether a gateway took it from outside the mesh."""
    early: bool = False
    """Whether the server refused it before its pod was ready for the first time."""
    conflict: str = ""
    """The reason why no pod was reached, in words: a conflict of mutual TLS, or no endpoint."""

    @property
    def proxy(self) -> Workload:
        """The end whose proxy reports."""
        return self.source if self.reporter == "source" else self.destination


def as_json(request: Request) -> Json:
    """Returns a request as the lab's API gives it."""
    return asdict(request)


def from_json(data: Mapping[str, Any]) -> Request:
    """Returns the request of `as_json`."""
    ends = {side: Workload(**data[side]) for side in ("source", "destination")}
    return Request(**{**data, **ends, "flags": tuple(data["flags"])})


_EVENTS: Mapping[str, tuple[Literal["http", "tcp"], Event]] = {
    "DownstreamEnd": ("http", "closed"),
    "TcpUpstreamConnected": ("tcp", "opened"),
    "TcpPeriodic": ("tcp", "open"),
    "TcpConnectionEnd": ("tcp", "closed"),
    "Listener": ("tcp", "refused"),
}
"""Envoy's types of access log entries; those of tunnels, for one, are not counted."""

_PREFIX = f'{{"{names.REPORT}":'.encode()
_decode = json.JSONDecoder().raw_decode


class Stream:
    """The last requests, in the order in which proxies reported them."""

    def __init__(
        self,
        pods: Callable[[], Iterable[Pod]],
        count: Callable[[Request], None] | None = None,
        first_ready: Callable[[str, str], float] = lambda _namespace, _pod: 0.0,
    ) -> None:
        """`pods` returns the pods of now; `count` is called with each request.

        `first_ready` returns the time when a pod was ready for the first time.
        """
        self._pods = pods
        self._count = count
        self._first_ready = first_ready
        self.find_cause: Callable[[Request], tuple[str, str]] | None = None
        """Returns the `place` and the `conflict` of a request."""
        self._kept: deque[Request] = deque()
        self._total = 0
        self._news = asyncio.Event()
        self._waiting = 0
        self._ends: dict[str, Workload] = {}
        self._accounts: dict[str, Workload] = {}
        self._looked = 0.0
        self._bytes: dict[tuple[str, str, int], tuple[int, int]] = {}

    def take(self, pod: Pod, line: bytes) -> bool:
        """Takes a line of a proxy's output; returns whether it was a report."""
        if not line.startswith(_PREFIX):
            return False
        try:
            report, _ = _decode(line.decode())
            request = self._request(pod, report)
            if request is not None and "UF" in request.flags:
                server = request.destination
                request.early = request.time < self._first_ready(server.namespace, server.pod)
            if request is not None and self.find_cause is not None:
                request.place, request.conflict = self.find_cause(request)
        except (ValueError, LookupError, TypeError, AttributeError):
            return False  # A line cut off by the end of its proxy, or that looks like a report.
        if request is not None:
            self._keep(request)
        return True

    def last(self, seconds: float) -> Iterator[Request]:
        """Yields the requests that ended, or were reported on, in the last seconds."""
        since = time.time() - seconds
        return (one for one in list(self._kept) if reported(one) >= since)

    async def follow(self, seconds: float) -> AsyncIterator[list[Request]]:
        """Yields the requests of the last seconds, then those that come, as they come.

        A reader that is too slow misses what is no longer kept.
        """
        seen = self._total
        yield list(self.last(seconds))
        while True:
            self._waiting += 1
            while seen == self._total:
                await self._news.wait()
            self._waiting -= 1
            missed = min(self._total - seen, len(self._kept))
            seen = self._total
            yield list(islice(self._kept, len(self._kept) - missed, None))

    def _keep(self, request: Request) -> None:
        kept = self._kept
        kept.append(request)
        self._total += 1
        if len(kept) > FEW and (len(kept) > MOST or reported(kept[0]) < reported(request) - WINDOW):
            kept.popleft()
        if self._count is not None:
            self._count(request)
        if self._waiting:
            self._news.set()
            self._news = asyncio.Event()

    def _request(self, pod: Pod, report: Json) -> Request | None:
        found = report.get
        kind, event = _EVENTS.get(found("type") or "", (None, None))
        if kind is None or event is None:
            return None
        here = self._end(pod.address)
        outbound = report[names.REPORT] == "source"
        cluster = found("cluster") or ""
        upstream = found("upstream") or ""
        own, other = found("source_principal") or "", found("destination_principal") or ""
        if outbound:
            ends = here, self._end(_host(upstream)) if upstream else NOBODY
        else:
            ends = self._end(_host(found("client") or ""), own), here
            if other and not own and kind == "tcp":  # The handshake is not over yet.
                own = f"{other.partition('/ns/')[0]}/ns/{ends[0].namespace}/sa/{ends[0].account}"
        received, sent = found("received") or 0, found("sent") or 0
        if kind == "tcp":
            received, sent = self._since_last(pod, report, event, received, sent)
        host, namespace = _service(report, cluster, upstream)
        microseconds = found("microseconds")
        flags = found("flags") or "-"
        status = found("grpc_status")
        grpc = (found("content_type") or "").startswith("application/grpc")
        return Request(
            time=float(report["time"]),
            reporter=report[names.REPORT],
            kind=kind,
            event=event,
            source=ends[0],
            destination=ends[1],
            service=host,
            service_namespace=namespace,
            port=_port(cluster if outbound else "", found("virtual_host") or ""),
            protocol="gRPC" if grpc else found("protocol") or ("TCP" if kind == "tcp" else "HTTP"),
            method=found("method") or "",
            path=found("path") or "",
            authority=found("authority") or "",
            request_id=found("link" if kind == "tcp" else "request_id") or "",
            code=found("code") or 0,
            grpc_status=str(status) if grpc and status is not None else "",
            flags=() if flags == "-" else tuple(flags.split(",")),
            details=found("details") or "",
            termination=found("termination") or "",
            failure=found("upstream_failure") or found("downstream_failure") or "",
            duration=microseconds / 1000 if microseconds else float(found("milliseconds") or 0),
            received=received,
            sent=sent,
            attempts=found("attempts") or 0,
            cluster=cluster,
            upstream=upstream,
            address=found("address") or "",
            virtual_host=found("virtual_host") or "",
            lines=found("rule") or _NO_LINES,
            source_principal=own,
            destination_principal=other,
            mutual_tls=bool(own and other),
            connection=found("connection") or 0,
            entering=here.gateway and self._end(_host(found("client") or "")) == NOBODY,
        )

    def _since_last(
        self, pod: Pod, report: Json, event: str, received: int, sent: int
    ) -> tuple[int, int]:
        """Returns the bytes of a connection since its last report."""
        key = (pod.namespace, pod.name, report["connection"] or 0)
        before = (0, 0) if event == "opened" else self._bytes.pop(key, (0, 0))
        if event in ("opened", "open"):
            self._bytes[key] = received, sent
            if len(self._bytes) > MOST:
                del self._bytes[next(iter(self._bytes))]
        return max(0, received - before[0]), max(0, sent - before[1])

    def _end(self, address: str, principal: str = "") -> Workload:
        """Returns the workload at an address, else the one whose identity it has."""
        now = time.monotonic()
        # Addresses are given again, so that a pod is not known for ever.
        if now > self._looked + (1 if address in self._ends else 0.1):
            self._looked = now
            for pod in self._pods():
                known = self._ends.get(pod.address, NOBODY)
                if (known.namespace, known.pod) != (pod.namespace, pod.name):
                    end = workload(pod)
                    self._ends[pod.address] = end
                    self._accounts[f"/ns/{pod.namespace}/sa/{pod.service_account}"] = end
        if address in self._ends:
            return self._ends[address]
        return self._accounts.get("/ns/" + principal.partition("/ns/")[2], NOBODY)


_NO_LINES: Mapping[str, str] = {}


def reported(request: Request) -> float:
    """Returns the time of a report: when the request ended, in seconds since 1970."""
    return request.time + request.duration / 1000


def _host(address: str) -> str:
    return address.rpartition(":")[0]


def _port(cluster: str, virtual_host: str) -> int:
    """Returns the port of a Service, by a cluster or a virtual host of its name."""
    parts = cluster.split("|")
    text = parts[1] if len(parts) == 4 else virtual_host.replace("|", ":").rpartition(":")[2]
    return int(text) if text.isdecimal() else 0


def _service(report: Json, cluster: str, upstream: str) -> tuple[str, str]:
    """Returns the host that was called, and its namespace."""
    if services := report.get("services"):
        return services[0]["host"], services[0]["namespace"]
    parts = cluster.split("|")
    host, _, port = (report["virtual_host"] or "").rpartition(":")
    if len(parts) == 4 and parts[3]:
        host = parts[3]
    elif not port.isdecimal() or host.startswith(("*", "inbound|")):
        authority = report["authority"]
        host = authority.partition(":")[0] if authority else upstream or cluster
    name = host.split(".")
    return host or UNKNOWN, name[1] if len(name) > 2 and name[2] == "svc" else UNKNOWN
