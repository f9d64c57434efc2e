"""Gateways: their pods, ports and Secrets, and servers of several Gateways in conflict."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime

from lab import names
from lab.explain.analyze.finding import Finding, about, shown
from lab.kinds import services
from lab.kinds.gateway.types import ServerTLSSettings
from lab.model import Pod, Snapshot
from lab.resources.resource import Resource


def references(snapshot: Snapshot) -> Iterator[Finding]:
    """Yields Gateways for no pod or without their Secret (IST0101) or with one that is no
    certificate (IST0161), and ports that no Service of the gateway has (IST0162)."""
    secrets = {(item.namespace, item.name): item for item in snapshot.of("Secret")}
    for gateway in snapshot.of("Gateway"):
        selector = shown(gateway.spec.selector)
        pods = [pod for pod in snapshot.pods if names.selects(gateway.spec.selector, pod.labels)]
        if not pods:
            text = f'Referenced selector not found: "{selector}"'
            yield about("IST0101", gateway, text, "spec", "selector")
            continue
        published = {port for pod in pods for port in _published(snapshot, pod)}
        for index, server in enumerate(gateway.spec.servers):
            at = ("spec", "servers", index)
            if server.port.number not in published:
                text = (
                    f"The gateway is listening on a target port (port {server.port.number}) that "
                    "is not defined in the Service associated with its workload instances (Pod "
                    f"selector {selector}). If you need to access the gateway port through the "
                    "gateway Service, it will not be available."
                )
                yield about("IST0162", gateway, text, *at, "port", "number")
            credential = server.tls.credential_name if server.tls else None
            if credential:
                where, _, name = credential.rpartition("/")
                secret = secrets.get((where or pods[0].namespace, name))
                place = (*at, "tls", "credentialName")
                if secret is None:
                    text = f'Referenced credentialName not found: "{credential}"'
                    yield about("IST0101", gateway, text, *place)
                elif not _is_certificate(secret):
                    text = (
                        f"The credential referenced by the Gateway {gateway.name} in namespace "
                        f"{pods[0].namespace} is invalid, which can cause the traffic not to work "
                        "as expected."
                    )
                    yield about("IST0161", gateway, text, *place)


def _published(snapshot: Snapshot, pod: Pod) -> Iterator[int]:
    """Yields the ports of a pod's Services, and the ports of the pod that they lead to."""
    for service in snapshot.services:
        if services.selected(service, pod):
            for port in service.ports:
                yield port.port
                target = services.resolve_port(pod, port.target_port)
                if target is not None:
                    yield target


def _is_certificate(secret: Resource) -> bool:
    """Returns whether a Secret has a key, and a certificate that is valid now."""
    from cryptography import x509

    data = secret.body.decoded()
    pairs = ((data.get("cert"), data.get("key")), (data.get("tls.crt"), data.get("tls.key")))
    chain = next((chain for chain, key in pairs if chain and key), b"")
    try:
        first = x509.load_pem_x509_certificates(chain)[0]
    except ValueError:
        return False
    return first.not_valid_before_utc <= datetime.now(UTC) <= first.not_valid_after_utc


def conflicts(snapshot: Snapshot) -> Iterator[Finding]:
    """Yields servers with the pods, the port and a host of another Gateway's (IST0145)."""
    served: dict[tuple[str, int], dict[str, set[str]]] = {}
    selectors = {}
    for gateway in snapshot.of("Gateway"):
        selector = shown(gateway.spec.selector)
        selectors[selector] = gateway.spec.selector
        for server in gateway.spec.servers:
            # istioctl looks at the last of a Gateway's servers of a port.
            others = served.setdefault((selector, server.port.number), {})
            others[f"{gateway.namespace}/{gateway.name}"] = set(server.hosts)
    alike = {
        (one, other)
        for one in selectors
        for other in selectors
        if one == other
        or ((one in other or other in one) and _common(snapshot, selectors[one], selectors[other]))
    }
    for gateway in snapshot.of("Gateway"):
        own, selector = f"{gateway.namespace}/{gateway.name}", shown(gateway.spec.selector)
        for index, server in enumerate(gateway.spec.servers):
            rivals = sorted(
                name
                for (other, port), found in served.items()
                if port == server.port.number and (selector, other) in alike
                for name, hosts in found.items()
                if name != own and not hosts.isdisjoint(server.hosts)
            )
            if rivals:
                text = (
                    f"Conflict with gateways {','.join(rivals)} (workload selector {selector}, "
                    f"port {server.port.number}, hosts {','.join(server.hosts)})."
                )
                yield about("IST0145", gateway, text, "spec", "servers", index)


def _common(snapshot: Snapshot, one: dict[str, str], other: dict[str, str]) -> bool:
    return any(names.selects({**one, **other}, pod.labels) for pod in snapshot.pods)


def certificates(snapshot: Snapshot) -> Iterator[Finding]:
    """Yields Gateways for the same pods with the same certificate (IST0138)."""
    for gateway in snapshot.of("Gateway"):
        for other in snapshot.of("Gateway"):
            if (
                other is not gateway
                and names.selects(gateway.spec.selector, other.spec.selector)
                and not _certificates(gateway).isdisjoint(_certificates(other))
            ):
                both = " ".join(f"{item.namespace}/{item.name}" for item in (gateway, other))
                text = (
                    f"Duplicate certificate in multiple gateways [{both}] may cause 404s if "
                    "clients re-use HTTP2 connections."
                )
                yield about("IST0138", gateway, text, "metadata", "name")


def _certificates(gateway: Resource) -> set[str]:
    settings: list[ServerTLSSettings] = [one.tls for one in gateway.spec.servers if one.tls]
    return {one.credential_name for one in settings if one.credential_name}
