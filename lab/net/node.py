"""The node: a network to which each pod has a cable, and the rules of kube-proxy and istio-init.

A pod has one address and sends everything to the node, which knows a route to each pod (Calico's
way). There is no bridge: whatever a pod sends passes the node, so its rules see it, and the
receiver sees the sender's own address.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from lab.names import INBOUND_PORT, OUTBOUND_PORT
from lab.names import PROXY_MARK as MARK
from lab.net import netlink
from lab.net.namespaces import Network

NODE = "10.244.0.1"
"""The node's own address: the source of kubelet's probes and of what comes from localhost."""

HOST = "10.244.0.2"
"""The address that stands for the localhost of the machine, `host.lab` in DNS."""

PODS = ("10.244.0.0", 16)
SERVICES = ("10.96.0.0", 16)
DNS = "10.96.0.10"

_HOP = "169.254.1.1"
"""The node's end of every cable."""

OUTSIDE_PORT = 15099
"""The node's port for connections to the outside."""

_CLOSED = 1
"""A port of the node where nothing listens."""

_NOT_INBOUND = (15008, 15090, 15021, 15020)
"""Ports that istio-init leaves alone: HBONE, metrics, health and the agent's."""

Address = tuple[str, int]


@dataclass(frozen=True, slots=True)
class ServicePort:
    """A port of a Service: its virtual address, and its endpoints."""

    address: str
    port: int
    endpoints: tuple[Address, ...]


@dataclass(slots=True)
class Node:
    """The machine between the pods."""

    network: Network = field(default_factory=Network)
    outside: Mapping[Address, tuple[Address, ...]] = field(default_factory=dict)
    """The endpoints of Services that are no pods, by the address that clients ask for."""
    _ports: tuple[ServicePort, ...] | None = None

    def __post_init__(self) -> None:
        # On the loopback link, which is up: the node answers to them whichever cable they come by.
        own = [netlink.address(1, value) for value in (NODE, DNS)]
        # Without a route, a Service that has no endpoint would be unreachable and not refused.
        own.append(netlink.route(1, *SERVICES))
        netlink.send(self.network.links, own)
        self.serve(())

    def attach(self, pod: Network, address: str) -> None:
        """Lays the cable to a pod, which gets `address`; it disappears with the pod's network."""
        third, fourth = address.split(".")[2:]
        name = f"pod{third}-{fourth}"
        netlink.send(pod.links, [netlink.cable("eth0", name, self.network.descriptor)])
        inner, outer = pod.index("eth0"), self.network.index(name)
        netlink.send(
            self.network.links,
            [
                netlink.up(outer, forwarding=True),
                netlink.address(outer, _HOP),
                netlink.route(outer, address, 32, source=NODE),
            ],
        )
        netlink.send(
            pod.links,
            [
                netlink.up(inner),
                netlink.address(inner, address),
                netlink.route(inner, _HOP, 32),
                netlink.route(inner, "0.0.0.0", 0, via=_HOP),
            ],
        )

    def serve(self, ports: Sequence[ServicePort]) -> None:
        """Has these Services lead to their endpoints, and to nowhere where they have none."""
        if self._ports != tuple(ports):
            netlink.send(self.network.rules, netlink.table("kube-proxy", node_rules(ports)))
            self._ports = tuple(ports)
            self.outside = {
                (item.address, item.port): found
                for item in ports
                if (found := tuple(end for end in item.endpoints if not is_pod(end[0])))
            }


def is_pod(address: str) -> bool:
    """Returns whether an address is in the range of the pods."""
    return address.startswith("10.244.") and address != HOST


def node_rules(ports: Sequence[ServicePort]) -> Mapping[str, Sequence[netlink.Rule]]:
    """Returns kube-proxy's rules, and the one that leads everything else to the way out."""
    services: list[netlink.Rule] = []
    hairpins: dict[str, netlink.Rule] = {}
    for item in ports:
        match = [*netlink.destination(item.address), *netlink.tcp(), *netlink.port(item.port)]
        for index, (host, number) in enumerate(item.endpoints):
            # One in n of the connections, one in n - 1 of the rest, and so on: each has its share.
            chance = netlink.one_in(len(item.endpoints) - index)
            if not is_pod(host):
                # The way out chooses among these, by the address that was asked for.
                services.append([*match, *chance, *netlink.redirect(OUTSIDE_PORT)])
                continue
            services.append([*match, *chance, *netlink.forward_to(host, number)])
            # A pod that meets itself would answer itself directly, and not through the node.
            itself = [*netlink.source(host), *netlink.destination(host)]
            hairpins[host] = [*itself, *netlink.masquerade()]
    refused = [*netlink.tcp(), *netlink.destination(*SERVICES), *netlink.redirect(_CLOSED)]
    return {
        "prerouting": [
            *services,
            # The name server also answers by TCP.
            [*netlink.destination(DNS), *netlink.leave()],
            refused,
            [
                *netlink.destination(HOST, equal=False),
                *netlink.destination(*PODS),
                *netlink.leave(),
            ],
            [*netlink.tcp(), *netlink.redirect(OUTSIDE_PORT)],
        ],
        "output": [*services, [*netlink.destination(DNS), *netlink.leave()], refused],
        "postrouting": list(hairpins.values()),
    }


def intercept(pod: Network) -> None:
    """Leads a pod's connections through its proxy, as istio-init does."""
    netlink.send(pod.rules, netlink.table("istio", pod_rules()))


def pod_rules() -> Mapping[str, Sequence[netlink.Rule]]:
    """Returns istio-init's rules, in its order.

    They know the proxy's own connections by a mark; on a cluster it is by the user 1337, but one
    user is all that a user namespace without root has.
    """
    not_local = netlink.destination("127.0.0.1", equal=False)
    through_loopback = netlink.leaves_by("lo")
    return {
        "prerouting": [
            *([*netlink.tcp(), *netlink.port(n), *netlink.leave()] for n in _NOT_INBOUND),
            # What comes in goes to the proxy.
            [*netlink.tcp(), *netlink.redirect(INBOUND_PORT)],
        ],
        "output": [
            # The proxy gives the application what came in, from this address.
            [*through_loopback, *netlink.source("127.0.0.6"), *netlink.leave()],
            # The proxy calls the own pod, which is a call from outside.
            [
                *through_loopback,
                *not_local,
                *netlink.tcp(),
                *netlink.port(15008, equal=False),
                *netlink.mark(MARK),
                *netlink.redirect(INBOUND_PORT),
            ],
            # The application calls the own pod: that stays within it.
            [*through_loopback, *netlink.mark(MARK, equal=False), *netlink.leave()],
            # The proxy calls others.
            [*netlink.mark(MARK), *netlink.leave()],
            [*netlink.destination("127.0.0.1"), *netlink.leave()],
            # What the application sends to others goes to the proxy.
            [*netlink.tcp(), *netlink.redirect(OUTBOUND_PORT)],
        ],
    }
