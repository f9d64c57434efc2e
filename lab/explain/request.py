"""The explanation of a request without sending it: the answer of `guestbook route`.

It generates the configuration of the client's proxy and reads it as Envoy would; every step names
the manifest, file and line, that it comes from.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any
from urllib.parse import urlsplit

from lab import names
from lab.envoy import gateway, outbound_listeners, routes, secrets, translate
from lab.explain import envoy_filters, route, server
from lab.explain.destination import ANY_ADDRESS, target
from lab.explain.interpret import connection, routing
from lab.explain.interpret.matchers import NoAnswerError, Request
from lab.explain.interpret.routing import by_name, filter_chain, manager
from lab.explain.mutual_tls import Transport
from lab.explain.steps import Explanation, Step, Target
from lab.kinds import services
from lab.kinds.envoy_filter.matching import Context
from lab.kinds.gateway import becomes as gateway_kind
from lab.kinds.gateway.becomes import BoundServer
from lab.kinds.services import Endpoint
from lab.kinds.visible import View, view
from lab.model import Json, Pod, ProxyConfig, Snapshot
from lab.resources.resource import Origin, dotted
from lab.xds import route_name


def explain(
    snapshot: Snapshot,
    pod: Pod,
    method: str,
    url: str,
    headers: Iterable[tuple[str, str]] = (),
    claims: Mapping[str, Any] | None = None,
) -> Explanation:
    """Returns the explanation of a request that a pod's application sends.

    A gateway's pod receives it from outside the mesh. `url` is http://, https:// or tcp://.
    `claims` stand for a token that is right but for its issuer and audience.
    Raises NoAnswerError.
    """
    parts = urlsplit(url)
    try:
        port = parts.port
    except ValueError as error:
        raise NoAnswerError(f"{url}: {error}") from None
    if parts.scheme not in ("http", "https", "tcp") or not parts.hostname:
        raise NoAnswerError(
            f"{url} is no URL of the form http://HOST[:PORT]/PATH, https://HOST[:PORT]/PATH "
            "or tcp://HOST:PORT"
        )
    given: dict[str, tuple[str, ...]] = {}
    for name, value in headers:
        given[name.lower()] = (*given.get(name.lower(), ()), value)
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    host = parts.hostname if port in (None, 80, 443) else f"{parts.hostname}:{port}"
    client = view(snapshot, pod)
    request = Request(
        method=method.upper(),
        authority=given.pop("host", (host,))[0],
        path=path,
        headers=given,
        scheme="https" if parts.scheme == "https" else "http",
        claims=claims,
    )
    config = translate.proxy_config(snapshot, pod)
    number = port or _PORTS.get(parts.scheme)
    if pod.proxy == "gateway":
        return _at_gateway(client, config, request, number or 80)
    if number is None:
        raise NoAnswerError("a TCP destination needs a port: tcp://HOST:PORT")
    if pod.proxy == "none":
        return _without_proxy(client, request, (parts.scheme, parts.hostname, number))
    return _at_sidecar(client, config, request, (parts.scheme, parts.hostname, number))


_PORTS = {"http": 80, "https": 443}


def _at_sidecar(
    view: View, config: ProxyConfig, request: Request, url: tuple[str, str, int]
) -> Explanation:
    """Explains a connection of a pod's application, and a request on it; `url` is its parts."""
    scheme, name, port = url
    found = Explanation()
    host = next(
        (one for one in view.hosts.values() if name in routes.domains(view, one, port)), None
    )
    address = config.addresses.get(host.name, ("",))[0] if host is not None else name
    listener = _outbound_listener(config, address, port)
    own = host is not None and listener["name"] == names.listener(address, port)
    found.add("listener", listener["name"], host.source.at() if host is not None and own else "")
    found.steps += envoy_filters.of_listeners(view, "SIDECAR_OUTBOUND", listener)
    secure = scheme == "https"
    chain = filter_chain(
        listener,
        port=port,
        address=address,
        server_name=name if secure else "",
        tls=secure,
        alpn=("http/1.1",) if scheme == "http" else (),
    )
    if chain is None:
        return found.answer("connection closed: no filter chain fits")
    if (http := manager(chain)) is not None:
        if (answer := connection.refusal(http, request)) is not None:
            return found.answer(answer[1], status=answer[0])
        request = connection.accepted(http, request)
        hosts = {one.name: one for one in routes.sidecar_hosts(view, port)}
        return _routed(view, config, (request, request), route_name(http), hosts, http, found)
    if secure:
        found.add("server name", name)
        request = replace(request, method="CONNECT")
    elif scheme == "tcp":
        request = replace(request, method="")
    rule = outbound_listeners.origin(view, listener, chain)
    return _forwarded(view, config, request, chain, rule, found)


