"""Envoy's response flags, and the other reasons why a proxy answered by itself, in words.

`python -m scripts.response_flags` prints docs/response-flags.md, which is made of them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from lab.names import BLACK_HOLE
from lab.observe.requests import Request


@dataclass(frozen=True, slots=True)
class Reason:
    """The meaning of a flag, or of a response code detail."""

    says: str
    """One line of a log; `{caller}` and `{server}` are the proxies."""
    look: str
    """The resource or the command that tells more."""


FLAGS: dict[str, Reason] = {
    "FI": Reason("fault injected: an abort by {caller}", "`fault.abort` of the VirtualService"),
    "DI": Reason("fault injected: a delay by {caller}", "`fault.delay` of the VirtualService"),
    "UO": Reason(
        "overflow: a limit of the connection pool was reached, so {caller} did not ask",
        "`connectionPool` of the DestinationRule",
    ),
    "UH": Reason(
        "no healthy upstream: no pod is ready, or all of them are ejected",
        "`kubectl get pods`, `outlierDetection` of the DestinationRule, labels of the subset",
    ),
    "UF": Reason(
        "connection failure: the pod could not be connected to, or TLS with it failed",
        "PeerAuthentication and `tls` of the DestinationRule, the Service's port",
    ),
    "UC": Reason(
        "the pod closed the connection before it answered",
        "`kubectl logs` of the pod; a PeerAuthentication that asks for TLS where the "
        "DestinationRule sends none: `guestbook analyze`",
    ),
    "UR": Reason("the pod reset the stream before it answered", "`kubectl logs` of the pod"),
    "UT": Reason(
        "timeout: the answer took longer than the route allows", "`timeout` of the VirtualService"
    ),
    "URX": Reason(
        "retries exhausted: the last try failed too (of TCP: connect attempts)",
        "`retries` of the VirtualService, `maxRetries` of the DestinationRule",
    ),
    "UPE": Reason("protocol error: the pod's answer is no HTTP", "the name of the Service's port"),
    "NR": Reason(
        "no route: nothing in the configuration of the proxy fits",
        "hosts and matches of the VirtualService; of a server, PeerAuthentication",
    ),
    "NC": Reason(
        "no cluster: the route leads to a host or a subset that is not there",
        "`destination` of the VirtualService, `subsets` of the DestinationRule",
    ),
    "RL": Reason("rate limit: the share of this caller is used up", "the EnvoyFilter"),
    "RLSE": Reason("the rate limit service failed, and the request was refused", "the service"),
    "UAEX": Reason("the external authorization refused the request", "the AuthorizationPolicy"),
    "DC": Reason("the client closed the connection before the answer was complete", "the client"),
    "LR": Reason("the proxy reset the connection to the pod", "the log of the proxy"),
    "LH": Reason("a health check of the proxy itself failed", "`kubectl describe pod`"),
    "DPE": Reason("protocol error: the client's request is no HTTP", "the client"),
    "SI": Reason("idle timeout of the stream", "`idleTimeout` of the DestinationRule"),
    "IH": Reason("a header of Envoy's own has a value that it does not take", "the client"),
    "DT": Reason("the longest time of a connection or a request is over", "the DestinationRule"),
    "UMSDR": Reason("the longest time of a stream is over", "the DestinationRule"),
    "OM": Reason("the overload manager refused the request", "the memory of the proxy"),
    "DF": Reason("the name of the host could not be resolved", "the host of the ServiceEntry"),
    "NFCF": Reason("a filter's configuration is missing", "the EnvoyFilter"),
}
"""Response flags by the letters in an access log."""

DETAILS: dict[str, tuple[str, Reason]] = {
    "rbac_access_denied": (
        "RBAC",
        Reason("access denied by {server}: an AuthorizationPolicy", "the AuthorizationPolicy"),
    ),
    "jwt_authn_access_denied": (
        "JWT",
        Reason("token refused by {server}", "the RequestAuthentication, `guestbook token`"),
    ),
    "local_rate_limited": (
        "RL",
        Reason("rate limit: the share of this proxy is used up", "the EnvoyFilter"),
    ),
    "request_rate_limited": (
        "RL",
        Reason(
            "rate limit: the rate limit service says that the share is used up",
            "the EnvoyFilter, and the configuration of the rate limit service",
        ),
    ),
    "direct_response": (
        "answered",
        Reason(
            "answered by {caller} itself",
            "`redirect` or `directResponse` of the VirtualService",
        ),
    ),
}
"""Beginnings of response code details (or of why a connection ended), each with a short name."""

UNKNOWN_HOST = Reason(
    "unknown host: the mesh does not know it, and REGISTRY_ONLY cuts it off",
    "`outboundTrafficPolicy` of the Sidecar or the mesh, a ServiceEntry for the host",
)
"""The reason of the virtual host `block_all`, and of the flag UH with BlackHoleCluster."""


def names(request: Request) -> tuple[str, ...]:
    """Returns the flags of a request and the short names of its details."""
    return tuple(dict.fromkeys((*request.flags, *(name for name, _ in _details(request)))))


def words(request: Request) -> list[str]:
    """Returns the meaning of each flag and detail of a request: `FI: fault injected: …`."""
    found = {flag: FLAGS.get(flag, _OTHER) for flag in request.flags}
    # The detail says it more exactly than the flag.
    found |= dict(_details(request))
    proxies = {
        "caller": f"the proxy of {_name(request.source.service)}",
        "server": f"the proxy of {_name(request.destination.service)}",
    }
    if request.reporter == "destination":
        proxies["caller"] = proxies["server"]
    told = {name: reason.says.format_map(proxies) for name, reason in found.items()}
    return [says if says.startswith(name) else f"{name}: {says}" for name, says in told.items()]


_OTHER = Reason("see Envoy's documentation of response flags", "")


def _name(service: str) -> str:
    return service if service != "unknown" else "the other side"


def _details(request: Request) -> Iterator[tuple[str, Reason]]:
    if request.virtual_host == "block_all":
        yield "block_all", UNKNOWN_HOST
        return
    if request.cluster == BLACK_HOLE:
        yield "UH", UNKNOWN_HOST
    for detail in (request.details, request.termination):
        for start, found in DETAILS.items():
            if detail.startswith(start):
                yield found
