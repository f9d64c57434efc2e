"""Proxy mode: istiod's configuration for a machine without packet rules, DNS or address space.

On a cluster iptables leads each connection to a sidecar, with its original destination. Here:
- programs use an HTTP proxy, which hands each request to the listener of its port; these are
  internal to the Envoy and else as istiod wrote them. TCP Services are at the inside address;
- `virtualInbound` listens on the container ports at the pod's address;
- clusters of original destinations resolve the name that a request gives, or have endpoints;
- pods have addresses on the loopback device, and gateways a second one for clients outside.
"""

from __future__ import annotations

import ipaddress
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from lab import names
from lab.model import Json, Pod, ProxyConfig
from lab.xds import (
    HTTP_PROTOCOL_OPTIONS,
    ORIGINAL_DST,
    RAW_BUFFER,
    ROUTER,
    TLS_INSPECTOR,
    chains,
    copied,
    extension,
    socket_address,
    static_assignment,
    typed,
)

ORIGINAL_DESTINATION = "x-envoy-original-dst-host"
"""The header with the address that a client meant to connect to; iptables would keep it."""

_DNS_CACHE: Json = {"name": "outbound", "dns_lookup_family": "V4_ONLY"}
"""The one cache that all dynamic forward proxy clusters and filters of a proxy share."""

_CATCH_ALL_HTTP = f"{names.OUTBOUND_LISTENER}-catchall-http"
_STATE = "envoy.filters.http.set_filter_state"
_FORWARD_PROXY = "envoy.filters.http.dynamic_forward_proxy"
_FORWARD_PROXY_FILTER: Json = extension(
    _FORWARD_PROXY,
    "extensions.filters.http.dynamic_forward_proxy.v3.FilterConfig",
    dns_cache_config=_DNS_CACHE,
    allow_dynamic_host_from_filter_state=True,
)
_NAME_RESOLVER = "envoy.filters.network.sni_dynamic_forward_proxy"
_UNLIMITED = dict.fromkeys(
    ("max_connections", "max_pending_requests", "max_requests", "max_retries"), 4294967295
)


def adapt(config: ProxyConfig, pod: Pod) -> ProxyConfig:
    """Returns a proxy's configuration for proxy mode."""
    listeners, clusters, routes = map(copied, (config.listeners, config.clusters, config.routes))
    forwarding = {item["name"] for item in clusters if _forwards(item, config.addresses)}
    loads = {item["cluster_name"]: item for item in config.endpoints}
    built = [
        adapted for item in clusters for adapted in _cluster(item, config, loads, pod, forwarding)
    ]
    if pod.proxy == "gateway":
        listeners = [_at_gateway(listener, pod) for listener in listeners]
    else:
        listeners, internal = _at_sidecar(listeners, config, pod, forwarding)
        built += [*_internal_clusters(internal), *_unclaimed_clusters(listeners, pod)]
        for item in routes:
            item["request_headers_to_remove"] = [ORIGINAL_DESTINATION]
            _by_name(item)
    return replace(config, listeners=listeners, clusters=built, routes=routes)


# --- gateways -------------------------------------------------------------------------------------


def _at_gateway(listener: Json, pod: Pod) -> Json:
    port = _port(listener)
    places = [{"address": socket_address(*place)} for place in pod.published.get(port, ())]
    moved = listener | {"address": socket_address(pod.address, port)}
    if places:
        moved["additional_addresses"] = places
    return {key: _with_published_ports(value, pod.published) for key, value in moved.items()}


def _with_published_ports(value: Any, published: Mapping[int, Sequence[tuple[str, int]]]) -> Any:
    """Returns RBAC rules in which a container port stands for its published ports too.

    A cluster's load balancer leads to the container port; here clients connect to the proxy itself.
    """
    if isinstance(value, list):
        return [_with_published_ports(item, published) for item in value]
    if not isinstance(value, dict):
        return value
    if places := published.get(value.get("destination_port", 0)):
        ports = dict.fromkeys((value["destination_port"], *(number for _, number in places)))
        return {"or_rules": {"rules": [{"destination_port": port} for port in ports]}}
    return {key: _with_published_ports(item, published) for key, item in value.items()}


# --- listeners of sidecars ------------------------------------------------------------------------