def _forwarded(
    view: View, config: ProxyConfig, request: Request, chain: Json, rule: Origin, found: Explanation
) -> Explanation:
    """Adds the steps of a filter chain that forwards bytes, by a VirtualService's rule if any."""
    proxy = chain["filters"][-1]["typed_config"]
    if rule.resource is not None:
        found.rule = rule
        found.add("route", _route_text({}, rule), rule)
    if proxy.get("cluster") == names.BLACK_HOLE:
        return found.answer(
            "connection reset: unknown host and REGISTRY_ONLY", view.outbound_origin
        )
    targets, _ = route.clusters(proxy)
    found.targets = [target(view, config, request, *cluster) for cluster in targets]
    return found.settle()


def _outbound_listener(config: ProxyConfig, address: str, port: int) -> Json:
    """Returns the listener of an original destination: its own, its port's, or the catch-all."""
    for name in (names.listener(address, port), names.listener(names.ANY_ADDRESS, port)):
        if (listener := by_name(config.listeners, name)) is not None:
            return listener
    return by_name(config.listeners, names.OUTBOUND_LISTENER) or {}


def _published(pod: Pod, port: int) -> int | None:
    """The container port behind a port at which the lab publishes a gateway on its machine."""
    for container, places in pod.published.items():
        if port in (number for _, number in places):
            return container
    return None


def _at_gateway(view: View, config: ProxyConfig, request: Request, port: int) -> Explanation:
    found = Explanation()
    target_port = _published(view.pod, port) or gateway_kind.target_port(
        view.snapshot, view.pod, port
    )
    servers = gateway_kind.servers(view.snapshot, view.pod)
    bound = [item for item in servers if item.target == target_port]
    name = names.listener(names.ANY_ADDRESS, target_port or port)
    listener = by_name(config.listeners, name)
    if not bound or listener is None:
        return found.answer(f"connection refused: no Gateway opens port {port} on {view.pod.name}")
    found.add("listener", f"{listener['name']} (port {port})", bound[0].origin)
    tls = request.scheme == "https"
    usable = by_name(secrets.listeners(config), listener["name"]) or {}
    server_name = request.authority.split(":")[0] if tls else ""
    chain = filter_chain(usable, server_name=server_name, tls=tls)
    if chain is None or (not tls and "transport_socket" in chain):
        return found.answer("connection closed: no server has this host name")
    http = manager(chain)
    if http is None:
        return _bytes_at_gateway(view, config, request, chain, bound, found)
    if (answer := connection.refusal(http, request)) is not None:
        return found.answer(answer[1], status=answer[0])
    request = connection.accepted(http, request)
    name = route_name(http)
    own = [item for item in bound if item.route_name == name]
    hosts = {host.name: host for host in gateway.virtual_hosts(view, own)}
    trusted = view.mesh.default_config.gateway_topology.num_trusted_proxies
    at = target_port or port
    received = server.received(view.snapshot, request, view.pod, at, trusted=trusted)
    admitted = server.admission(view.snapshot, view.pod, chain, received)
    found.steps += admitted.steps
    if admitted.status != 200:
        return found.answer(admitted.answer, admitted.place, status=admitted.status)
    found.steps += envoy_filters.of_listeners(view, "GATEWAY", listener)
    requests = (admitted.request, admitted.forwarded)
    return _routed(view, config, requests, name, hosts, http, found)


def _bytes_at_gateway(
    view: View,
    config: ProxyConfig,
    request: Request,
    chain: Json,
    bound: list[BoundServer],
    found: Explanation,
) -> Explanation:
    """Adds the steps of a gateway's server that speaks no HTTP."""
    tunnel = replace(request, method="CONNECT" if request.scheme == "https" else "")
    received = server.received(view.snapshot, tunnel, view.pod, bound[0].target)
    admitted = server.admission(view.snapshot, view.pod, chain, received)
    found.steps += admitted.steps
    if admitted.status != 200:
        return found.answer("the connection is closed", admitted.place)
    match = chain.get("filter_chain_match")
    rules = (
        rule.origin
        for rule, made in gateway.filter_chains(view, bound)
        if rule is not None and made.get("filter_chain_match") == match
    )
    return _forwarded(view, config, tunnel, chain, next(rules, Origin()), found)


