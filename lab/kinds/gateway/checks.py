"""Checks of a Gateway: istiod's validation beyond the schema, and the lab's limits."""

from __future__ import annotations

import functools
from collections.abc import Iterator

from lab.kinds.gateway.types import Gateway, Server, ServerTLSSettings
from lab.model import PROTOCOLS
from lab.resources.checks import newer, refused
from lab.resources.istio import kind
from lab.resources.resource import Check, Problem, Resource
from lab.resources.values import (
    duplicates,
    is_dns_label,
    listed_host_problems,
    port_problem,
)

PLAIN_HTTP = ("HTTP", "HTTP2", "HTTP_PROXY", "GRPC", "GRPC-WEB")
_FILES = "files in the proxy's image; use credentialName"


def _port_names(servers: list[Server]) -> Iterator[Problem]:
    for index, name in duplicates(server.port.name for server in servers):
        reason = f"port names in servers must be unique: duplicate name {name}"
        yield Problem((index, "port", "name"), reason)


def _protocol(given: str) -> str | None:
    protocol = given.upper()
    if protocol not in (*PROTOCOLS, "UDP"):
        known = "HTTP, HTTP2, GRPC, GRPC-WEB, MONGO, REDIS, MYSQL, TCP"
        return f'invalid protocol "{given}", supported protocols are {known}'
    if protocol == "UDP":
        return "not supported by the lab: UDP servers"
    return None


def _tls(server: Server) -> Iterator[Problem]:
    tls, protocol = server.tls, server.port.protocol.upper()
    if tls is None:
        if protocol in ("HTTPS", "TLS"):
            yield Problem((), "server must have TLS settings for HTTPS/TLS protocols")
        return
    passes = tls.mode in (None, "PASSTHROUGH", "AUTO_PASSTHROUGH")
    if protocol in (*PROTOCOLS, "UDP") and protocol not in ("HTTPS", "TLS"):
        if protocol not in PLAIN_HTTP:
            yield Problem(("tls",), "server cannot have TLS settings for non HTTPS/TLS ports")
        elif not passes or any((tls.ca_certificates, tls.private_key, tls.server_certificate)):
            yield Problem(("tls",), "server cannot have TLS settings for plain text HTTP ports")
    elif tls.mode == "AUTO_PASSTHROUGH":
        yield Problem(("tls", "mode"), f"not supported by the lab: {tls.mode} servers")
    elif tls.mode == "ISTIO_MUTUAL":
        named = {"credentialName": tls.credential_name, "credentialNames": tls.credential_names}
        for name in filter(named.get, named):
            yield Problem(("tls", name), f"ISTIO_MUTUAL TLS cannot have associated {name}")
    elif not passes and not tls.credential_name and not tls.credential_names:
        for missing in missing_certificates(tls):
            yield Problem(("tls",), f"{missing}: set credentialName")
    if tls.credential_name and tls.credential_names:
        yield Problem(
            ("tls",),
            "only one of credential_name, credential_names, server_certificate/private_key, "
            "tls_certificates should be specified",
        )
    if tls.insecure_skip_verify and tls.mode not in ("MUTUAL", "OPTIONAL_MUTUAL"):
        reason = "the lab remarks: Istio looks at it for client certificates alone"
        yield Problem(("tls", "insecureSkipVerify"), reason, "warning")
    yield from tls_options(tls)
    if tls.https_redirect and protocol not in PLAIN_HTTP:
        reason = "tls.httpsRedirect should only be used with http servers"
        yield Problem(("tls", "httpsRedirect"), reason, "warning")
    if passes and (tls.credential_name or tls.credential_names):
        reason = f"{tls.mode or 'PASSTHROUGH'} mode does not use certificates, they will be ignored"
        yield Problem(("tls", "credentialName"), reason, "warning")


