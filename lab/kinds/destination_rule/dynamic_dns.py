"""DestinationRule: outlier detection for a host of DYNAMIC_DNS, which istiod does not survive."""

from __future__ import annotations

from collections.abc import Iterator

from lab import names, versions
from lab.kinds.destination_rule.types import PortTrafficPolicy, TrafficPolicy
from lab.model import Snapshot
from lab.resources.resource import Path, Problem, Resource


def problems(rule: Resource, snapshot: Snapshot) -> Iterator[Problem]:
    """Yields a warning for each outlier detection of a host whose names requests give."""
    pattern = names.expand(rule.spec.host, rule.namespace)
    hosts = [
        host
        for entry in snapshot.of("ServiceEntry")
        if entry.spec.resolution == "DYNAMIC_DNS"
        for host in entry.spec.hosts
        if names.matches(pattern, host)
    ]
    version = versions.istio().rpartition(".")[0]
    for path, policy in _policies(rule) if hosts else ():
        if policy.outlier_detection is not None:
            reason = (
                f"istiod {version} crashes on it, because {hosts[0]} has the "
                "resolution DYNAMIC_DNS; leave it out for this host"
            )
            yield Problem((*path, "outlierDetection"), reason, "warning")


def _policies(rule: Resource) -> Iterator[tuple[Path, TrafficPolicy | PortTrafficPolicy]]:
    found: list[tuple[Path, TrafficPolicy | None]] = [
        (("spec", "trafficPolicy"), rule.spec.traffic_policy)
    ]
    found += [
        (("spec", "subsets", index, "trafficPolicy"), subset.traffic_policy)
        for index, subset in enumerate(rule.spec.subsets)
    ]
    for path, policy in found:
        if policy is not None:
            yield path, policy
            for index, settings in enumerate(policy.port_level_settings):
                yield (*path, "portLevelSettings", index), settings
