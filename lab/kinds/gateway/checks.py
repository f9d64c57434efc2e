"""Gateway: the typed body and what istiod's validation says about it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

from pydantic import Field

from lab.resources.istio import (
    NETWORKING_VERSIONS,
    IstioModel,
    Port,
    Text,
    field_problems,
    host_problem,
    is_dns_label,
    port_problem,
    refused,
)
from lab.resources.resource import Kind, Path, Problem, Resource

_HTTP = ("HTTP", "HTTP2", "GRPC", "GRPC-WEB")
_PROTOCOLS = (*_HTTP, "HTTPS", "TLS", "TCP", "MONGO")


class GatewayPort(IstioModel):
    number: Port
    protocol: Text
    name: Text
    target_port: Port | None = refused("Istio ignores targetPort in a Gateway")


class ServerTLSSettings(IstioModel):
    https_redirect: bool = False
    mode: (
        Literal[
            "PASSTHROUGH", "SIMPLE", "MUTUAL", "AUTO_PASSTHROUGH", "ISTIO_MUTUAL", "OPTIONAL_MUTUAL"
        ]
        | None
    ) = None
    credential_name: Text | None = None
    credential_names: list[Text] | None = refused("one credentialName a server")
    server_certificate: Text | None = refused("files in the proxy's image; use credentialName")
    private_key: Text | None = refused("files in the proxy's image; use credentialName")
    ca_certificates: Text | None = refused("files in the proxy's image; use credentialName")
    ca_crl: Text | None = refused("revocation lists")
    ca_cert_credential_name: Text | None = refused("client certificates at the gateway")
    tls_certificates: list[object] | None = refused("one credentialName a server")
    subject_alt_names: list[Text] | None = refused("client certificates at the gateway")
    verify_certificate_spki: list[Text] | None = refused("client certificates at the gateway")
    verify_certificate_hash: list[Text] | None = refused("client certificates at the gateway")
    min_protocol_version: Literal["TLS_AUTO", "TLSV1_0", "TLSV1_1", "TLSV1_2", "TLSV1_3"] | None = (
        None
    )
    max_protocol_version: Literal["TLS_AUTO", "TLSV1_0", "TLSV1_1", "TLSV1_2", "TLSV1_3"] | None = (
        None
    )
    cipher_suites: list[Text] | None = refused("the choice of cipher suites")


class Server(IstioModel):
    port: GatewayPort
    hosts: list[Text]
    name: Text | None = None
    tls: ServerTLSSettings | None = None
    bind: Text | None = refused("the gateway's addresses are the lab's to choose")
    default_endpoint: Text | None = refused("Istio does not implement it for gateways")


class GatewaySpec(IstioModel):
    selector: dict[str, str] = Field(default_factory=dict)
    servers: list[Server] = Field(default_factory=list)


class Gateway(IstioModel):
    spec: GatewaySpec


def validate(resource: Resource) -> Iterator[Problem]:
    """What istiod's webhook says of a Gateway, and what the lab does not translate."""
    spec: GatewaySpec = resource.spec
    path: Path = ("spec",)
    yield from field_problems(spec, path)
    if not spec.servers:
        yield Problem(path, "gateway must have at least one server")
    names: set[str] = set()
    for index, server in enumerate(spec.servers):
        where: Path = (*path, "servers", index)
        yield from _server(server, where)
        if server.port.name in names:
            yield Problem(
                (*where, "port", "name"),
                f'port names in servers must be unique: duplicate name "{server.port.name}"',
            )
        names.add(server.port.name)


def _server(server: Server, path: Path) -> Iterator[Problem]:
    if not server.hosts:
        yield Problem((*path, "hosts"), "server config must contain at least one host")
    for index, host in enumerate(server.hosts):
        yield from _host(host, (*path, "hosts", index))
    if problem := port_problem(server.port.number):
        yield Problem((*path, "port", "number"), problem)
    if not server.port.name:
        yield Problem((*path, "port", "name"), "port name must be set")
    protocol = server.port.protocol.upper()
    where: Path = (*path, "port", "protocol")
    if protocol not in _PROTOCOLS:
        yield Problem(where, f'invalid protocol "{server.port.protocol}"')
    elif protocol not in (*_HTTP, "HTTPS"):
        yield Problem(
            where, f"not supported by the lab: {protocol} servers; HTTP and HTTPS servers are"
        )
    yield from _tls(server, protocol, path)


def _host(host: str, path: Path) -> Iterator[Problem]:
    namespace, slash, name = host.rpartition("/")
    if slash and namespace not in ("*", ".") and not is_dns_label(namespace):
        yield Problem(path, f'invalid namespace "{namespace}" in host "{host}"')
    if slash and not name:
        yield Problem(path, f'short names (non FQDN) are not allowed: "{host}"')
    elif name != "*" and (problem := host_problem(name)):
        yield Problem(path, problem)


def _tls(server: Server, protocol: str, path: Path) -> Iterator[Problem]:
    tls = server.tls
    where: Path = (*path, "tls")
    if protocol in ("HTTPS", "TLS"):
        if tls is None:
            yield Problem(path, "server must have TLS settings for HTTPS/TLS protocols")
            return
        if tls.https_redirect:
            yield Problem(where, "tls.httpsRedirect should only be used with http servers")
        if tls.mode == "SIMPLE":
            if not tls.credential_name and not tls.server_certificate:
                yield Problem(where, "SIMPLE TLS requires a server certificate: set credentialName")
        else:
            given = tls.mode or "PASSTHROUGH, which no mode means"
            yield Problem(
                (*where, "mode"), f"not supported by the lab: {given}; SIMPLE servers are"
            )
    elif tls is not None and (tls.mode is not None or tls.credential_name):
        yield Problem(where, "server cannot have TLS settings for non HTTPS/TLS ports")


KINDS: tuple[Kind, ...] = (
    Kind(
        group="networking.istio.io",
        kind="Gateway",
        plural="gateways",
        versions=NETWORKING_VERSIONS,
        body=Gateway,
        short_names=("gw",),
        validate=validate,
    ),
)
