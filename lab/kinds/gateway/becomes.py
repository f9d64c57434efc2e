"""Gateway: the servers that it opens on a gateway's pod, their hosts and their TLS."""

from __future__ import annotations

import base64
import functools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from lab import names
from lab.kinds import services
from lab.kinds.gateway.checks import PLAIN_HTTP, valid_cipher_suite
from lab.kinds.gateway.types import Server, ServerTLSSettings
from lab.kinds.service_entry import becomes as service_entry
from lab.kinds.virtual_service import becomes as virtual_service
from lab.kinds.virtual_service import connections
from lab.kinds.virtual_service.connections import Rule
from lab.kinds.visible import View
from lab.model import Json, Pod, Snapshot
from lab.resources.resource import Origin, Resource
from lab.xds import AUTHORITY, SECRETS, extension, given, served_secret


@dataclass(frozen=True, slots=True)
class BoundServer:
    """A server of a Gateway, bound to a port of a gateway's pod."""

    resource: Resource
    index: int
    server: Server
    target: int

    @property
    def gateway(self) -> str:
        return f"{self.resource.namespace}/{self.resource.name}"

    @property
    def origin(self) -> Origin:
        return Origin(self.resource.source, ("spec", "servers", self.index), self.resource)

    @property
    def hosts(self) -> list[str]:
        """The names of its hosts, without the namespace of the VirtualService."""
        return sorted({host.rpartition("/")[2] for host in self.server.hosts})

    @property
    def scoped_hosts(self) -> list[str]:
        """Its hosts, with the namespace of the VirtualService where they name one."""
        found = (host.removeprefix("*/") for host in self.server.hosts)
        own = f"{self.resource.namespace}/"
        return [own + host[2:] if host.startswith("./") else host for host in found]

    @property
    def plain_http(self) -> bool:
        return self.server.port.protocol.upper() in PLAIN_HTTP

    @property
    def secure(self) -> bool:
        """Whether clients use TLS, which ends here or not."""
        return self.server.tls is not None and not self.plain_http

    @property
    def passes_through(self) -> bool:
        tls = self.server.tls
        return tls is not None and tls.mode in (None, "PASSTHROUGH")

    @property
    def serves_http(self) -> bool:
        https = self.server.port.protocol.upper() == "HTTPS" and not self.passes_through
        return self.plain_http or https

    @property
    def route_name(self) -> str:
        """The route configuration: one for all plain servers of a port, one for each secure one."""
        if not self.serves_http:
            return ""
        if self.plain_http:
            return f"http.{self.target}"
        port = self.server.port
        return f"https.{port.number}.{port.name}.{self.resource.name}.{self.resource.namespace}"


def servers(snapshot: Snapshot, pod: Pod) -> list[BoundServer]:
    """Returns the servers that open a port on a gateway's pod, oldest Gateway first.

    Servers share a port when all of them are plain HTTP, or use TLS for different hosts; a server
    that does not agree with an earlier one is left out. A port that no Service maps is used as it
    is, unless it is a privileged one.
    """
    result: list[BoundServer] = []
    plain: dict[int, BoundServer] = {}
    hosts: dict[int, set[str]] = {}
    for resource in snapshot.of("Gateway"):
        if not names.selects(resource.spec.selector, pod.labels):
            continue
        for index, server in enumerate(resource.spec.servers):
            target = target_port(snapshot, pod, server.port.number)
            if target is None:
                continue
            bound = BoundServer(resource, index, server, target)
            if server.tls is not None and not _added(bound.scoped_hosts, hosts, target):
                continue
            first = plain.get(target)
            if first is not None and not (first.plain_http and bound.plain_http):
                continue
            if not bound.secure:
                plain.setdefault(target, bound)
            result.append(bound)
    return result


def _added(wanted: Sequence[str], known: dict[int, set[str]], port: int) -> bool:
    """Adds names to those of a port, unless one of them is there; returns whether it has."""
    taken = known.setdefault(port, set())
    if not taken.isdisjoint(wanted):
        return False
    taken.update(wanted)
    return True


def target_port(snapshot: Snapshot, pod: Pod, number: int) -> int | None:
    """Returns the gateway pod's own port for a port of its Service, or of its ServiceEntry."""
    for service in services.services_of(snapshot, pod):
        for port in service.ports:
            if port.port == number:
                return services.resolve_port(pod, port.target_port)
    for entry in snapshot.of("ServiceEntry"):
        for host in service_entry.hosts(entry) if service_entry.selected(entry, pod) else ():
            if (found := host.port(number)) is not None:
                return service_entry.target(found, pod)
    return number if number >= 1024 else None


def server_tls(settings: ServerTLSSettings) -> Json:
    """Returns the TLS of a server, whose certificates istiod serves as secrets by their names."""
    credentials = _credentials(settings)
    cipher_suites = dict.fromkeys(filter(valid_cipher_suite, settings.cipher_suites))
    parameters = given(
        tls_minimum_protocol_version=_version(settings.min_protocol_version),
        tls_maximum_protocol_version=_version(settings.max_protocol_version),
        cipher_suites=list(cipher_suites) or None,
    )
    names = [{"exact": name} for name in settings.subject_alt_names] or None
    validation: Json = {}
    if settings.mode in ("MUTUAL", "OPTIONAL_MUTUAL"):
        untrusted = "ACCEPT_UNTRUSTED" if settings.insecure_skip_verify else None
        own = given(
            match_subject_alt_names=names,
            verify_certificate_spki=settings.verify_certificate_spki or None,
            verify_certificate_hash=settings.verify_certificate_hash or None,
            trust_chain_verification=untrusted,
        )
        validation["combined_validation_context"] = {
            "default_validation_context": own,
            "validation_context_sds_secret_config": served_secret(
                f"{SECRETS}{credentials[0]}{AUTHORITY}"
            ),
        }
    elif names:
        validation["validation_context"] = {"match_subject_alt_names": names}
    return extension(
        "envoy.transport_sockets.tls",
        "extensions.transport_sockets.tls.v3.DownstreamTlsContext",
        require_client_certificate=settings.mode == "MUTUAL",
        common_tls_context={
            **given(tls_params=parameters or None),
            "alpn_protocols": ["h2", "http/1.1"],
            "tls_certificate_sds_secret_configs": [
                served_secret(f"{SECRETS}{name}") for name in credentials
            ],
            **validation,
        },
    )


