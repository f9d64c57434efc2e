"""Checks of a Sidecar: istiod's validation beyond the schema, and the lab's limits."""

from __future__ import annotations

import functools
from collections.abc import Iterator

from lab.kinds.destination_rule.checks import CONNECTION_POOL
from lab.kinds.gateway.checks import missing_certificates, tls_options
from lab.kinds.selection import selector
from lab.kinds.sidecar.types import (
    IstioEgressListener,
    IstioIngressListener,
    OutboundTrafficPolicy,
    Sidecar,
)
from lab.model import PROTOCOLS
from lab.resources.checks import warned
from lab.resources.istio import kind
from lab.resources.resource import Check, Problem, Resource
from lab.resources.values import (
    duplicates,
    host_problem,
    is_dns_label,
    is_ip,
    listed_host_problems,
    port_problem,
    subset_problem,
)

UNIX = "unix://"
"""The beginning of the name of a Unix socket."""
_UNIQUE = "sidecar: ports on IP bound listeners must be unique"


def _hosts(sidecar: Resource) -> Iterator[Problem]:
    for index, listener in enumerate(sidecar.spec.egress):
        seen: dict[str, set[str]] = {}
        for position, host in enumerate(listener.hosts):
            namespace, slash, name = host.partition("/")
            if not slash or namespace.startswith("~"):
                continue
            names = seen.setdefault(sidecar.namespace if namespace == "." else namespace, set())
            if names if name == "*" else names & {name, "*"}:
                where = ("spec", "egress", index, "hosts", position)
                yield Problem(where, f"duplicated egress host: {host}", "warning")
            names.add(name)
        if "*" in seen.get("*", ()) and len(seen) > 1:
            reason = "`*/*` host select all resources, no other hosts can be added"
            yield Problem(("spec", "egress", index, "hosts"), reason, "warning")


def _protocol(protocol: str) -> str | None:
    known = not protocol or protocol.upper() in (*PROTOCOLS, "UDP")
    return None if known else f"unsupported protocol: {protocol}"


def _socket_problem(path: str) -> str | None:
    if not path:
        return "unix address must not be empty"
    if path.startswith("@") or (path.startswith("/") and not path.endswith("/")):
        return None
    return f"{path} is not an absolute path to a file"


def _egress(listeners: list[IstioEgressListener]) -> Iterator[Problem]:
    for index, listener in enumerate(listeners):
        where, bind = (index, "bind"), listener.bind
        if listener.port is None:
            if listener is not listeners[-1]:
                reason = "the egress listener with empty port should be the last listener in the "
                yield Problem((index,), f"sidecar: {reason}list")
        elif listener.port.number:
            if bind and not is_ip(bind):
                yield Problem(where, f"{bind} is not a valid IP")
        elif not bind.startswith(UNIX):
            reason = "ports with 0 value must have a unix domain socket bind address"
            yield Problem(where, f"sidecar: {reason}")
        elif problem := _socket_problem(bind.removeprefix(UNIX)):
            yield Problem(where, problem)
        elif listener.capture_mode == "IPTABLES":
            reason = "captureMode must be DEFAULT/NONE for unix domain socket listeners"
            yield Problem((index, "captureMode"), f"sidecar: {reason}")
    places = [(one.port.number, one.bind) for one in listeners if one.port is not None]
    if any(duplicates(number for number, _ in places if number)):
        yield Problem((), _UNIQUE)
    if any(duplicates(bind for number, bind in places if not number)):
        yield Problem((), "sidecar: unix domain socket values for listeners must be unique")


def _endpoint(endpoint: str) -> str | None:
    if not endpoint:
        return None
    if endpoint.startswith(UNIX):
        return _socket_problem(endpoint.removeprefix(UNIX))
    host, colon, port = endpoint.rpartition(":")
    if not colon:
        return f"address {endpoint}: missing port in address"
    if host not in ("", "127.0.0.1", "0.0.0.0", "[::1]", "[::]"):
        return (
            "sidecar: defaultEndpoint must be of form 127.0.0.1:<port>,0.0.0.0:<port>,[::1]:port,"
            "[::]:port,unix://filepath or unset"
        )
    if not port.isdecimal():
        return f"sidecar: defaultEndpoint port ({port}) is not a number"
    return port_problem(int(port))


