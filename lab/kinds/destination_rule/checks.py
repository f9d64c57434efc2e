"""Checks of a DestinationRule: istiod's validation beyond the schema, and the lab's limits."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from lab.kinds.destination_rule.types import (
    ClientTLSSettings,
    ConsistentHash,
    DestinationRule,
    Failover,
    LocalityLbSetting,
    Maglev,
    PortTrafficPolicy,
    TrafficPolicy,
    Tunnel,
    ZoneAwareLbSetting,
)
from lab.kinds.selection import selector
from lab.kinds.services import TOPOLOGY
from lab.resources.checks import newer, warned
from lab.resources.istio import kind
from lab.resources.resource import Check, Path, Problem, Resource
from lab.resources.values import (
    duplicates,
    export_to,
    host_problem,
    idle_timeout_problem,
    is_ip,
    port_problem,
    subset_problem,
    tag_problems,
    within,
)

_RING_LIMIT = 8 * 1024 * 1024


def _subset_names(subsets: list[Any]) -> Iterator[Problem]:
    for index, name in duplicates(subset.name for subset in subsets):
        yield Problem((index, "name"), f"duplicate subset names: {name}")


def _table_size(maglev: Maglev) -> Iterator[Problem]:
    size = maglev.table_size
    if not size:
        yield Problem((), "tableSize must be set for maglev")
    elif size >= 5000011:
        yield Problem(("tableSize",), "tableSize must be less than 5000011 for maglev")
    elif size < 1 or not all(size % divisor for divisor in range(2, int(size**0.5) + 1)):
        yield Problem(("tableSize",), "tableSize must be a prime number for maglev")


def _hashing(hashing: ConsistentHash) -> Iterator[Problem]:
    attributes = hashing.http_cookie.attributes if hashing.http_cookie else []
    for index, name in duplicates(attribute.name for attribute in attributes):
        where = ("httpCookie", "attributes", index, "name")
        yield Problem(where, f"duplicate cookie attribute name: {name}")
    if hashing.minimum_ring_size and (hashing.ring_hash or hashing.maglev):
        yield Problem((), "only one of MinimumRingSize or Maglev/Ringhash can be specified")
    ring = hashing.ring_hash.minimum_ring_size if hashing.ring_hash else 0
    if max(ring, hashing.minimum_ring_size or 0) > _RING_LIMIT:
        yield Problem(("ringHash",), f"the lab refuses it: Envoy takes at most {_RING_LIMIT}")


def secret_of(tls: ClientTLSSettings | None) -> str | None:
    """Returns the `credentialName` of TLS settings, which other modes than these pass over."""
    return tls.credential_name if tls and tls.mode in ("SIMPLE", "MUTUAL") else None


def _certificates(tls: ClientTLSSettings) -> Iterator[Problem]:
    """Checks which certificates a mode needs, and which exclude each other."""
    named = secret_of(tls)
    if tls.insecure_skip_verify and tls.mode in ("SIMPLE", "MUTUAL"):
        also = " or CredentialName" if tls.mode == "SIMPLE" else ""
        if tls.ca_certificates or tls.subject_alt_names or (also and named):
            reason = f"cannot specify CaCertificates{also} or SubjectAltNames when "
            yield Problem((), f"{reason}InsecureSkipVerify is set true")
    files = (tls.client_certificate, tls.private_key)
    if named and any((*files, tls.ca_certificates, tls.ca_crl)):
        reason = "cannot specify client certificates or CA certificate or CA CRL If "
        yield Problem((), f"{reason}credentialName is set")
    for what, value in zip(("client certificate", "private key"), files, strict=True):
        if tls.mode == "MUTUAL" and not named and not value:
            yield Problem((), f"{what} required for mutual tls")


def _credentials(rule: Resource) -> Iterator[Problem]:
    """Checks the Secrets of TLS settings, which istiod serves to few sidecars."""
    policies = [rule.spec.traffic_policy, *(one.traffic_policy for one in rule.spec.subsets)]
    for policy in filter(None, policies):
        for one in (policy, *policy.port_level_settings):
            name = secret_of(one.tls)
            if name and name.startswith("configmap://"):
                reason = "not supported by the lab: a ConfigMap with certificates; use a Secret"
                yield Problem(("spec",), f"credentialName {name}: {reason}")
            elif name and rule.spec.workload_selector is None:
                reason = (
                    f"the lab remarks: credentialName {name} holds at gateways; sidecars speak "
                    "plain text, as the rule has no workloadSelector"
                )
                yield Problem(("spec",), reason, "warning")


def _tunnel(tunnel: Tunnel) -> Iterator[Problem]:
    host = tunnel.target_host
    if tunnel.protocol not in (None, "", "CONNECT", "POST"):
        yield Problem(("protocol",), 'tunnel protocol must be "CONNECT" or "POST"')
    if not is_ip(host) and (problem := host_problem(host, wildcard=False)):
        reason = f"tunnel target host must be valid FQDN or IP address: {problem}; "
        yield Problem(("targetHost",), f"{reason}{host} is not a valid IP")
    if problem := port_problem(tunnel.target_port):
        yield Problem(("targetPort",), f"tunnel target port is invalid: {problem}")


def _locality(setting: LocalityLbSetting) -> Iterator[Problem]:
    if setting.distribute and setting.failover:
        yield Problem((), "can not simultaneously specify 'distribute' and 'failover'")
        return
    topology = [name for name in setting.failover_priority if name in TOPOLOGY]
    if setting.failover and topology:
        what = f"'failover' and topology label '{topology[0]}' in 'failover_priority'"
        yield Problem((), f"can not simultaneously set {what}")
        return
    for index, rule in enumerate(setting.distribute):
        shares = rule.to.values()
        if not all(1 <= share <= 100 for share in shares):
            yield Problem(("distribute", index, "to"), "locality weight must be in range [1, 100]")
            return
        if sum(shares) != 100:
            reason = f"total locality weight {sum(shares)} != 100"
            yield Problem(("distribute", index, "to"), reason)
            return
        yield from _places(("distribute", index, "to"), rule.to)
    yield from _places(("distribute",), [rule.from_ for rule in setting.distribute])
    yield from _failover(setting.failover, "locality lb failover", "only specify region")


def _zones(setting: ZoneAwareLbSetting) -> Iterator[Problem]:
    for name in setting.failover_priority:
        if name in TOPOLOGY:
            reason = (
                f"'failover_priority' for zone aware lb must not use topology label '{name}'; "
                "region- and zone-level routing are handled automatically"
            )
            yield Problem(("failoverPriority",), reason)
    slash = "only specifies region; zone and subzone failover are handled automatically"
    yield from _failover(setting.failover, "zone aware lb failover", slash)


def _failover(rules: list[Failover], what: str, slash: str) -> Iterator[Problem]:
    for index, rule in enumerate(rules):
        text = rule.from_ + rule.to
        if rule.from_ == rule.to:
            yield Problem(("failover", index), f"{what} settings must specify different regions")
        if "/" in text:
            yield Problem(("failover", index), f"{what} {slash}")
        if "*" in text:
            reason = f"{what} region should not contain '*' wildcard"
            yield Problem(("failover", index), reason)


def _places(path: Path, places: Iterable[str]) -> Iterator[Problem]:
    """Checks localities, of which none may be within another."""
    known: list[tuple[str, ...]] = []
    for place in places:
        parts = tuple(place.split("/", 2))
        if "*" in place[:-1]:
            reason = f"locality {place} wildcard '*' number can not exceed 1 and must be in the end"
            yield Problem(path, reason)
        elif "" in parts:
            reason = f"locality {place} must not contain empty region/zone/subzone info"
            yield Problem(path, reason)
        elif any(one[: len(parts)] == parts[: len(one)] for one in known):
            yield Problem(path, f"locality {place} overlap with previous specified ones")
        else:
            known.append(parts if parts[-1] != "*" else parts[:-1])
            continue
        return


def _failover_needs(policy: TrafficPolicy | PortTrafficPolicy) -> Iterator[Problem]:
    balancer = policy.load_balancer
    found = [balancer.locality_lb_setting, balancer.zone_aware_lb_setting] if balancer else []
    if policy.outlier_detection is None and any(
        one is not None and (one.failover or one.failover_priority) for one in found
    ):
        reason = "outlier detection policy must be provided for failover"
        yield Problem(("loadBalancer",), reason, "warning")


def _export_to(resource: Resource) -> Iterator[Problem]:
    yield from export_to(resource)
    names = resource.spec.export_to
    if resource.spec.workload_selector is None or not names:
        return
    own = {resource.namespace if name == "." else name for name in names}
    if resource.namespace not in own:
        reason = "cannot have exportTo beyond current namespace"
    elif len(own) > 1:
        reason = "cannot have multiple entries in exportTo"
    else:
        return
    path = ("spec", "exportTo")
    yield Problem(path, f"destination rule with workload selector {reason}")


_CONSECUTIVE_ERRORS = (
    "outlier detection consecutive errors is deprecated, use consecutiveGatewayErrors or "
    "consecutive5xxErrors instead (the lab says so everywhere, Istio only outside of subsets: it "
    "is ignored)"
)

CONNECTION_POOL = (
    Check(
        "**.connectionPool|inboundConnectionPool",
        lambda pool: bool(pool.model_fields_set),
        "connection pool must have at least one field",
    ),
    *(
        Check(f"**.{field}", lambda number: number >= 0, f"{words} must be non-negative")
        for field, words in {
            "http.http1MaxPendingRequests": "http1 max pending requests",
            "http.http2MaxRequests": "http2 max requests",
            "http.maxRequestsPerConnection": "max requests per connection",
            "http.maxRetries": "max retries",
            "http.maxConcurrentStreams": "max concurrent streams",
            "tcp.maxConnections": "max connections",
        }.items()
    ),
    Check(
        "**.connectionPool|inboundConnectionPool.http",
        lambda http: not (http.h2_upgrade_policy == "UPGRADE" and http.use_client_protocol),
        "use client protocol must not be true when H2UpgradePolicy is UPGRADE",
    ),
    Check(
        "**.http2KeepAlive",
        lambda keepalive: keepalive.interval is not None,
        "http2 keepalive interval is required",
    ),
    Check(
        "**.http2KeepAlive",
        lambda keepalive: keepalive.timeout is not None,
        "http2 keepalive timeout is required",
    ),
    Check("**.tcp.idleTimeout", idle_timeout_problem),
)
"""Also of Sidecar's inboundConnectionPool and of the mesh's default."""

OUTLIER_DETECTION = (
    Check(
        "**.outlierDetection.consecutiveErrors",
        lambda count: count == 0,
        _CONSECUTIVE_ERRORS,
        "warning",
        _CONSECUTIVE_ERRORS,
    ),
    warned(
        "**.outlierDetection.outlierDetectionHttpErrorCodes",
        "the lab remarks: Istio 1.31 makes nothing of it; 5xx are the errors",
    ),
    Check(
        "**.outlierDetection.maxEjectionPercent|minHealthPercent",
        within(0, 100),
        "percentage {value} is not in range 0..100",
    ),
    Check(
        "**.outlierDetection",
        lambda outlier: (
            not outlier.consecutive_local_origin_failures
            or outlier.split_external_local_origin_errors
        ),
        "outlier detection consecutive local origin failures is specified, "
        "but split external local origin errors is set to false",
    ),
)
"""Also of the mesh's default."""

