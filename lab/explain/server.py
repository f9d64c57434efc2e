"""The part of an explanation that the other side decides: mutual TLS, tokens and policies."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, Literal

from lab.envoy import clusters, endpoints, routes, tls
from lab.explain import decision as authorization_decision
from lab.explain.interpret import Request
from lab.explain.steps import Step
from lab.kinds import selection
from lab.kinds.peer_authentication import becomes as peer_authentication
from lab.kinds.request_authentication import becomes as request_authentication
from lab.kinds.services import Endpoint, Host
from lab.kinds.visible import View, view
from lab.model import Pod, ServicePort, Snapshot

Transport = Literal["mutual TLS", "TLS", "plain text"]
"""What a client speaks; "TLS" is the kind with certificates of no mesh."""

Refusal = tuple[int, str, str]
"""A status, its text, and where the reason is written."""

OUTSIDE = "127.0.0.1"
"""The address of a client without a proxy: it is a process of the lab's machine."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the filters of a proxy say of a request."""

    status: int
    """200 when it gets in, else what it is answered."""
    answer: str
    place: str
    steps: tuple[Step, ...]
    request: Request
    """The request as the filters leave it: with the claims of its token, if it was accepted."""
    forwarded: Request
    """The request as it goes on: a token that was checked is taken out unless told otherwise."""


@dataclass(frozen=True, slots=True)
class Caller:
    """Who connects to a pod: its identity (None in plain text) and its addresses."""

    peer: str | None
    address: str
    remote: str
    """Of the client for whom it connects, as x-forwarded-for says."""


def at_gateway(snapshot: Snapshot, pod: Pod, port: int, request: Request) -> Verdict:
    """What a gateway itself says of a request from outside the mesh."""
    return _verdict(snapshot, pod, port, request, Caller(None, OUTSIDE, OUTSIDE), tcp=False)


def steps(
    seen: View, host: Host, port: ServicePort, subset: str, request: Request
) -> Iterator[Step]:
    """What the pods behind a destination demand and decide; alike pods are told once."""
    told: set[tuple[Step, ...]] = set()
    for endpoint in endpoints.members(seen, host, port, subset):
        if endpoint.pod is None and host.service is None:
            continue
        spoken = _transport(seen, host, port, subset, endpoint)
        said = tuple(at_pod(seen.snapshot, seen.pod, endpoint, request, spoken))
        if said not in told:
            told.add(said)
            yield from said


def _transport(
    seen: View, host: Host, port: ServicePort, subset: str, endpoint: Endpoint
) -> Transport:
    if tls.speaks_mtls(seen, host, port, subset, endpoint):
        return "mutual TLS"
    settings = seen.policy(host.name, port.port, subset or None).tls
    return "TLS" if settings is not None and settings.mode in ("SIMPLE", "MUTUAL") else "plain text"


def at_pod(
    snapshot: Snapshot, source: Pod, endpoint: Endpoint, request: Request, spoken: Transport
) -> Iterator[Step]:
    """What one pod demands of a connection from `source`, and decides about the request."""
    pod = endpoint.pod
    if pod is None or pod.proxy == "none":
        yield Step("transport", f"{spoken} to the application itself: the pod has no proxy")
        if spoken == "mutual TLS":
            yield Step("answer", "503: without a proxy nothing there speaks mutual TLS")
        return
    policy = peer_authentication.deciding_policy(snapshot, pod, endpoint.port)
    place = policy.source.at("spec", "mtls") if policy else ""
    mode = tls.inbound_mode(view(snapshot, pod), endpoint.port)
    owner = clusters.inbound_ports(snapshot, pod).get(endpoint.port)
    tcp = owner is not None and owner[1].protocol not in routes.HTTP_PROTOCOLS
    yield Step("transport", f"{spoken}; the pod's mode is {mode}", place)
    if not _taken(spoken, mode, tcp=tcp):
        closed = "connection reset" if tcp or source.proxy == "none" else "503"
        yield Step("answer", f"{closed}: the pod closes connections in {spoken}", place)
        return
    caller = Caller(
        peer=tls.spiffe_id(snapshot.trust_domain, source.namespace, source.service_account)
        if spoken == "mutual TLS"
        else None,
        address=OUTSIDE if source.proxy == "none" else source.address,
        remote=OUTSIDE if source.proxy != "sidecar" else source.address,
    )
    verdict = _verdict(snapshot, pod, endpoint.port, request, caller, tcp=tcp)
    yield from verdict.steps
    if verdict.status != 200:
        closed = "the connection is closed" if tcp else f"{verdict.status} {verdict.answer}"
        yield Step("answer", closed, verdict.place)


