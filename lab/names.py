"""Istio's names of generated Envoy resources, as in logs, statistics and EnvoyFilters."""

from __future__ import annotations

from collections.abc import Mapping

BLACK_HOLE = "BlackHoleCluster"
PASSTHROUGH = "PassthroughCluster"
DYNAMIC_DNS = "AllowAnyDynamicDNSCluster"
INBOUND_PASSTHROUGH = "InboundPassthroughCluster"
OUTBOUND_LISTENER = "virtualOutbound"
INBOUND_LISTENER = "virtualInbound"
ANY_ADDRESS = "0.0.0.0"

HTTP_PROXY_ROUTES = "http_proxy"
"""The routes of the mesh's HTTP proxy (`proxyHttpPort`)."""

PROXY = "istio-proxy"
"""The container of a proxy."""

MESH = "mesh"
"""The reserved gateway that stands for all sidecars."""

PROXY_MARK = 1337
"""The mark (SO_MARK) of a proxy's connections in a pod, as 1337 is its user on a cluster."""

REPORT = "@reporter"
"""The first key, by its letters, of a proxy's report of a request: JSON among its output."""

OUTBOUND_PORT = 15001
INBOUND_PORT = 15006
HEALTH_PORT = 15021
METRICS_PORT = 15090
ADMIN_PORT = 15000


def inside(address: str) -> str:
    """Returns the inside address of a pod by its pod address."""
    return address.replace("127.77.", "127.78.", 1)


def cluster(port: int, host: str, subset: str = "") -> str:
    return f"outbound|{port}|{subset}|{host}"


def inbound_cluster(target_port: int) -> str:
    return f"inbound|{target_port}||"


def listener(address: str, port: int) -> str:
    return f"{address}_{port}"


def server_name(port: int, host: str, subset: str = "") -> str:
    """Returns the SNI that a sidecar sends to another."""
    return f"outbound_.{port}_.{subset}_.{host}"


def virtual_host(host: str, port: int) -> str:
    return f"{host}:{port}"


def expand(host: str, namespace: str) -> str:
    """Returns the full name of a host in a resource of `namespace`; one with a dot is full."""
    if "." in host or host.startswith("*"):
        return host
    return f"{host}.{namespace}.svc.cluster.local"


_SERVICES = ".svc.cluster.local"


def alternatives(host: str, namespace: str) -> list[str]:
    """Returns the ways to write a host for a client in `namespace`, the full name first.

    Short forms are those of Services.
    """
    result = [host, f"{host}."]
    short, _, owner = host.removesuffix(_SERVICES).partition(".")
    if host.endswith(_SERVICES) and owner and "." not in owner:
        result += [short] if owner == namespace else []
        result += [f"{short}.{owner}.svc", f"{short}.{owner}"]
    return result


def gateway(name: str, namespace: str) -> str:
    """Returns a VirtualService's gateway reference as `namespace/name`; `mesh` stays."""
    if name == MESH:
        return name
    if "/" in name:
        where, _, short = name.partition("/")
        return f"{namespace if where == '.' else where}/{short}"
    if "." in name:
        short, where = name.split(".")[:2]
        return f"{where}/{short}"
    return f"{namespace}/{name}"


def matches(pattern: str, host: str) -> bool:
    """Returns whether a host, possibly a wildcard itself, is within a (wildcard) pattern."""
    if pattern == "*":
        return True
    if pattern.startswith("*"):
        return host.removeprefix("*").endswith(pattern[1:]) and len(host) >= len(pattern)
    return pattern == host


def selects(selector: Mapping[str, str], labels: Mapping[str, str]) -> bool:
    """Returns whether every label of `selector` is among `labels`; an empty one selects all."""
    return all(labels.get(key) == value for key, value in selector.items())
