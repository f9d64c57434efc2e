"""Matching of an EnvoyFilter's patches, by exact names."""

from __future__ import annotations

from typing import Literal

from lab import names
from lab.kinds import services
from lab.kinds.envoy_filter.types import Match
from lab.model import Json, Pod, Snapshot

Context = Literal["SIDECAR_INBOUND", "SIDECAR_OUTBOUND", "GATEWAY"]


def _fits(wanted: object, value: object) -> bool:
    """Returns whether a value is as wanted; what is not set is not wanted."""
    return not wanted or wanted == value


def listener_context(pod: Pod, listener: Json) -> Context:
    """Returns the side of a proxy that a listener belongs to."""
    return _context(pod, inbound=listener.get("traffic_direction") == "INBOUND")


def cluster_context(pod: Pod, cluster: Json) -> Context:
    """Returns the side of a proxy that a cluster belongs to."""
    name = cluster["name"]
    inbound = name.startswith("inbound|") or name == names.INBOUND_PASSTHROUGH
    return _context(pod, inbound=inbound)


def _context(pod: Pod, *, inbound: bool) -> Context:
    if pod.proxy == "gateway":
        return "GATEWAY"
    return "SIDECAR_INBOUND" if inbound else "SIDECAR_OUTBOUND"


def listener(listener: Json, match: Match, *, whole: bool = False) -> bool:
    """Returns whether a listener matches; `whole`: as the thing to patch, not as its place."""
    wanted = match.listener
    if wanted is None:
        return True
    if not _fits(wanted.name, listener["name"]):
        return False
    if not wanted.port_number or (not whole and listener["name"] == names.INBOUND_LISTENER):
        return True  # That of a chain of `virtualInbound` is compared instead.
    address = listener.get("address", {}).get("socket_address", {})
    return bool(address.get("port_value") == wanted.port_number)


def chain(listener: Json, chain: Json, match: Match) -> bool:
    """Returns whether a filter chain of a matching listener matches."""
    wanted = match.listener
    if wanted is None:
        return True
    criteria = chain.get("filter_chain_match", {})
    port = criteria.get("destination_port")
    inbound = listener["name"] == names.INBOUND_LISTENER
    if inbound and wanted.port_number and port != wanted.port_number:
        return False
    inner = wanted.filter_chain
    protocols = criteria.get("application_protocols", [])
    wanted_protocols = (inner.application_protocols or "").split(",")
    return (
        _fits(inner.name, chain.get("name"))
        and (not inner.sni or inner.sni in criteria.get("server_names", []))
        and _fits(inner.transport_protocol, criteria.get("transport_protocol"))
        and (not inner.application_protocols or set(wanted_protocols) <= set(protocols))
        and _fits(inner.destination_port, port)
    )


def filter_name(match: Match) -> str:
    """Returns the network filter that a patch names; empty when it names none."""
    return match.listener.filter_chain.filter.name if match.listener is not None else ""


def sub_filter_name(match: Match) -> str:
    """Returns the HTTP filter that a patch names; empty when it names none."""
    if match.listener is None:
        return ""
    return match.listener.filter_chain.filter.sub_filter.name


def gateway_ports(snapshot: Snapshot, pod: Pod) -> dict[int, set[int]]:
    """Returns a gateway's container ports with the Service ports that lead to them."""
    found: dict[int, set[int]] = {}
    if pod.proxy == "gateway":
        for service in services.services_of(snapshot, pod):
            for port in service.ports:
                if (number := services.resolve_port(pod, port.target_port)) is not None:
                    found.setdefault(number, set()).add(port.port)
    return found


def route_configuration(
    routes: Json, match: Match, context: Context, gateway_ports: dict[int, set[int]]
) -> bool:
    """Returns whether a route configuration matches."""
    wanted = match.route_configuration
    if wanted is None:
        return True
    name = routes["name"]
    if wanted.name and wanted.name != name:
        return False
    if context != "GATEWAY":
        port = name.split("|")[1] if name.startswith("inbound|") else name.rpartition(":")[2]
        return not wanted.port_number or str(wanted.port_number) == port
    number, port_name, gateway = _gateway_route_name(name)
    served = gateway_ports.get(number, {number})
    return (
        (not wanted.port_number or wanted.port_number in served)
        and _fits(wanted.port_name, port_name)
        and _fits(wanted.gateway, gateway)
    )


def _gateway_route_name(name: str) -> tuple[int, str, str]:
    """Returns port, port name and gateway of `http.8080` or `https.443.NAME.GATEWAY.NAMESPACE`."""
    parts = name.split(".")
    number = int(parts[1]) if len(parts) > 1 and parts[1].isdecimal() else 0
    if parts[0] == "https" and len(parts) == 5:
        return number, parts[2], f"{parts[4]}/{parts[3]}"
    return number, "", ""


def virtual_host(host: Json, match: Match) -> bool:
    """Returns whether a virtual host of a matching route configuration matches."""
    if match.route_configuration is None:
        return True
    wanted = match.route_configuration.vhost
    domains = host.get("domains", [])
    named = _fits(wanted.name, host["name"])
    return named and (not wanted.domain_name or wanted.domain_name in domains)


_ACTIONS = {"ROUTE": "route", "REDIRECT": "redirect", "DIRECT_RESPONSE": "direct_response"}


def route(route: Json, match: Match) -> bool:
    """Returns whether a route of a matching virtual host matches."""
    if match.route_configuration is None:
        return True
    wanted = match.route_configuration.vhost.route
    if not _fits(wanted.name, route.get("name")):
        return False
    has_action = any(action in route for action in _ACTIONS.values())
    return wanted.action == "ANY" or not has_action or _ACTIONS[wanted.action] in route


def cluster(cluster: Json, match: Match, snapshot: Snapshot, pod: Pod) -> bool:
    """Returns whether a cluster matches."""
    wanted = match.cluster
    if wanted is None:
        return True
    name: str = cluster["name"]
    if wanted.name:
        return wanted.name == name
    parts = name.split("|")
    direction, port, subset, host = parts if len(parts) == 4 else ("", "0", "", "")
    hosts = {host}
    if direction == "inbound":
        hosts = {service.host for service in services.services_of(snapshot, pod)}
    return (
        _fits(wanted.subset, subset)
        and (not wanted.service or wanted.service in hosts)
        and (not wanted.port_number or str(wanted.port_number) == port)
    )