def _at_sidecar(
    listeners: list[Json], config: ProxyConfig, pod: Pod, forwarding: set[str]
) -> tuple[list[Json], list[str]]:
    """Returns a sidecar's listeners and the names of those that are internal."""
    by_domains: list[tuple[list[str], str]] = []
    internal: list[str] = []
    own = [item for item in listeners if _has_socket(item)]
    result = [placed for item in own for placed in _with_socket(item, pod)]
    inbound = {_port(item) for item in result if item.get("traffic_direction") == "INBOUND"}
    bound: set[int] = {*pod.ports.values(), *map(_port, result)}
    for listener in listeners:
        name = listener["name"]
        if name == names.INBOUND_LISTENER:
            result += _inbound(listener, pod, inbound)
            continue
        if listener in own:
            continue
        address, port = name.rpartition("_")[0], _port(listener)
        if name == names.OUTBOUND_LISTENER:
            made = _catch_all_http(listener)
            result.append(_internal(made, made["name"], port, forwarding))
            internal.append(_CATCH_ALL_HTTP)
        elif address == names.ANY_ADDRESS:
            by_domains.append(([f"*:{port}"], name))
        else:
            listener = _of_address(listener, address)
            inner = name
            if port >= 1024 and port not in bound and not any(map(_managers, chains(listener))):
                bound.add(port)
                result.append(_bound(listener, pod))
                inner = f"{name}~"
            by_domains.append((list(_domains(config, pod, address, port)), inner))
            name = inner
        internal.append(name)
        result.append(_internal(listener, name, port, forwarding))
    return [_http_proxy(pod, by_domains), *result], internal


def _port(listener: Json) -> int:
    """Returns the port of a listener; 0 for a Unix socket."""
    port: int = listener["address"].get("socket_address", {}).get("port_value", 0)
    return port


def _has_socket(listener: Json) -> bool:
    virtual = (names.INBOUND_LISTENER, names.OUTBOUND_LISTENER)
    return listener["name"] not in virtual and listener.get("bind_to_port") is not False


def _with_socket(listener: Json, pod: Pod) -> Iterator[Json]:
    """Yields a Sidecar's listener at an address of the pod, if its port is no privileged one."""
    address, port = listener["address"].get("socket_address", {}).get("address"), _port(listener)
    if listener["name"] != f"{address}_{port}":
        yield listener
    elif port >= 1024:
        inbound = listener.get("traffic_direction") == "INBOUND"
        place = pod.address if inbound else pod.inside_address
        yield listener | {"address": socket_address(place, port)}


def _managers(chain: Json) -> list[Json]:
    """Returns the HTTP connection managers of a filter chain, of which there is at most one."""
    configs = (item.get("typed_config", {}) for item in chain.get("filters", ()))
    return [config for config in configs if "http_filters" in config]


def _domains(config: ProxyConfig, pod: Pod, address: str, port: int) -> Iterator[str]:
    """Yields the ways to write a host and port that lead to an address."""
    found = {address: None}
    for host, addresses in config.addresses.items():
        if address in addresses:
            found |= dict.fromkeys(names.alternatives(host, pod.namespace))
    for name in found:
        yield f"{name}:{port}"
        if port == 80:
            yield name


def _of_address(listener: Json, address: str) -> Json:
    """Returns a listener with the chains for its address, at which no client arrives here."""
    ranked = [(_prefix_length(chain, address), chain) for chain in listener["filter_chains"]]
    best = max((length for length, _ in ranked if length is not None), default=None)
    own = [dict(chain) for length, chain in ranked if length == best is not None]
    for chain in own:
        match = dict(chain.pop("filter_chain_match", {}))
        match.pop("prefix_ranges", None)
        chain |= {"filter_chain_match": match} if match else {}
    return listener | {"filter_chains": own}


def _prefix_length(chain: Json, address: str) -> int | None:
    """Returns the longest prefix of a chain for an address, -1 for any; None when none fits."""
    ranges = chain.get("filter_chain_match", {}).get("prefix_ranges")
    if not ranges:
        return -1
    texts = (f"{one['address_prefix']}/{one['prefix_len']}" for one in ranges)
    networks = (ipaddress.ip_network(text, strict=False) for text in texts)
    own = ipaddress.ip_address(address)
    return max((one.prefixlen for one in networks if own in one), default=None)


