"""Istio's annotations of Namespaces, Services, Pods and Deployments."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from lab.explain.analyze.finding import Finding
from lab.model import Snapshot
from lab.resources.resource import Source

_KINDS: Mapping[str, tuple[str, ...]] = {
    name: tuple(kinds.split("+"))
    for kinds, listed in {
        "Any": "galley.istio.io/analyze-suppress gateway.istio.io/controller-version",
        "AuthorizationPolicy": "istio.io/dry-run",
        "Gateway": """
            gateway.istio.io/name-override gateway.istio.io/service-account
            networking.istio.io/service-type
        """,
        "GatewayClass+Gateway": "ambient.istio.io/waypoint-inbound-binding",
        "Ingress": "kubernetes.io/ingress.class",
        "Namespace": "topology.istio.io/controlPlaneClusters",
        "Namespace+Service+ServiceEntry": "networking.istio.io/traffic-distribution",
        "Pod": """
            ambient.istio.io/bypass-inbound-capture ambient.istio.io/dns-capture
            ambient.istio.io/redirection inject.istio.io/templates
            istio.io/reroute-virtual-interfaces istio.io/rev prometheus.istio.io/merge-metrics
            proxy.istio.io/config proxy.istio.io/overrides
            readiness.status.sidecar.istio.io/applicationPorts
            readiness.status.sidecar.istio.io/failureThreshold
            readiness.status.sidecar.istio.io/initialDelaySeconds
            readiness.status.sidecar.istio.io/periodSeconds
            sidecar.istio.io/agentLogLevel sidecar.istio.io/bootstrapOverride
            sidecar.istio.io/componentLogLevel sidecar.istio.io/discoveryAddress
            sidecar.istio.io/extraStatTags sidecar.istio.io/inject
            sidecar.istio.io/interceptionMode sidecar.istio.io/logLevel
            sidecar.istio.io/nativeSidecar sidecar.istio.io/proxyCPU
            sidecar.istio.io/proxyCPULimit sidecar.istio.io/proxyImage
            sidecar.istio.io/proxyImageType sidecar.istio.io/proxyMemory
            sidecar.istio.io/proxyMemoryLimit sidecar.istio.io/rewriteAppHTTPProbers
            sidecar.istio.io/statsCompression sidecar.istio.io/statsEvictionInterval
            sidecar.istio.io/statsFlushInterval sidecar.istio.io/statsHistogramBins
            sidecar.istio.io/statsHistogramBuckets sidecar.istio.io/statsInclusionPrefixes
            sidecar.istio.io/statsInclusionRegexps sidecar.istio.io/statsInclusionSuffixes
            sidecar.istio.io/status sidecar.istio.io/userVolume sidecar.istio.io/userVolumeMount
            status.sidecar.istio.io/port traffic.sidecar.istio.io/excludeInboundPorts
            traffic.sidecar.istio.io/excludeInterfaces
            traffic.sidecar.istio.io/excludeOutboundIPRanges
            traffic.sidecar.istio.io/excludeOutboundPorts
            traffic.sidecar.istio.io/includeInboundPorts
            traffic.sidecar.istio.io/includeOutboundIPRanges
            traffic.sidecar.istio.io/includeOutboundPorts
            traffic.sidecar.istio.io/kubevirtInterfaces
        """,
        "Service": """
            alpha.istio.io/canonical-serviceaccounts alpha.istio.io/kubernetes-serviceaccounts
            networking.istio.io/exportTo traffic.istio.io/nodeSelector
        """,
        "Service+ServiceEntry+Namespace": "istio.io/use-waypoint-canary-weight",
        "WorkloadEntry": """
            istio.io/autoRegistrationGroup istio.io/connectedAt istio.io/disconnectedAt
            istio.io/workloadController
        """,
    }.items()
    for name in listed.split()
}
"""Istio's annotations, as its API lists them, with the kinds that they may be on."""

_INJECT = "sidecar.istio.io/inject"
_IGNORED = (
    "sidecar.istio.io/status",
    "gateway.istio.io/controller-version",
    "istio.io/rev",
)
_DEPRECATED = (
    _INJECT,
    "alpha.istio.io/canonical-serviceaccounts",
    "alpha.istio.io/kubernetes-serviceaccounts",
    "sidecar.istio.io/discoveryAddress",
    "sidecar.istio.io/extraStatTags",
    "sidecar.istio.io/statsCompression",
    "sidecar.istio.io/statsInclusionPrefixes",
    "sidecar.istio.io/statsInclusionRegexps",
    "sidecar.istio.io/statsInclusionSuffixes",
    "traffic.sidecar.istio.io/kubevirtInterfaces",
)


def of_objects(snapshot: Snapshot) -> Iterator[Finding]:
    """Yields annotations that Istio does not know (IST0108), has for another kind (IST0107), or
    deprecates (IST0135)."""
    for kind in ("Namespace", "Deployment"):
        for item in snapshot.of(kind):
            name = kind, item.namespace, item.name
            yield from _of(name, item.annotations, item.labels, item.source)
    for service in snapshot.services:
        name = "Service", service.namespace, service.name
        yield from _of(name, service.annotations, {}, service.source)
    sources = {(item.namespace, item.name): item.source for item in snapshot.of("Pod")}
    for pod in snapshot.pods:
        source = sources.get((pod.namespace, pod.name))
        yield from _of(("Pod", pod.namespace, pod.name), pod.annotations, pod.labels, source)


def _of(
    name: tuple[str, str, str],
    annotations: Mapping[str, str],
    labels: Mapping[str, str],
    source: Source | None,
) -> Iterator[Finding]:
    for key in annotations:
        ours = key.partition("/")[0].endswith("istio.io") or key == "kubernetes.io/ingress.class"
        if not ours or key in _IGNORED:
            continue
        place = source.at("metadata", "annotations", key) if source is not None else ""
        kinds = _KINDS.get(key)
        if kinds is None:
            yield Finding("IST0108", *name, f"Unknown annotation: {key}", place)
            continue
        if key in _DEPRECATED and not (key == _INJECT and _INJECT in labels):
            instead = f' in favor of the "{_INJECT}" label' if key == _INJECT else ""
            text = (
                f'Annotation "{key}" has been deprecated{instead} and may not work in future Istio '
                "versions."
            )
            yield Finding("IST0135", *name, text, place)
        if "Any" not in kinds and name[0] not in kinds:
            text = f"Misplaced annotation: {key} can only be applied to {', '.join(kinds)}"
            yield Finding("IST0107", *name, text, place)
