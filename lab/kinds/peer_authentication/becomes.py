"""PeerAuthentication: whether a port of a pod takes mutual TLS, plain text or both."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

from lab import names
from lab.kinds.peer_authentication.types import MutualTLS, PeerAuthenticationSpec
from lab.model import Pod, Snapshot
from lab.resources.resource import Resource

Mode = Literal["STRICT", "PERMISSIVE", "DISABLE"]

DEFAULT: Mode = "PERMISSIVE"
KIND = "PeerAuthentication"


def mode(snapshot: Snapshot, pod: Pod, port: int) -> Mode:
    """The mode of a container port: workload over namespace over mesh, PERMISSIVE by default.

    The oldest policy of each level counts. `portLevelMtls` needs a policy with a selector; its
    keys are container ports.
    """
    inherited = namespace_mode(snapshot, pod.namespace)
    policy = workload_policy(snapshot, pod)
    if policy is None:
        return inherited
    spec: PeerAuthenticationSpec = policy.spec
    own = _said(spec) or inherited
    entry = (spec.port_level_mtls or {}).get(port)
    return _named(entry) or own


def namespace_mode(snapshot: Snapshot, namespace: str) -> Mode:
    """What a client infers for a Service of a namespace: policies without a selector only."""
    found = DEFAULT
    if policy := _without_selector(snapshot, snapshot.root_namespace):
        found = _said(policy.spec) or found
    if namespace != snapshot.root_namespace and (policy := _without_selector(snapshot, namespace)):
        found = _said(policy.spec) or found
    return found


def workload_policy(snapshot: Snapshot, pod: Pod) -> Resource | None:
    """The oldest policy that selects a pod by labels; in the root namespace there can be none."""
    if pod.namespace == snapshot.root_namespace:
        return None
    return _first(
        policy
        for policy in snapshot.of(KIND)
        if policy.namespace == pod.namespace
        and (labels := _labels(policy))
        and names.selects(labels, pod.labels)
    )


def deciding_policy(snapshot: Snapshot, pod: Pod, port: int) -> Resource | None:
    """The policy `mode` follows, for an explanation; None when nothing but the default applies."""
    policy = workload_policy(snapshot, pod)
    if policy is not None:
        entry = (policy.spec.port_level_mtls or {}).get(port)
        if _said(policy.spec) or _named(entry):
            return policy
    for namespace in dict.fromkeys((pod.namespace, snapshot.root_namespace)):
        found = _without_selector(snapshot, namespace)
        if found is not None and _said(found.spec):
            return found
    return None


def _labels(policy: Resource) -> dict[str, str]:
    selector = policy.spec.selector
    return selector.match_labels if selector is not None else {}


def _without_selector(snapshot: Snapshot, namespace: str) -> Resource | None:
    return _first(
        policy
        for policy in snapshot.of(KIND)
        if policy.namespace == namespace and not _labels(policy)
    )


def _first(policies: Iterable[Resource]) -> Resource | None:
    return next(iter(policies), None)


def _said(spec: PeerAuthenticationSpec) -> Mode | None:
    """The mode a policy names; None when it leaves it to the level above."""
    return _named(spec.mtls)


def _named(mtls: MutualTLS | None) -> Mode | None:
    if mtls is None or mtls.mode is None or mtls.mode == "UNSET":
        return None
    return mtls.mode