def _bound(listener: Json, pod: Pod) -> Json:
    """Returns the listener of a TCP Service at the inside address, the first on its port."""
    rest = {key: value for key, value in listener.items() if key != "bind_to_port"}
    return rest | {"address": socket_address(pod.inside_address, _port(listener))}


def _internal(listener: Json, name: str, port: int, forwarding: set[str]) -> Json:
    """Returns a listener that only the HTTP proxy reaches."""
    own = copied(listener) | {"name": name, "internal_listener": {}}
    for key in ("address", "bind_to_port", "use_original_dst"):
        own.pop(key, None)
    own["filter_chains"] = [
        chain
        for chain in own.get("filter_chains", ())
        if chain.get("filter_chain_match", {}).get("destination_port") != names.OUTBOUND_PORT
    ]
    own["listener_filters"] = [ORIGINAL_DST, *own.get("listener_filters", ())]
    if name == names.OUTBOUND_LISTENER:
        own["listener_filters"].append(
            TLS_INSPECTOR
        )  # A tunnel is open before anything is decided.
        own["listener_filters_timeout"] = "0s"
        for chain in filter(_managers, own["filter_chains"]):
            # What TLS offers (ALPN), which this inspector reads, is no protocol of the chain.
            chain["filter_chain_match"]["transport_protocol"] = "raw_buffer"
    for chain in chains(own):
        for manager in _managers(chain):
            kept = [item for item in manager["http_filters"] if item["name"] != _FORWARD_PROXY]
            destination = _state_filter(to=f"%REQ({ORIGINAL_DESTINATION})%")
            manager["http_filters"] = [*kept[:-1], destination, _FORWARD_PROXY_FILTER, kept[-1]]
            _by_name(manager.get("route_config", {}))
        chain["filters"] = [one for one in chain["filters"] if one["name"] != _NAME_RESOLVER]
        last = chain["filters"][-1].get("typed_config", {}) if chain.get("filters") else {}
        if last.get("cluster") in forwarding:
            chain["filters"][-1:-1] = [_name_resolver(443 if port == names.OUTBOUND_PORT else port)]
    return own


def _by_name(routes: Json) -> None:
    """Lets the host of a request decide, where istiod does so, and not the client's address."""
    off = typed("config.route.v3.FilterConfig", disabled=True)
    for host in routes.get("virtual_hosts", ()):
        for route in host["routes"]:
            if route.get("route", {}).get("cluster") == names.DYNAMIC_DNS:
                route["typed_per_filter_config"] = {_STATE: off}


def _name_resolver(port: int) -> Json:
    """Returns the network filter that resolves the name of a tunnel's destination."""
    return extension(
        _NAME_RESOLVER,
        "extensions.filters.network.sni_dynamic_forward_proxy.v3.FilterConfig",
        dns_cache_config=_DNS_CACHE,
        port_value=port,
    )


def _state_filter(**values: str) -> Json:
    """Returns the filter that keeps values of a request as filter state for what comes after it.

    `to`: the address that the client meant to connect to, for the dynamic forward proxy; without
    one that takes the host of the request. `tunnel`: the same, for an internal listener.
    `source`: the client's address, for an internal listener.
    """
    keys = {"source": "envoy.filters.listener.original_dst.remote_ip"}
    states = [
        {
            "object_key": keys.get(name, "envoy.upstream.dynamic_host"),
            "format_string": {
                "text_format_source": {"inline_string": value},
                "omit_empty_values": True,
            },
            "skip_if_empty": True,
            "shared_with_upstream": "NONE" if name == "to" else "TRANSITIVE",
        }
        for name, value in values.items()
    ]
    kind = "extensions.filters.http.set_filter_state.v3.Config"
    return extension(_STATE, kind, on_request_headers=states)


_SOURCE = "%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT%:0"
"""One for all connections of a client, which so share those to an internal listener."""


