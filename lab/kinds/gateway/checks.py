"""Checks of a Gateway: istiod's validation beyond the schema, and the lab's limits."""

from __future__ import annotations

from collections.abc import Iterator

from lab.kinds.gateway.types import Server, kind
from lab.resources.checks import newer, refused, warned
from lab.resources.resource import Check, Problem
from lab.resources.values import (
    duplicates,
    is_dns_label,
    is_ip,
    listed_host_problems,
    port_problem,
)

_HTTP = ("HTTP", "HTTP2", "GRPC", "GRPC-WEB")
_PROTOCOLS = (*_HTTP, "HTTPS", "TLS", "TCP", "MONGO")
_FILES = "files in the proxy's image; use credentialName"


def _port_names(servers: list[Server]) -> Iterator[Problem]:
    for index, name in duplicates(server.port.name for server in servers):
        reason = f'port names in servers must be unique: duplicate name "{name}"'
        yield Problem((index, "port", "name"), reason)


def _protocol(given: str) -> str | None:
    protocol = given.upper()
    if protocol not in _PROTOCOLS:
        return f'invalid protocol "{given}"'
    if protocol not in (*_HTTP, "HTTPS"):
        return f"not supported by the lab: {protocol} servers; HTTP and HTTPS servers are"
    return None


def _host(host: str) -> Iterator[Problem]:
    namespace, slash, name = host.rpartition("/")
    if slash and namespace not in ("*", ".") and not is_dns_label(namespace):
        yield Problem((), f'invalid namespace "{namespace}" in host "{host}"')
    if not is_ip(name):
        yield from (Problem((), problem) for problem in listed_host_problems(name))


def _tls(server: Server) -> Iterator[Problem]:
    tls = server.tls
    if server.port.protocol.upper() not in ("HTTPS", "TLS"):
        if tls is not None and (tls.mode is not None or tls.credential_name):
            yield Problem(("tls",), "server cannot have TLS settings for non HTTPS/TLS ports")
        return
    if tls is None:
        yield Problem((), "server must have TLS settings for HTTPS/TLS protocols")
        return
    if tls.https_redirect:
        yield Problem(("tls",), "tls.httpsRedirect should only be used with http servers")
    if tls.mode != "SIMPLE":
        given = tls.mode or "PASSTHROUGH, which no mode means"
        yield Problem(("tls", "mode"), f"not supported by the lab: {given}; SIMPLE servers are")
    elif not tls.credential_name and not tls.server_certificate:
        yield Problem(("tls",), "SIMPLE TLS requires a server certificate: set credentialName")


CHECKS = (
    refused("**.port.targetPort", "Istio ignores targetPort in a Gateway"),
    refused("**.tls.credentialNames|tlsCertificates", "one credentialName a server"),
    refused("**.tls.serverCertificate|privateKey|caCertificates", _FILES),
    refused("**.tls.caCrl", "revocation lists"),
    refused(
        "**.tls.caCertCredentialName|subjectAltNames|verifyCertificateSpki|verifyCertificateHash",
        "client certificates at the gateway",
    ),
    newer("**.tls.ecdhCurves", "1.32"),
    warned("**.tls.insecureSkipVerify", "Istio looks at it for client certificates alone"),
    refused("**.tls.cipherSuites", "the choice of cipher suites"),
    refused("**.servers[].bind", "the gateway's addresses are the lab's to choose"),
    refused("**.servers[].defaultEndpoint", "Istio does not implement it for gateways"),
    Check("spec", lambda spec: bool(spec.servers), "gateway must have at least one server"),
    Check("spec.servers[].hosts", bool, "server config must contain at least one host"),
    Check("spec.servers[].hosts[]", _host),
    Check("spec.servers[].port.number", port_problem),
    Check("spec.servers[].port.name", bool, "port name must be set"),
    Check("spec.servers[].port.protocol", _protocol),
    Check("spec.servers[]", _tls),
    Check("spec.servers", _port_names),
)

KINDS = (kind(CHECKS),)
