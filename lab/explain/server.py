"""Answers of the receiving proxy: mutual TLS, tokens and policies."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

from lab import names
from lab.envoy import tls, translate
from lab.envoy.inbound_ports import inbound_ports
from lab.explain import envoy_filters, mutual_tls
from lab.explain.interpret import connection, jwt, rbac
from lab.explain.interpret.matchers import Request
from lab.explain.interpret.routing import by_name, configurations, filter_chain, manager
from lab.explain.mutual_tls import Transport
from lab.explain.steps import Step
from lab.kinds import selection
from lab.kinds.authorization_policy import becomes as authorization
from lab.kinds.envoy_filter.matching import Context
from lab.kinds.request_authentication import becomes as request_authentication
from lab.kinds.services import Endpoint
from lab.kinds.visible import Upstream, View, view
from lab.model import LOOPBACK, Json, Pod, Snapshot
from lab.resources.resource import Origin, Resource
from lab.resources.values import is_ip

_ALPN: dict[Transport, tuple[str, ...]] = {
    "mutual TLS": ("istio-http/1.1", "istio"),
    "TLS": (),
    "plain text": ("http/1.1",),
}
"""Application protocols of a connection, as a sidecar offers them or an inspector finds them."""


@dataclass(frozen=True, slots=True)
class Admission:
    """The result of a proxy's filters for a request."""

    steps: tuple[Step, ...]
    status: int
    """200 when the request passes, else the answer's."""
    answer: str
    place: str
    """The place of the policy that decides, or of each that could have allowed the request."""
    request: Request
    """The request as the filters leave it: with the claims of its token, if it was accepted."""
    forwarded: Request
    """The request as it is forwarded, perhaps without its token."""


def steps(upstream: Upstream, request: Request) -> Iterator[Step]:
    """Yields the answers of the pods behind a destination, equal ones once."""
    snapshot, source = upstream.view.snapshot, upstream.view.pod
    told: set[tuple[Step, ...]] = set()
    for endpoint in upstream.endpoints():
        if not endpoint.ready or (endpoint.pod is None and upstream.host.service is None):
            continue
        transport = mutual_tls.transport(upstream, endpoint)
        sni = tls.sent_server_name(upstream) if transport == "mutual TLS" else ""
        answers = tuple(at_pod(snapshot, source, endpoint, request, transport, sni))
        if answers not in told:
            told.add(answers)
            yield from answers


def at_pod(
    snapshot: Snapshot,
    source: Pod,
    endpoint: Endpoint,
    request: Request,
    transport: Transport,
    server_name: str = "",
) -> Iterator[Step]:
    """Yields the answers of one pod to a connection from `source` and to the request on it."""
    pod = endpoint.pod
    if pod is None or pod.proxy == "none":
        why = "the address is no pod's" if pod is None else "the pod has no proxy"
        yield Step("transport", f"{transport} to the application itself: {why}")
        if transport == "mutual TLS":
            closed = "connection closed" if request.tcp else "503"
            yield Step("answer", f"{closed}: without a proxy nothing there speaks mutual TLS")
        return
    server = view(snapshot, pod)
    mode, origin = tls.inbound_mode(server, endpoint.port)
    told = f"; the pod's mode is {mode}" if pod.proxy == "sidecar" else " to the gateway"
    yield Step("transport", f"{transport}{told}", origin.at() if pod.proxy == "sidecar" else "")
    config = translate.proxy_config(snapshot, pod)
    listener = _listener(config.listeners, pod, endpoint.port)
    chain = filter_chain(
        listener,
        port=endpoint.port,
        server_name=server_name,
        tls=transport != "plain text",
        alpn=_ALPN[transport],
    )
    tcp = manager(chain) is None if chain is not None else request.tcp
    if chain is None or not _takes(chain, transport, tcp=tcp):
        closed = "connection reset" if tcp or source.proxy == "none" else "503"
        yield Step("answer", f"{closed}: the pod closes connections in {transport}", origin.at())
        return
    spiffe_id = tls.spiffe_id(snapshot.trust_domains[0], source.namespace, source.service_account)
    peer = spiffe_id if transport == "mutual TLS" else None
    if (http := manager(chain)) is not None:
        if (answer := connection.refusal(http, request)) is not None:
            yield Step("answer", f"{answer[0]}: {answer[1]}")
            return
        request = connection.accepted(http, request)
    request = received(snapshot, request, pod, endpoint.port, peer, source)
    context: Context = "GATEWAY" if pod.proxy == "gateway" else "SIDECAR_INBOUND"
    yield from envoy_filters.of_listeners(server, context, listener)
    admitted = admission(snapshot, pod, chain, request)
    yield from admitted.steps
    if admitted.status != 200:
        closed = "the connection is closed" if tcp else f"{admitted.status} {admitted.answer}"
        yield Step("answer", closed, admitted.place)
        return
    yield from _elsewhere(server, endpoint.port)