LOCALITY = (
    Check("**.localityLbSetting", _locality),
    Check("**.zoneAwareLbSetting", _zones),
)
"""Also of the mesh."""

CHECKS = (
    # What the lab leaves out, and what Istio has deprecated.
    newer("**.loadBalancer.backendUtilization", "1.32"),
    Check(
        "spec.trafficPolicy.loadBalancer.consistentHash.minimumRingSize",
        lambda size: size == 0,
        "consistent hash MinimumRingSize is deprecated, use ConsistentHashLB's RingHash "
        "configuration instead",
        "warning",
    ),
    # The rule and its subsets.
    Check("spec.host", host_problem),
    Check("", _export_to),
    *selector("spec.workloadSelector"),
    Check("spec.subsets[].name", subset_problem),
    Check("spec.subsets[].labels", tag_problems),
    Check("spec.subsets", _subset_names),
    Check(
        "spec.subsets[]",
        lambda subset: bool(subset.labels),
        "the lab remarks: subset {value.name} has no labels, so it is every endpoint",
        "warning",
    ),
    Check(
        "**.trafficPolicy",
        lambda policy: policy != type(policy)(),
        "traffic policy must have at least one field",
    ),
    Check(
        "**.portLevelSettings[]",
        lambda settings: settings.port is not None,
        "portTrafficPolicy must have valid port",
    ),
    Check(
        "**.portLevelSettings[]",
        lambda settings: (
            any((settings.outlier_detection, settings.connection_pool, settings.load_balancer))
            or settings.tls is not None
        ),
        "port traffic policy must have at least one field",
    ),
    *CONNECTION_POOL,
    *OUTLIER_DETECTION,
    # Load balancing.
    Check(
        "**.loadBalancer",
        lambda balancer: not (balancer.locality_lb_setting and balancer.zone_aware_lb_setting),
        "only one of localityLbSetting and zoneAwareLbSetting can be set",
    ),
    *LOCALITY,
    Check("**.trafficPolicy", _failover_needs),
    Check("**.portLevelSettings[]", _failover_needs),
    Check("**.warmup.aggression", lambda value: value > 0, "aggression should be greater than 0"),
    Check("**.consistentHash.httpCookie.name", bool, "name required for HttpCookie"),
    Check("**.attributes[].name", bool, "cookie attribute name cannot be empty"),
    Check("**.consistentHash.maglev", _table_size),
    Check("**.consistentHash", _hashing),
    Check(
        "**.trafficPolicy",
        lambda policy: not (policy.tunnel and policy.proxy_protocol),
        "tunnel and proxyProtocol must not be set together",
    ),
    Check("**.trafficPolicy.tunnel", _tunnel),
    # TLS to the upstream.
    Check("", _credentials),
    Check("**.tls", _certificates),
)

KINDS = (kind("DestinationRule", DestinationRule, CHECKS),)
