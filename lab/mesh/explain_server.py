"""The part of an explanation that the other side decides: mutual TLS and policies."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from lab.mesh import (
    authorization_decision,
    clusters,
    endpoints,
    listeners,
    peer_authentication,
    request_authentication,
    routes,
    tls,
)
from lab.mesh.model import Pod, ServicePort, Snapshot
from lab.mesh.registry import Endpoint, Host
from lab.mesh.route_match import Request
from lab.mesh.view import View, view

Said = tuple[str, str, str]
"""What, what it says, and where it is written."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the policies of a proxy say of a request."""

    allowed: bool
    place: str
    steps: tuple[Said, ...]


def gateway_policies(snapshot: Snapshot, pod: Pod, port: int, request: Request) -> Verdict:
    """The policies a gateway itself enforces, on a caller from outside the mesh."""
    return _verdict(snapshot, pod, port, request, None, tcp=False)


def steps(
    seen: View, host: Host, port: ServicePort, subset: str, request: Request
) -> Iterator[Said]:
    """What the pods behind a destination demand and decide; alike pods are told once."""
    told: set[tuple[Said, ...]] = set()
    for endpoint in endpoints.members(seen, host, port, subset):
        said = tuple(_pod_steps(seen, host, port, subset, request, endpoint))
        if said not in told:
            told.add(said)
            yield from said


def _pod_steps(
    seen: View,
    host: Host,
    port: ServicePort,
    subset: str,
    request: Request,
    endpoint: Endpoint,
) -> Iterator[Said]:
    secure = endpoints.speaks_mtls(seen, host, port, subset, endpoint)
    pod = endpoint.pod
    if pod is None or pod.proxy == "none":
        if host.service is not None:
            yield "transport", "plain text: the pod has no proxy", ""
        return
    policy = peer_authentication.deciding_policy(seen.snapshot, pod, endpoint.port)
    place = policy.source.at("spec", "mtls") if policy else ""
    mode = listeners.inbound_mode(view(seen.snapshot, pod), endpoint.port)
    yield (
        "transport",
        f"{'mutual TLS' if secure else 'plain text'}; the pod's mode is {mode}",
        place,
    )
    if mode == "STRICT" and not secure:
        yield "answer", "503: the pod closes plain text connections", place
        return
    peer = None
    if secure:
        own = seen.pod
        peer = tls.spiffe_id(seen.snapshot.trust_domain, own.namespace, own.service_account)
    owner = clusters.inbound_ports(seen.snapshot, pod).get(endpoint.port)
    tcp = owner is not None and owner[1].protocol not in routes.HTTP_PROTOCOLS
    verdict = _verdict(seen.snapshot, pod, endpoint.port, request, peer, tcp=tcp, caller=seen.pod)
    yield from verdict.steps
    if not verdict.allowed:
        closed = "the connection is closed" if tcp else "403 RBAC: access denied"
        yield "answer", closed, verdict.place


def _verdict(
    snapshot: Snapshot,
    pod: Pod,
    port: int,
    request: Request,
    peer: str | None,
    *,
    tcp: bool,
    caller: Pod | None = None,
) -> Verdict:
    said: list[Said] = []
    if not tcp:
        for policy in request_authentication.applicable(snapshot, pod):
            says = (
                f"{policy.namespace}/{policy.name}: a token, if there is one, must be valid (401)"
            )
            said.append(("authentication", says, policy.source.at("spec")))
    decision = authorization_decision.decide(
        snapshot,
        pod,
        authorization_decision.Request(
            port=port,
            method=request.method,
            path=request.path,
            authority=request.authority,
            headers=request.headers,
            peer=peer,
            source_ip=caller.address if caller else "",
            remote_ip=caller.address if caller else "",
            destination_ip=pod.address,
            claims=request.claims,
        ),
        tcp=tcp,
    )
    place = decision.place or ""
    verb = "allowed" if decision.allowed else "denied"
    said.append(("authorization", f"{verb}: {decision.reason}", place))
    said.extend(("authorization", remark, "") for remark in decision.remarks)
    return Verdict(decision.allowed, place, tuple(said))