def _taken(spoken: Transport, mode: peer_authentication.Mode, *, tcp: bool) -> bool:
    """Whether some filter chain of a pod is for a kind of connection."""
    match spoken:
        case "mutual TLS":
            return mode != "DISABLE"
        case "plain text":
            return mode != "STRICT"
        case "TLS":  # The application's own, which passes through where bytes do.
            return tcp and mode == "PERMISSIVE"


def _verdict(
    snapshot: Snapshot, pod: Pod, port: int, request: Request, caller: Caller, *, tcp: bool
) -> Verdict:
    said: list[Step] = []
    forwarded = request
    if tcp:
        request = replace(request, claims=None)
    else:
        request, forwarded, refusal = _authenticated(snapshot, pod, request, said)
        if refusal is not None:
            status, answer, place = refusal
            return Verdict(status, answer, place, tuple(said), request, forwarded)
    decision = authorization_decision.decide(
        snapshot,
        pod,
        authorization_decision.Request(
            port=port,
            method=request.method,
            path=request.path,
            authority=request.authority,
            headers=request.headers,
            peer=caller.peer,
            source_ip=caller.address,
            remote_ip=caller.remote,
            destination_ip=pod.address,
            claims=request.claims,
        ),
        tcp=tcp,
    )
    place = decision.place or ""
    verb = "allowed" if decision.allowed else "denied"
    said.append(Step("authorization", f"{verb}: {decision.reason}", place))
    said.extend(Step("authorization", remark) for remark in decision.remarks)
    status, answer = (200, "") if decision.allowed else (403, "RBAC: access denied")
    return Verdict(status, answer, place, tuple(said), request, forwarded)


def _authenticated(
    snapshot: Snapshot, pod: Pod, request: Request, said: list[Step]
) -> tuple[Request, Request, Refusal | None]:
    """The request with the claims of its token, the request as it goes on, and a refusal.

    Where nobody checks tokens, nobody reads them.
    """
    policies = selection.for_pod(snapshot, request_authentication.KIND, pod)
    rules = request_authentication.rules(snapshot, pod)
    if not rules:
        return replace(request, claims=None), request, None
    place = policies[0].source.at("spec")
    says = ", ".join(f"{policy.namespace}/{policy.name}" for policy in policies)
    if request.claims is None:
        said.append(Step("authentication", f"no token, and {says} asks for none", place))
        return request, request, None
    claims = {"iss": rules[0].issuer, **request.claims}
    rule = next((rule for rule in rules if rule.issuer in ("", claims["iss"])), None)
    if rule is None:
        return request, request, (401, "Jwt issuer is not configured", place)
    if rule.audiences and not _listed(claims.get("aud")) & set(rule.audiences):
        return request, request, (403, "Audiences in Jwt are not allowed", place)
    said.append(Step("authentication", f"a token of {claims['iss']}, which {says} accepts", place))
    seen = replace(request, claims=claims)
    return seen, seen if rule.forward_original_token else replace(request, claims=None), None


def _listed(value: Any) -> set[str]:
    """The claim `aud`: one audience or several."""
    return set(value) if isinstance(value, list) else {value}
