"""Placement of a proxy: in a network of its pod's own, or on the loopback range.

The translation is the same. On the loopback range `adapt` changes it. In a pod it stays as
istiod has it, and the bootstrap makes the proxy's connections known to the pod's rules.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace

from lab import names
from lab.envoy.adapt import adapt, with_http_alpn
from lab.kinds import services
from lab.kinds.destination_rule import becomes as destination_rule
from lab.model import Json, Pod, ProxyConfig, Snapshot
from lab.resources.resource import Problem, Resource
from lab.xds import socket_address

_SOL_SOCKET, _SO_MARK = 1, 36


@dataclass(frozen=True, slots=True)
class Placement:
    """The changes for one way to place proxies."""

    config: Callable[[ProxyConfig, Pod], ProxyConfig]
    bootstrap: Callable[[Json], Json]
    limits: Callable[[Resource, Snapshot], Iterable[Problem]]
    """Warnings about what a resource asks for and does not get there."""


def _in_pod(config: ProxyConfig, _: Pod) -> ProxyConfig:
    return replace(config, clusters=[with_http_alpn(item) for item in config.clusters])


def _marked(bootstrap: Json) -> Json:
    """Returns a bootstrap whose connections bear the mark, and whose health others can ask.

    A cluster knows a proxy by its user, 1337; the rules of a pod know it by this mark.
    """
    mark = {
        "level": _SOL_SOCKET,
        "name": _SO_MARK,
        "int_value": names.PROXY_MARK,
        "state": "STATE_PREBIND",
    }
    static = bootstrap["static_resources"]
    listeners = [_on_any_address(item) for item in static["listeners"]]
    return bootstrap | {
        "cluster_manager": {"upstream_bind_config": {"socket_options": [mark]}},
        "static_resources": static | {"listeners": listeners},
    }


def _on_any_address(listener: Json) -> Json:
    address = listener["address"].get("socket_address")
    if address is None:
        return listener
    return listener | {"address": socket_address(names.ANY_ADDRESS, address["port_value"])}


def _on_loopback(resource: Resource, snapshot: Snapshot) -> Iterable[Problem]:
    if resource.kind == "Sidecar":
        return _own_listeners(resource)
    if resource.kind == "DestinationRule":
        return _original_destinations(resource)
    return services.taken_ports(resource, snapshot) if resource.kind == "Service" else ()


def _original_destinations(rule: Resource) -> Iterator[Problem]:
    policies = [rule.spec.traffic_policy, *(one.traffic_policy for one in rule.spec.subsets)]
    found = [one for one in policies if one is not None]
    found += [port for one in found for port in one.port_level_settings]
    if any(destination_rule.passes(one.load_balancer) for one in found):
        reason = (
            "PASSTHROUGH leads to the address of the Service, where privileged ports may not be "
            "served; with `up --network pods` it is the one that the client asks for"
        )
        yield Problem(("spec",), reason, "warning")


def _own_listeners(sidecar: Resource) -> Iterator[Problem]:
    for side in ("ingress", "egress"):
        for index, listener in enumerate(getattr(sidecar.spec, side)):
            if listener.capture_mode == "NONE":
                place = "address" if side == "ingress" else "inside address"
                reason = (
                    f"the listener is at the pod's {place}, from port 1024 up; "
                    "with `up --network pods` it is where the manifest says"
                )
                yield Problem(("spec", side, index, "captureMode"), reason, "warning")


PODS = Placement(_in_pod, _marked, lambda _resource, _snapshot: ())
LOOPBACK = Placement(adapt, lambda bootstrap: bootstrap, _on_loopback)
