"""Checks of a DestinationRule: istiod's validation beyond the schema, and the lab's limits."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from lab.kinds.destination_rule.types import ConsistentHash, kind
from lab.resources.checks import exactly_one, newer, refused, warned
from lab.resources.resource import Check, Problem
from lab.resources.values import (
    duplicates,
    export_to,
    host_problem,
    is_dns_label,
    port_problem,
    within,
)

ONE_LOCALITY = "the lab is one locality"
_RING_LIMIT = 8 * 1024 * 1024


def _subset_names(subsets: list[Any]) -> Iterator[Problem]:
    for index, name in duplicates(subset.name for subset in subsets):
        yield Problem((index, "name"), f"duplicate subset names: {name}")


def _table_size(size: int) -> str | None:
    if size and (size < 2 or not all(size % divisor for divisor in range(2, int(size**0.5) + 1))):
        return f"{size} is no prime number"
    return "must be less than 5000011" if size >= 5000011 else None


def _ring_size(hashing: ConsistentHash) -> Iterator[Problem]:
    ring = hashing.ring_hash.minimum_ring_size if hashing.ring_hash else 0
    if max(ring, hashing.minimum_ring_size or 0) > _RING_LIMIT:
        yield Problem(("ringHash",), f"Envoy takes at most {_RING_LIMIT}")


def _certificates(tls: Any) -> Iterator[Problem]:
    """Checks which certificates a mode needs, and which it leaves unread."""
    client = {"clientCertificate": tls.client_certificate, "privateKey": tls.private_key}
    for field, value in {**client, "caCertificates": tls.ca_certificates}.items():
        if tls.mode == "MUTUAL" and field in client and not value:
            yield Problem((), f"{field} required for mutual tls")
        elif tls.mode == "ISTIO_MUTUAL" and value:
            yield Problem((field,), f"{field} must be empty for ISTIO_MUTUAL mode")
        elif tls.mode in ("DISABLE", "SIMPLE") and field in client and value:
            text = f"{field} has no effect with mode {tls.mode}"
            yield Problem((field,), text, "warning")


CONNECTION_POOL = (
    Check(
        "**.connectionPool|inboundConnectionPool",
        lambda pool: pool.tcp is not None or pool.http is not None,
        "connection pool must have at least one field",
    ),
    Check(
        "**.http.http1MaxPendingRequests|http2MaxRequests|maxRequestsPerConnection|maxRetries"
        "|maxConcurrentStreams",
        lambda number: number >= 0,
        "{field} must be non-negative",
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
    Check(
        "**.tcp.maxConnections",
        lambda number: number >= 0,
        "max connections must be non-negative",
    ),
)
"""Also of Sidecar's inboundConnectionPool and of the mesh's default."""

OUTLIER_DETECTION = (
    warned(
        "**.outlierDetection.consecutiveErrors",
        "outlier detection consecutive errors is deprecated and ignored; use "
        "consecutiveGatewayErrors or consecutive5xxErrors instead (Envoy's default, 5 in a row, "
        "applies)",
    ),
    warned(
        "**.outlierDetection.outlierDetectionHttpErrorCodes",
        "Istio 1.31 accepts this and makes nothing of it; 5xx are the errors",
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

CHECKS = (
    # What the lab leaves out, and what Istio has deprecated.
    refused("**.localityLbSetting.distribute|failover|failoverPriority", ONE_LOCALITY),
    refused("**.zoneAwareLbSetting.failover|failoverPriority", ONE_LOCALITY),
    newer("**.loadBalancer.backendUtilization", "1.32"),
    refused(
        "**.tls.credentialName",
        "Secrets for clients; Istio ignores it on sidecars without a workloadSelector",
    ),
    refused("**.tls.caCrl", "revocation lists"),
    refused("**.trafficPolicy.tunnel", "tunnelling through an HTTP proxy"),
    refused("**.trafficPolicy.proxyProtocol", "the PROXY protocol to upstreams"),
    warned(
        "**.consistentHash.minimumRingSize",
        "minimumRingSize is deprecated; use ringHash.minimumRingSize",
    ),
    warned("**.warmupDurationSecs", "warmupDurationSecs is deprecated; use warmup.duration"),
    # The rule and its subsets.
    Check("spec.host", bool, "host is required"),
    Check("spec.host", lambda host: None if host in ("", "*") else host_problem(host)),
    Check("spec.exportTo", export_to),
    Check("spec.subsets[].name", is_dns_label, "subset name is invalid: {value}"),
    Check("spec.subsets", _subset_names),
    Check(
        "spec.subsets[]",
        lambda subset: bool(subset.labels),
        "subset {value.name} has no labels: it is every endpoint",
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
        "portLevelSettings must have a port",
    ),
    Check("**.portLevelSettings[].port.number", port_problem),
    *CONNECTION_POOL,
    *OUTLIER_DETECTION,
    # Load balancing.
    Check(
        "**.loadBalancer.simple",
        lambda simple: simple != "PASSTHROUGH",
        "not supported by the lab: PASSTHROUGH needs the original destination of a redirected "
        "connection",
    ),
    Check(
        "**.loadBalancer.simple",
        lambda simple: simple != "LEAST_CONN",
        "LEAST_CONN is deprecated; use LEAST_REQUEST instead",
        "warning",
    ),
    Check(
        "**.localityLbSetting",
        lambda locality: locality.enabled is False,
        "not supported by the lab: it is one locality (enabled: false is accepted)",
    ),
    Check(
        "**.loadBalancer",
        lambda balancer: not (balancer.locality_lb_setting and balancer.zone_aware_lb_setting),
        "only one of localityLbSetting and zoneAwareLbSetting can be set",
    ),
    Check("**.warmup.aggression", lambda value: value > 0, "aggression should be greater than 0"),
    Check(
        "**.loadBalancer",
        lambda balancer: (
            not (balancer.warmup or balancer.warmup_duration_secs)
            or balancer.simple in (None, "UNSPECIFIED", "ROUND_ROBIN", "LEAST_REQUEST")
        ),
        "warmup is for ROUND_ROBIN and LEAST_REQUEST",
    ),
    Check(
        "**.loadBalancer",
        lambda balancer: (
            not (balancer.warmup or balancer.warmup_duration_secs)
            or balancer.consistent_hash is None
        ),
        "warmup is not for consistentHash",
    ),
    Check("**.consistentHash", exactly_one, "consistentHash needs exactly one hash key"),
    Check("**.consistentHash.httpCookie.name", bool, "name required for HttpCookie"),
    Check("**.consistentHash.maglev.tableSize", _table_size),
    Check("**.consistentHash", _ring_size),
    # TLS to the upstream.
    Check(
        "**.tls",
        lambda tls: (
            not (
                tls.insecure_skip_verify
                and tls.mode == "SIMPLE"
                and (tls.ca_certificates or tls.subject_alt_names)
            )
        ),
        "cannot specify CaCertificates or SubjectAltNames with InsecureSkipVerify",
    ),
    Check("**.tls", _certificates),
)

KINDS = (kind(CHECKS),)
