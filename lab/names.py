"""Istio's names of generated Envoy resources, as in logs, statistics and EnvoyFilters."""

from __future__ import annotations

from collections.abc import Mapping

BLACK_HOLE = "BlackHoleCluster"
PASSTHROUGH = "PassthroughCluster"
DYNAMIC_DNS = "AllowAnyDynamicDNSCluster"
OUTBOUND_LISTENER = "virtualOutbound"
INBOUND_LISTENER = "virtualInbound"
OUTBOUND_ROUTES = "http_proxy"
"""The route configuration of an HTTP proxy port (Istio's `proxyHttpPort` mode)."""

TUNNEL = "virtualOutbound-catchall-tcp"
"""The internal listener of tunnelled (CONNECT) connections to ports that no host has."""

PROXY = "istio-proxy"
"""The container of a proxy."""

MESH = "mesh"
"""The reserved gateway that stands for all sidecars."""

OUTBOUND_PORT = 15001
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


def tunnel(port: int) -> str:
    """Returns the internal listener of tunnelled connections to a port of a TLS or TCP host."""
    return f"0.0.0.0_{port}"


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
