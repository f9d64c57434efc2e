"""DestinationRules: hosts and subsets that are not there, servers that are not verified."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import chain

from lab import names
from lab.explain.analyze import hosts
from lab.explain.analyze.finding import Finding, about
from lab.kinds import services
from lab.kinds.destination_rule.types import ClientTLSSettings
from lab.kinds.service_entry import becomes as service_entry
from lab.kinds.services import Host
from lab.kinds.workload_entry import becomes as workload_entry
from lab.model import Snapshot
from lab.resources.resource import Resource


def targets(snapshot: Snapshot) -> Iterator[Finding]:
    """Yields rules for unknown hosts (IST0174), and subsets without endpoints (IST0173)."""
    known = hosts.registry(snapshot)
    for rule in snapshot.of("DestinationRule"):
        readers = rule.spec.export_to or (rule.namespace,)
        found = hosts.find(known, rule.namespace, readers, rule.spec.host)
        if not found:
            text = (
                f"The host {rule.spec.host} defined in the DestinationRule does not match any "
                "services in the mesh."
            )
            yield about("IST0174", rule, text, "spec", "host")
            continue
        labelled = _labels(snapshot, found)
        # Of its own the lab says what holds for the proxies.
        ends = _endpoint_labels(snapshot, found, labelled)
        chosen = [_any_selected(subset.labels, ends) for subset in rule.spec.subsets]
        for index, subset in enumerate(rule.spec.subsets):
            if not _any_selected(subset.labels, labelled):
                text = (
                    f"The Subset {subset.name} defined in the DestinationRule does not select any "
                    "pods. Which may lead to 503 UH (NoHealthyUpstream)."
                )
                missing = [key for key in subset.labels if not any(key in has for has in ends)]
                hint = _hint(rule.spec.host, subset.labels, missing, ends)
                finding = about("IST0173", rule, text + hint, "spec", "subsets", index)
                certain = bool(ends) and (bool(missing) or not any(chosen))
                yield replace(finding, certain=certain)


def _hint(
    host: str,
    labels: Mapping[str, str],
    missing: Sequence[str],
    labelled: Sequence[Mapping[str, str]],
) -> str:
    """Returns the values that the pods of a host have for a subset's labels, in parentheses."""
    if not labelled:
        return ""
    if _any_selected(labels, labelled):
        return f" (endpoints of {host} have the labels, but no pod's own)"
    if missing:
        return f" (no pod of {host} has the label {missing[0]})"
    pairs = dict.fromkeys(f"{key}={has[key]}" for has in labelled for key in labels if key in has)
    return f" (the pods of {host} have {', '.join(pairs)})"


def _labels(snapshot: Snapshot, found: Sequence[Host]) -> list[Mapping[str, str]]:
    """Returns the labels of each pod, ready or not, and of each other endpoint of a host."""
    labelled: list[Mapping[str, str]] = []
    for host in found:
        if host.service is not None:
            service = host.service
            # Without a selector istioctl takes the pods of all Services.
            labelled += [
                pod.labels
                for pod in snapshot.pods
                if not service.selector or services.selected(service, pod)
            ]
        elif host.entry is not None:
            for port in host.ports[:1]:
                endpoints = service_entry.endpoints(snapshot, host, port)
                labelled += [endpoint.labels for endpoint in endpoints]
    return labelled


def _endpoint_labels(
    snapshot: Snapshot, found: Sequence[Host], labelled: Iterable[Mapping[str, str]]
) -> list[Mapping[str, str]]:
    """Returns the labels of a host's pods with those of their locality, and of its other endpoints.

    istioctl looks at the pods' own labels alone.
    """
    ends = [services.with_topology(labels) for labels in labelled]
    for host in found:
        if (service := host.service) is not None:
            others = (workload_entry.of_service(snapshot, service, port) for port in host.ports)
            ends += [endpoint.labels for endpoint in chain.from_iterable(others)]
    return ends


def _any_selected(labels: Mapping[str, str], labelled: Iterable[Mapping[str, str]]) -> bool:
    return any(names.selects(labels, has) for has in labelled)


def unverified(snapshot: Snapshot) -> Iterator[Finding]:
    """Yields TLS towards servers whose certificate nobody verifies (IST0128, IST0129)."""
    for rule in snapshot.of("DestinationRule"):
        policy = rule.spec.traffic_policy
        if policy is None:
            continue
        if (text := _unverified(rule, policy.tls)) is not None:
            yield about("IST0128", rule, text, "spec", "trafficPolicy", "tls")
        for index, settings in enumerate(policy.port_level_settings):
            if (text := _unverified(rule, settings.tls)) is not None:
                port = f"number:{settings.port.number}" if settings.port else ""
                path = ("spec", "trafficPolicy", "portLevelSettings", index, "tls")
                yield about("IST0129", rule, f"{text} at port {port}", *path)


def _unverified(rule: Resource, tls: ClientTLSSettings | None) -> str | None:
    if tls is None or tls.mode not in ("SIMPLE", "MUTUAL") or tls.ca_certificates:
        return None
    if tls.credential_name and rule.spec.workload_selector is not None:
        return None
    return (
        f"DestinationRule {rule.namespace}/{rule.name} in namespace {rule.namespace} has TLS mode "
        f"set to {tls.mode} but no caCertificates are set to validate server identity for host: "
        f"{rule.spec.host}"
    )