def _routed(
    view: View,
    config: ProxyConfig,
    requests: tuple[Request, Request],
    name: str,
    hosts: Mapping[str, routes.VirtualHost],
    http: Json,
    found: Explanation,
) -> Explanation:
    """Adds the steps of a proxy's routes, for a request as received and as forwarded."""
    request, forwarded = requests
    configuration = by_name(config.routes, name)
    host = routing.virtual_host(configuration, request.authority) if configuration else None
    if host is None:
        return found.answer("no virtual host fits", status=404)
    found.virtual_host = host["name"]
    context: Context = "GATEWAY" if view.pod.proxy == "gateway" else "SIDECAR_OUTBOUND"
    known = view.hosts.get(host["name"].rpartition(":")[0])
    found.add("virtual host", host["name"], known.source.at() if known else "")
    found.steps += envoy_filters.of_routes(view, context, host)
    if host.get("require_tls") == "ALL" and request.scheme == "http":
        return found.answer(f"to https://{request.authority}{request.path}", status=301)
    index = routing.route(host, request)
    if index is None:
        return found.answer("no route fits the request (flag NR)", status=404)
    chosen = host["routes"][index]
    origin = found.rule = _origin(hosts.get(host["name"]), chosen)
    found.add("route", _route_text(chosen, origin), origin)
    found.steps += route.rate_limits(http.get("http_filters", ()), host, chosen, request)
    if not route.add(chosen, origin, request, found):
        return found
    for name, share, sent, steps in route.forwarded(chosen, forwarded):
        reached = target(view, config, sent, name, share)
        found.targets.append(replace(reached, steps=(*steps, *reached.steps)))
    _, mirrors = route.clusters(chosen.get("route", {}))
    copied = route.rewritten(chosen, forwarded)
    found.mirrors = [target(view, config, copied, *cluster) for cluster in mirrors]
    return found.settle()


def _origin(host: routes.VirtualHost | None, config: Json) -> Origin:
    """The origin of a virtual host's route, found by its match; of equal ones the first's."""
    made = host.routes if host is not None else ()
    return next((one.origin for one in made if one.config["match"] == config["match"]), Origin())


def _route_text(config: Json, origin: Origin) -> str:
    resource = origin.resource
    name = f" “{config['name']}”" if config.get("name") else ""
    if resource is None or resource.kind != "VirtualService":
        return f"{config.get('name') or 'unnamed'}, not from a VirtualService"
    return f"VirtualService {resource.namespace}/{resource.name}, {dotted(origin.path[1:])}{name}"


def _without_proxy(view: View, request: Request, url: tuple[str, str, int]) -> Explanation:
    """Explains a request of a client outside the mesh: it connects to pods, and they decide."""
    scheme, name, port = url
    found = Explanation()
    found.add("proxy", f"{view.pod.name} has none: it connects to the pods by itself")
    ends = _addressed(view, name, port)
    if ends is None:
        found.targets.append(Target(f"{name}:{port}", 1.0, (), (Step("endpoints", ANY_ADDRESS),)))
        return found
    if not ends:
        return found.answer(f"connection refused: nothing serves port {port} of {name}")
    transport: Transport = "TLS" if scheme == "https" else "plain text"
    steps: dict[Step, None] = {}
    for end in ends:
        for step in server.at_pod(view.snapshot, view.pod, end, request, transport):
            steps[step] = None
    pods = tuple(end.pod.name for end in ends if end.pod is not None)
    found.targets.append(Target(f"{name}:{port}", 1.0, pods, tuple(steps)))
    return found.settle()


def _addressed(view: View, name: str, port: int) -> list[Endpoint] | None:
    """The endpoints of a Service's name or of a pod's address; None when it is neither."""
    for host in view.hosts.values():
        if host.service is not None and name in routes.domains(view, host, port):
            return [end for end in view.endpoints(host, port) if end.ready]
    for pod in view.snapshot.pods:
        if pod.address == name:
            return [services.pod_endpoint(pod, port)]
    return None