def _catch_all_http(outbound: Json) -> Json:
    """Returns the listener of plain HTTP to a port that no Service has.

    It goes where `virtualOutbound` sends HTTP, if it tells that from other bytes, or all of them.
    """
    made = {"name": _CATCH_ALL_HTTP, "traffic_direction": "OUTBOUND"}
    for http in filter(_managers, outbound["filter_chains"]):
        return made | {"filter_chains": [{"filters": http["filters"]}]}
    unknown = outbound["filter_chains"][-1]["filters"][-1]["typed_config"]
    action = {"cluster": unknown["cluster"], "timeout": "0s", "max_grpc_timeout": "0s"}
    manager = _manager(
        unknown["stat_prefix"],
        [
            {
                "name": "all",
                "domains": ["*"],
                "routes": [{"match": {"prefix": "/"}, "route": action}],
            }
        ],
        access_log=unknown.get("access_log", []),
    )
    return made | {"filter_chains": [{"filters": [manager]}]}


def _manager(stat_prefix: str, hosts: list[Json], **fields: object) -> Json:
    routes = {"virtual_hosts": hosts, "request_headers_to_remove": [ORIGINAL_DESTINATION]}
    return extension(
        "envoy.filters.network.http_connection_manager",
        "extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        **{
            "stat_prefix": stat_prefix,
            "stream_idle_timeout": "0s",
            "proxy_100_continue": True,
            "upgrade_configs": [{"upgrade_type": "websocket"}],
            "route_config": routes,
            "http_filters": [ROUTER],
            **fields,
        },
    )


def _http_proxy(pod: Pod, by_domains: list[tuple[list[str], str]]) -> Json:
    """Returns the application's HTTP proxy.

    A request or a CONNECT goes to the listener of its host and port, of its port, or to that of
    all other connections; a request without a port to that of port 80.
    """
    http = next((name for domains, name in by_domains if domains == ["*:80"]), _CATCH_ALL_HTTP)
    hosts = [
        {"name": name, "domains": domains, "routes": [_connect(name), _plain(name)]}
        for domains, name in by_domains
    ]
    with_port = [{"name": ":authority", "string_match": {"safe_regex": {"regex": ".*:[0-9]+"}}}]
    others = {
        "name": "others",
        "domains": ["*"],
        "routes": [
            _connect(names.OUTBOUND_LISTENER),
            _plain(_CATCH_ALL_HTTP, headers=with_port),
            _plain(http),
        ],
    }
    router = extension(
        "envoy.filters.http.router",
        "extensions.filters.http.router.v3.Router",
        suppress_envoy_headers=True,
    )
    manager = _manager(
        "http_proxy",
        [],
        route_config={"name": "http_proxy", "virtual_hosts": [*hosts, others]},
        generate_request_id=False,
        server_header_transformation="PASS_THROUGH",
        upgrade_configs=[{"upgrade_type": "websocket"}, {"upgrade_type": "CONNECT"}],
        http_filters=[_state_filter(source=_SOURCE), router],
    )
    return {
        "name": "http_proxy",
        "address": socket_address(pod.inside_address, names.OUTBOUND_PORT),
        "traffic_direction": "OUTBOUND",
        "filter_chains": [{"filters": [manager]}],
    }


def _plain(listener: str, **match: object) -> Json:
    action = {"cluster": f"internal_{listener}", "timeout": "0s", "max_grpc_timeout": "0s"}
    return {"match": {"prefix": "/", **match}, "route": action}


def _connect(listener: str) -> Json:
    """Returns the route of CONNECT, by which a client asks its proxy for HTTPS."""
    upgrade = {"upgrade_type": "CONNECT", "connect_config": {}}
    action = {"cluster": f"internal_{listener}", "timeout": "0s", "upgrade_configs": [upgrade]}
    state = _state_filter(tunnel=f"%REQ({ORIGINAL_DESTINATION}?:AUTHORITY)%", source=_SOURCE)
    return {
        "match": {"connect_matcher": {}},
        "route": action,
        "typed_per_filter_config": {_STATE: state["typed_config"]},
    }