def _ingress(listener: IstioIngressListener) -> Iterator[Problem]:
    given, pool, tls = listener.port, listener.connection_pool, listener.tls
    protocol = given.protocol.upper()
    http = pool is not None and "http" in pool.model_fields_set
    if http and not protocol.startswith(("HTTP", "GRPC")):
        yield Problem(
            ("connectionPool", "http"),
            f"sidecar: HTTP connection pool settings are configured for port {given.number} "
            f'("{given.name}") but its protocol is not HTTP ({given.protocol}); only TCP settings '
            "will apply",
            "warning",
        )
    if tls is None:
        return
    unsupported = {
        "subjectAltNames is not supported in ingress tls": tls.subject_alt_names,
        "httpsRedirect is not supported": tls.https_redirect,
        "credentialName is not currently supported": tls.credential_name,
        "credentialNames is not currently supported": tls.credential_names,
        "tls_certificates is not currently supported": tls.tls_certificates,
    }
    for reason, value in unsupported.items():
        if value:
            yield Problem(("tls",), f"sidecar: {reason}")
    if tls.mode in ("ISTIO_MUTUAL", "AUTO_PASSTHROUGH"):
        reason = f"configuration is invalid: cannot set mode to {tls.mode} in sidecar ingress tls"
        yield Problem(("tls", "mode"), reason)
    elif tls.mode not in (None, "PASSTHROUGH"):
        for reason in missing_certificates(tls):
            yield Problem(("tls",), reason)
    if protocol not in ("HTTPS", "TLS"):
        yield Problem(("tls",), "server cannot have TLS settings for non HTTPS/TLS ports")
    yield from tls_options(tls)


def _egress_proxy(policy: OutboundTrafficPolicy) -> Iterator[Problem]:
    proxy = policy.egress_proxy
    if proxy is None:
        return
    if policy.mode != "ALLOW_ANY":
        reason = "egress_proxy must be set only with ALLOW_ANY outbound_traffic_policy mode"
        yield Problem(("egressProxy",), f"sidecar: {reason}")
    elif proxy.port is None:
        yield Problem(("egressProxy",), "sidecar: egress_proxy port must be non-nil")
    elif problem := host_problem(proxy.host, wildcard=False):
        yield Problem(("egressProxy", "host"), problem)


CHECKS = (
    Check(
        "spec",
        lambda spec: (
            bool(spec.egress or spec.ingress or spec.inbound_connection_pool)
            or spec.outbound_traffic_policy is not None
        ),
        "sidecar: empty configuration provided",
    ),
    *selector(
        "spec.workloadSelector",
        "sidecar: workload selector specified without labels, will be applied to all services in "
        "namespace",
    ),
    *CONNECTION_POOL,
    warned(
        "spec.inboundConnectionPool.http.h2UpgradePolicy",
        "the lab remarks: a client's connections are upgraded, not a server's, so it has no effect",
    ),
    warned(
        "spec.ingress[].tls",
        "the lab remarks: Istio makes nothing of it, unless istiod runs with "
        "ENABLE_TLS_ON_SIDECAR_INGRESS",
    ),
    Check(
        "spec.ingress[]|egress[].port.targetPort",
        lambda port: not port,
        "targetPort has no impact on Sidecars",
        reason="Istio refuses it: targetPort has no impact on Sidecars",
    ),
    Check("spec.ingress[].port.number", port_problem),
    Check("spec.egress[].port.number", lambda number: not number or port_problem(number)),
    Check(
        "**.port.name",
        lambda name: not name or is_dns_label(name),
        "invalid port name: {value}",
    ),
    Check("**.port.protocol", _protocol),
    Check("spec.ingress[].bind", lambda bind: not bind or is_ip(bind), "{value} is not a valid IP"),
    Check("spec.ingress[].defaultEndpoint", _endpoint),
    Check("spec.ingress[]", _ingress),
    Check(
        "spec.ingress",
        lambda listeners: not any(duplicates(one.port.number for one in listeners)),
        _UNIQUE,
    ),
    Check("spec.egress", _egress),
    Check("spec.egress[].hosts", bool, "sidecar: egress listener must contain at least one host"),
    Check("spec.egress[].hosts[]", functools.partial(listed_host_problems, gateway=False)),
    Check("", _hosts),
    Check("spec.outboundTrafficPolicy", _egress_proxy),
    Check("**.egressProxy.port.number", port_problem),
    Check("**.egressProxy.subset", subset_problem),
)

KINDS = (kind("Sidecar", Sidecar, CHECKS),)