def _elsewhere(server: View, port: int) -> Iterator[Step]:
    """Yields the place of the application, where a Sidecar names it."""
    for found in inbound_ports(server) if server.pod.proxy == "sidecar" else ():
        place = found.ingress.default_endpoint if found.ingress is not None else ""
        if found.target == port and place and server.sidecar is not None:
            yield Step("application", f"at {place}", server.sidecar.source.at("spec", "ingress"))


def received(
    snapshot: Snapshot,
    request: Request,
    pod: Pod,
    port: int,
    peer: str | None = None,
    source: Pod | None = None,
    *,
    trusted: int = 0,
) -> Request:
    """Returns a request as a pod receives it from a pod of the mesh, or from outside.

    A sidecar takes the last address of x-forwarded-for for the client's, which a gateway adds, and
    a gateway that of so many `trusted` proxies before it.
    """
    proxy = source.proxy if source is not None else "none"
    # On the loopback range the kernel picks the address of a pod without a proxy.
    own = source is not None and (proxy != "none" or snapshot.outside != LOOPBACK)
    address = source.address if source is not None and own else snapshot.outside
    client = snapshot.outside if proxy == "gateway" else address
    texts = request.headers.get("x-forwarded-for", ())
    told = [one.strip() for text in texts for one in text.split(",")]
    place = trusted if pod.proxy == "gateway" else 1
    if proxy != "gateway" and 0 < place <= len(told) and is_ip(told[-place]):
        client = told[-place]
    return replace(
        request,
        port=port,
        peer=peer,
        source_ip=address,
        remote_ip=client,
        destination_ip=pod.address,
    )


def _listener(found: list[Json], pod: Pod, port: int) -> Json:
    """The listener of a proxy for a connection to one of its ports."""
    return (
        by_name(found, names.listener(pod.address, port))
        or by_name(found, names.INBOUND_LISTENER)
        or by_name(found, names.listener(names.ANY_ADDRESS, port))
        or {"name": ""}
    )


def _takes(chain: Json, transport: Transport, *, tcp: bool) -> bool:
    """Whether a filter chain can serve a connection; TLS of an application needs a chain for it."""
    if transport == "TLS":
        return tcp and "transport_socket" not in chain
    return ("transport_socket" in chain) is (transport == "mutual TLS")


def admission(snapshot: Snapshot, pod: Pod, chain: Json, request: Request) -> Admission:
    """Returns what the filters of a chain make of a request: jwt_authn, then RBAC."""
    http = manager(chain)
    filters = chain["filters"] if http is None else http.get("http_filters", [])
    steps = list(_asked(snapshot, filters, request))
    forwarded, checked = request, False
    for config in configurations(filters, "jwt_authn.v3.JwtAuthentication"):
        checked = True
        policies = selection.for_pod(snapshot, request_authentication.KIND, pod)
        place = policies[0].source.at("spec") if policies else ""
        says = ", ".join(map(_named, policies)) or "jwt_authn"
        failure, request, forwarded = jwt.check(config, request, _unfetched(snapshot, pod))
        if failure is not None:
            return Admission(tuple(steps), *failure, place, request, forwarded)
        accepted = f"a token of {(request.claims or {}).get('iss')}, which {says} accepts"
        missing = f"no token, and {says} asks for none"
        steps.append(Step("authentication", missing if request.claims is None else accepted, place))
    if not checked:
        request = replace(request, claims=None)
    configs = configurations(filters, "rbac.v3.RBAC")
    decision = rbac.decide(configs, request)
    reason, place = _reason(snapshot, pod, decision, tcp=http is None)
    verb = "allowed" if decision.allowed else "denied"
    steps.append(Step("authorization", f"{verb}: {reason}", place))
    steps += [Step("authorization", says) for says in _remarks(snapshot, configs, request)]
    status, answer = (200, "") if decision.allowed else (403, "RBAC: access denied")
    return Admission(tuple(steps), status, answer, place, request, forwarded)