def _inbound(listener: Json, pod: Pod, taken: set[int]) -> list[Json]:
    """Returns `virtualInbound` at the pod's own ports, those that no Service has included.

    `taken` are the ports of other listeners.
    """
    named = [c for c in listener["filter_chains"] if "destination_port" in c["filter_chain_match"]]
    others = [c for c in listener["filter_chains"] if c not in named]
    claimed = {chain["filter_chain_match"]["destination_port"] for chain in named}
    claimed.discard(names.INBOUND_PORT)
    ports = sorted({*claimed, *pod.ports.values()} - taken)
    if not ports:
        return []
    own = [_of_port(c, c["filter_chain_match"]["destination_port"]) for c in named]
    own = [c for c in own if c["filter_chain_match"]["destination_port"] != names.INBOUND_PORT]
    own += [_of_port(chain, port) for port in ports if port not in claimed for chain in others]
    first, *more = [{"address": socket_address(pod.address, port)} for port in ports]
    filters = [f for f in listener["listener_filters"] if not f["name"].endswith("original_dst")]
    moved = listener | first | {"filter_chains": own, "listener_filters": filters}
    return [moved | ({"additional_addresses": more} if more else {})]


def _of_port(chain: Json, port: int) -> Json:
    """Returns a chain for one port; what no Service has goes to the application's port."""
    key = '"cluster": '
    text = json.dumps(chain)
    passthrough = f"{key}{json.dumps(names.INBOUND_PASSTHROUGH)}"
    own: Json = json.loads(text.replace(passthrough, f"{key}{json.dumps(_unclaimed(port))}"))
    own["filter_chain_match"]["destination_port"] = port
    return own


def _unclaimed(port: int) -> str:
    return f"{names.INBOUND_PASSTHROUGH}_{port}"


# --- clusters -------------------------------------------------------------------------------------


def _forwards(cluster: Json, addresses: Mapping[str, tuple[str, ...]]) -> bool:
    """Returns whether a cluster connects to whatever a request names."""
    if "cluster_type" in cluster:
        return str(cluster["cluster_type"].get("name", "")).endswith("dynamic_forward_proxy")
    if cluster.get("type") != "ORIGINAL_DST" or cluster["name"].startswith("inbound|"):
        return False
    return cluster["name"].rpartition("|")[2] not in addresses


def _cluster(
    cluster: Json, config: ProxyConfig, loads: Mapping[str, Json], pod: Pod, forwarding: set[str]
) -> Iterator[Json]:
    name: str = cluster["name"]
    if name == names.INBOUND_PASSTHROUGH:
        return
    direction, _, rest = name.partition("|")
    if direction == "inbound":
        yield _application(cluster, pod, int(rest.partition("|")[0]))
    elif name in forwarding:
        yield _forward_proxy(cluster)
    elif cluster.get("type") == "ORIGINAL_DST":
        port, host = int(rest.partition("|")[0]), rest.rpartition("|")[2]
        places = [(address, port) for address in config.addresses[host]]
        yield _from_pod(_static(cluster, places), loads, pod)
    elif cluster.get("type") in ("STRICT_DNS", "LOGICAL_DNS"):
        yield _resolved(cluster, config, loads, pod)
    else:
        yield _from_pod(with_http_alpn(cluster), loads, pod)


def _application(cluster: Json, pod: Pod, port: int) -> Json:
    """Returns the cluster of a port's application, at the pod's inside address or a Unix socket."""
    for end in _ends(cluster.get("load_assignment", {})):
        if "pipe" in end["endpoint"]["address"]:
            return {key: value for key, value in cluster.items() if key != "upstream_bind_config"}
        port = _place(end)[1]
    return _static(cluster, [(pod.inside_address, port)])


def _static(cluster: Json, places: Iterable[tuple[str, int]]) -> Json:
    """Returns a cluster of original destinations as one of known endpoints."""
    left_out = ("lb_policy", "upstream_bind_config", "cleanup_interval")
    rest = {key: value for key, value in cluster.items() if key not in left_out}
    return _with_ends(rest, [{"endpoint": {"address": socket_address(*place)}} for place in places])


def _with_ends(cluster: Json, ends: list[Json]) -> Json:
    """Returns a cluster with these endpoints and no others, whatever its type was."""
    load = {"cluster_name": cluster["name"], "endpoints": [{"lb_endpoints": ends}] if ends else []}
    return cluster | {"type": "STATIC", "load_assignment": load}


def _forward_proxy(cluster: Json) -> Json:
    """Returns a cluster that connects to the name that a request or a tunnel gives.

    TLS, if any, is the application's own, so there is no name for Envoy to check.
    """
    rest = {key: value for key, value in cluster.items() if key != "type"}
    return rest | {
        "cluster_type": extension(
            "envoy.clusters.dynamic_forward_proxy",
            "extensions.clusters.dynamic_forward_proxy.v3.ClusterConfig",
            dns_cache_config=_DNS_CACHE,
            allow_insecure_cluster_options=True,
        )
    }