def missing_certificates(tls: ServerTLSSettings) -> Iterator[str]:
    """Yields what a server that ends TLS lacks, as istiod says it."""
    kind = "SIMPLE TLS" if tls.mode == "SIMPLE" else "MUTUAL TLS"
    if kind == "MUTUAL TLS" and not tls.ca_certificates:
        yield f"{kind} requires a client CA bundle"
    if not tls.server_certificate and not tls.tls_certificates:
        yield f"{kind} requires a server certificate"
    if not tls.private_key and not tls.tls_certificates:
        yield f"{kind} requires a private key"


def tls_options(tls: ServerTLSSettings) -> Iterator[Problem]:
    """Yields istiod's warnings about cipher suites and versions."""
    suites = tls.cipher_suites
    unknown = sorted({suite for suite in suites if not valid_cipher_suite(suite)})
    if unknown:
        reason = f"ignoring invalid cipher suites: [{' '.join(unknown)}]"
        yield Problem(("tls", "cipherSuites"), reason, "warning")
    repeated = sorted({suite for _, suite in duplicates(suites)} - {*unknown})
    if repeated:
        reason = f"ignoring duplicate cipher suites: [{' '.join(repeated)}]"
        yield Problem(("tls", "cipherSuites"), reason, "warning")
    if tls.min_protocol_version in ("TLSV1_0", "TLSV1_1") and not tls.cipher_suites:
        yield Problem(
            ("tls", "minProtocolVersion"),
            "TLS version below TLSV1_2 require setting compatible ciphers as by default they no "
            "longer include compatible ciphers.",
            "warning",
        )


_CIPHER_SUITES = (
    "ECDHE-ECDSA-AES128-GCM-SHA256",
    "ECDHE-RSA-AES128-GCM-SHA256",
    "ECDHE-ECDSA-AES256-GCM-SHA384",
    "ECDHE-RSA-AES256-GCM-SHA384",
    "ECDHE-ECDSA-CHACHA20-POLY1305",
    "ECDHE-RSA-CHACHA20-POLY1305",
    "ECDHE-ECDSA-AES128-SHA",
    "ECDHE-RSA-AES128-SHA",
    "ECDHE-ECDSA-AES256-SHA",
    "ECDHE-RSA-AES256-SHA",
    "AES128-GCM-SHA256",
    "AES256-GCM-SHA384",
    "AES128-SHA",
    "AES256-SHA",
    "DES-CBC3-SHA",
)


def valid_cipher_suite(suite: str) -> bool:
    """Returns whether istiod sends a cipher suite to gateways; operators like `-ALL` it does."""
    return suite in (*_CIPHER_SUITES, "", "ALL") or not suite[0].isalnum()


def _name(gateway: Resource) -> Iterator[Problem]:
    if not is_dns_label(gateway.name):
        yield Problem(("metadata", "name"), f'invalid gateway name: "{gateway.name}"')


CHECKS = (
    refused("**.tls.serverCertificate|privateKey|caCertificates|tlsCertificates", _FILES),
    refused("**.tls.caCrl", "revocation lists"),
    refused("**.tls.caCertCredentialName", "a certificate authority in a Secret of its own"),
    newer("**.tls.ecdhCurves", "1.32"),
    refused("**.servers[].bind", "the gateway's addresses are the lab's to choose"),
    refused("**.servers[].defaultEndpoint", "Istio does not implement it for gateways"),
    Check("", _name),
    Check("spec", lambda spec: bool(spec.servers), "gateway must have at least one server"),
    Check("spec.servers[].hosts", bool, "server config must contain at least one host"),
    Check("spec.servers[].hosts[]", functools.partial(listed_host_problems, gateway=True)),
    Check("spec.servers[].port.number", port_problem),
    Check(
        "spec.servers[].port.targetPort",
        lambda port: not port,
        "targetPort has no impact on Gateways",
        reason="Istio refuses it: targetPort has no impact on Gateways",
    ),
    Check("spec.servers[].port.name", bool, "port name must be set"),
    Check("spec.servers[].port.protocol", _protocol),
    Check("spec.servers[]", _tls),
    Check("spec.servers", _port_names),
)

KINDS = (kind("Gateway", Gateway, CHECKS),)