def _credentials(settings: ServerTLSSettings) -> list[str]:
    return settings.credential_names or [settings.credential_name or ""]


def credentials(snapshot: Snapshot, pod: Pod) -> Iterator[str]:
    """Yields the names of the Secrets of a gateway's servers."""
    for bound in servers(snapshot, pod):
        if bound.server.tls is not None:
            yield from _credentials(bound.server.tls)


def secrets(snapshot: Snapshot, namespace: str, credentials: Iterable[str]) -> dict[str, Json]:
    """Returns what istiod serves to a proxy of a namespace by the names in TLS settings.

    That is the certificate, with its key, and the certificate authority in each Secret of that
    namespace; nothing by the name of a Secret that is not there, or lacks the part.
    """
    found: dict[str, Json] = {}
    kept = {one.name: one for one in snapshot.of("Secret") if one.namespace == namespace}
    for name in credentials:
        short = name.removeprefix(f"{namespace}/")
        secret = kept.get(short)
        own = secret.body.decoded() if secret else {}
        other = kept.get(f"{short}{AUTHORITY}")
        certificate = _certificate(own)
        authority = _authority(other.body.decoded() if other else own)
        found |= {f"{SECRETS}{name}": certificate} if certificate else {}
        found |= {f"{SECRETS}{name}{AUTHORITY}": authority} if authority else {}
    return found


def _certificate(secret: Mapping[str, bytes]) -> Json | None:
    chain = secret.get("cert") or secret.get("tls.crt") or b""
    key = secret.get("key") or secret.get("tls.key") or b""
    if not are_pair(chain, key):
        return None
    pair = {"certificate_chain": _inline(chain), "private_key": _inline(key)}
    return {"tls_certificate": pair}


def _authority(secret: Mapping[str, bytes]) -> Json | None:
    found = secret.get("cacert") or secret.get("ca.crt")
    if not found or not _is_certificate(found):
        return None
    return {"validation_context": {"trusted_ca": _inline(found)}}


def _inline(text: bytes) -> Json:
    return {"inline_bytes": base64.b64encode(text).decode()}


def _version(name: str | None) -> str | None:
    """Returns a TLS version in Envoy's spelling; None for the one that Envoy chooses."""
    return None if name in (None, "TLS_AUTO") else str(name).replace("TLSV", "TLSv")


def _is_certificate(text: bytes) -> bool:
    from cryptography import x509

    try:
        return bool(x509.load_pem_x509_certificates(text))
    except ValueError:
        return False


@functools.lru_cache(maxsize=32)
def are_pair(chain: bytes, key: bytes) -> bool:
    """Returns whether a certificate and a private key, both PEM, belong together."""
    from cryptography import x509
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives import serialization

    try:
        public = x509.load_pem_x509_certificates(chain)[0].public_key()
        own = serialization.load_pem_private_key(key, None).public_key()
    except (ValueError, TypeError, UnsupportedAlgorithm):
        return False
    form = (serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    return public.public_bytes(*form) == own.public_bytes(*form)


def tcp_rule(view: View, bound: BoundServer) -> Rule | None:
    """Returns the rule for the connections of a server that speaks no HTTP: the first that fits."""
    fits = functools.partial(connections.at, bound.gateway, bound.server.port.number)
    return next(connections.tcp(_bound_to(view, bound), fits), None)


def tls_rules(view: View, bound: BoundServer, taken: dict[int, set[str]]) -> Iterator[Rule]:
    """Yields the rules for the server names of a server that passes TLS through.

    `taken` are the names by port that earlier rules have; a rule that has one of them is left out.
    """
    fits = functools.partial(connections.at, bound.gateway, bound.server.port.number)
    for rule in connections.tls(_bound_to(view, bound), fits):
        if _added(rule.server_names, taken, bound.target):
            yield rule


def _bound_to(view: View, bound: BoundServer) -> Iterator[Resource]:
    """Yields the VirtualServices of a gateway with a host that the server has."""
    for resource in view.virtual_services:
        if not virtual_service.applies(resource, bound.gateway):
            continue
        for scoped in bound.scoped_hosts:
            namespace, slash, pattern = scoped.rpartition("/")
            own = virtual_service.hosts(resource)
            if (not slash or namespace == resource.namespace) and any(
                names.matches(pattern, host) for host in own
            ):
                yield resource
                break


def common_hosts(bound: BoundServer, resource: Resource) -> Iterator[str]:
    """Yields the hosts of both a server and a VirtualService.

    Of a host and a wildcard that covers it, this is the more specific.
    """
    own = virtual_service.hosts(resource)
    agreed: dict[str, None] = {}
    for entry in bound.server.hosts:
        namespace, slash, pattern = entry.rpartition("/")
        wanted = bound.resource.namespace if namespace == "." else namespace
        if slash and wanted not in ("*", resource.namespace):
            continue
        for host in own:
            if names.matches(pattern, host):
                agreed[host] = None
            elif names.matches(host, pattern):
                agreed[pattern] = None
    yield from agreed