def _ends(load: Json) -> list[Json]:
    """Returns the endpoints of a ClusterLoadAssignment, of all localities."""
    localities = load.get("endpoints", ())
    return [end for locality in localities for end in locality.get("lb_endpoints", ())]


def _place(end: Json) -> tuple[str, int]:
    address = end["endpoint"]["address"].get("socket_address", {})
    return address.get("address", ""), address.get("port_value", 0)


def _from_pod(cluster: Json, loads: Mapping[str, Json], pod: Pod) -> Json:
    """Returns a cluster that connects from the pod's address, by which others know the caller."""
    load = cluster.get("load_assignment") or loads.get(cluster["name"], {})
    places = [_place(end)[0] for end in _ends(load)]
    if not places or not all(place.startswith("127.") for place in places):
        return cluster
    source = {"address": pod.address, "port_value": 0}
    return cluster | {"upstream_bind_config": {"source_address": source}}


def _resolved(cluster: Json, config: ProxyConfig, loads: Mapping[str, Json], pod: Pod) -> Json:
    """Returns a cluster of names; one that is a Service's has the endpoints of the Service."""
    for end in _ends(cluster.get("load_assignment", {})):
        name, port = _place(end)
        for host in config.addresses:
            known = loads.get(names.cluster(port, host))
            if known is None or name not in names.alternatives(host, pod.namespace):
                continue
            kept = ("endpoint", "health_status")
            plain = [{key: one[key] for key in kept if key in one} for one in _ends(known)]
            return _from_pod(_with_ends(cluster, plain), loads, pod)
    return cluster


def with_http_alpn(cluster: Json) -> Json:
    """Returns a cluster whose mutual TLS says HTTP, where a port has no protocol.

    Istio's own Envoy has a filter for this; without it the server would take HTTP for TCP.
    """
    options = cluster.get("typed_extension_protocol_options", {}).get(HTTP_PROTOCOL_OPTIONS, {})
    if "use_downstream_protocol_config" not in options:
        return cluster
    changed = _with_http_alpn(cluster)
    if matches := cluster.get("transport_socket_matches"):
        changed = changed | {
            "transport_socket_matches": [_with_http_alpn(match) for match in matches]
        }
    return changed


def _with_http_alpn(owner: Json) -> Json:
    socket = owner.get("transport_socket", {})
    context = socket.get("typed_config", {})
    common = context.get("common_tls_context", {})
    if "istio" not in common.get("alpn_protocols", ()):
        return owner
    common = common | {"alpn_protocols": ["istio-http/1.1", "istio"]}
    context = context | {"common_tls_context": common}
    return owner | {"transport_socket": socket | {"typed_config": context}}


def _unclaimed_clusters(listeners: Iterable[Json], pod: Pod) -> Iterator[Json]:
    """Yields the clusters of the container ports that no Service has."""
    text = json.dumps([item for item in listeners if item["name"] == names.INBOUND_LISTENER])
    for port in sorted(set(pod.ports.values())):
        name = _unclaimed(port)
        if f'"{name}"' in text:
            load = static_assignment(name, socket_address(pod.inside_address, port))
            yield {
                "name": name,
                "alt_stat_name": f"{names.PASSTHROUGH};",
                "type": "STATIC",
                "load_assignment": load,
            }


def _internal_clusters(listeners: Iterable[str]) -> Iterator[Json]:
    """Yields the clusters of internal listeners; connections keep their filter state."""
    for listener in listeners:
        address = {"envoy_internal_address": {"server_listener_name": listener}}
        yield {
            "name": f"internal_{listener}",
            "type": "STATIC",
            "circuit_breakers": {"thresholds": [dict(_UNLIMITED)]},
            "transport_socket": extension(
                "envoy.transport_sockets.internal_upstream",
                "extensions.transport_sockets.internal_upstream.v3.InternalUpstreamTransport",
                transport_socket=RAW_BUFFER,
            ),
            "load_assignment": static_assignment(f"internal_{listener}", address),
        }