def _asked(snapshot: Snapshot, filters: list[Json], request: Request) -> Iterator[Step]:
    """Yields the servers that are asked about a request (ext_authz); the rest is if they agree."""
    notes = [
        name
        for config in configurations(filters, "rbac.v3.RBAC")
        if _notes(config)
        for name in rbac.matching(config["shadow_rules"], request)
    ]
    for config in configurations(filters, "ext_authz.v3.ExtAuthz"):
        wanted = config.get("filter_enabled_metadata", {}).get("value", {}).get("string_match", {})
        note = next((one for one in notes if one.startswith(wanted.get("prefix", ""))), None)
        if note is None:
            continue
        uri = config.get("http_service", {}).get("server_uri", {})
        target = config.get("grpc_service", {}).get("envoy_grpc", {})
        cluster = uri.get("cluster") or target.get("cluster_name")
        name, origin = policy_origin(snapshot, note)
        says = f"{cluster} is asked, says {name}; what follows is if it allows the request"
        yield Step("external authorization", says, origin.at())


def _notes(config: Json) -> bool:
    """Whether an RBAC filter only notes which rules match, for an ext_authz filter."""
    return str(config.get("shadow_rules_stat_prefix", "")).startswith("istio_ext_authz")


def _unfetched(snapshot: Snapshot, pod: Pod) -> set[str]:
    """The issuers whose keys a running lab would fetch, in a snapshot without fetched keys."""
    if snapshot.jwks is not None:
        return set()
    return {
        rule.issuer
        for rule in request_authentication.rules(snapshot, pod)
        if request_authentication.keys_source(rule) is not None
    }


def _named(policy: Resource) -> str:
    return f"{policy.namespace}/{policy.name}"


def _reason(snapshot: Snapshot, pod: Pod, decision: rbac.Decision, *, tcp: bool) -> tuple[str, str]:
    """The reason for a decision, and the places of the policies it names, in their order."""
    if decision.policy:
        name, origin = policy_origin(snapshot, decision.policy)
        return f"{'allowed' if decision.allowed else 'denied'} by {name}", origin.at()
    if decision.rules is None:
        return "no ALLOW policy applies", ""
    places: dict[str, str] = {}
    if tcp:  # A TCP filter lacks the rules about HTTP.
        for policy in authorization.applicable(snapshot, pod, "ALLOW"):
            if not authorization.dry_run(policy):
                places[_named(policy)] = policy.source.at("spec")
    for generated in decision.rules.get("policies", {}):
        name, origin = policy_origin(snapshot, generated)
        places.setdefault(name, origin.resource.source.at("spec") if origin.resource else "")
    # The maps of a patched configuration come in any order: policies first, by age.
    age = {_named(policy): n for n, policy in enumerate(snapshot.of("AuthorizationPolicy"))}
    order = sorted(places, key=lambda name: (age.get(name, len(age)), name))
    found = (places[name] for name in order)
    return f"no rule of {', '.join(order)} matches", ", ".join(filter(None, found))


def _remarks(snapshot: Snapshot, configs: Iterable[Json], request: Request) -> Iterator[str]:
    """The results of dry runs and audits, which decide nothing."""
    keys = ("rules", "shadow_rules")
    found = [
        (config[key], key)
        for config in configs
        for key in keys
        if key in config and not _notes(config)
    ]
    found.sort(key=lambda item: rbac.action(item[0]) == "LOG")
    for rules, key in found:
        action = rbac.action(rules).replace("LOG", "AUDIT")
        dry = "dry run, " if key == "shadow_rules" else ""
        if not dry and action != "AUDIT":
            continue
        matching = rbac.matching(rules, request)
        matched: dict[str, bool] = {}
        for generated in rules.get("policies", {}):
            name, _ = policy_origin(snapshot, generated)
            matched[name] = matched.get(name, False) or generated in matching
        for name, matches in matched.items():
            yield f"{name} ({dry}{action}) {'matches' if matches else 'does not match'}"


def policy_origin(snapshot: Snapshot, generated: str) -> tuple[str, Origin]:
    """The AuthorizationPolicy that an RBAC policy is named after, and the origin of its rule."""
    named = re.search(r"ns\[.*\]-policy\[.*\]-rule\[[0-9]+\]", generated)
    generated = named[0] if named else generated
    for policy in snapshot.of("AuthorizationPolicy"):
        for index in range(max(1, len(policy.spec.rules or ()))):
            if authorization.rule_name(policy, index) == generated:
                return _named(policy), Origin(policy.source, ("spec", "rules", index), policy)
    return generated, Origin()
