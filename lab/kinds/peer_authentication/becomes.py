"""PeerAuthentication: whether a port of a pod takes mutual TLS, plain text or both."""

from __future__ import annotations

from typing import Literal

from lab.kinds import selection
from lab.kinds.peer_authentication.types import MutualTLS, PeerAuthenticationSpec
from lab.kinds.selection import Workload
from lab.model import Pod, Snapshot
from lab.resources.resource import Origin, Path, Resource

Mode = Literal["STRICT", "PERMISSIVE", "DISABLE"]

DEFAULT: Mode = "PERMISSIVE"
KIND = "PeerAuthentication"
_MTLS: Path = ("spec", "mtls")


def mode(snapshot: Snapshot, workload: Workload, port: int) -> tuple[Mode, Origin]:
    """Returns the mode of a container port and its origin: workload over namespace over mesh.

    The oldest policy of each level counts. `portLevelMtls` needs a policy with a selector; its
    keys are container ports.
    """
    policy = workload_policy(snapshot, workload)
    if policy is not None:
        spec: PeerAuthenticationSpec = policy.spec
        if found := _explicit_mode((spec.port_level_mtls or {}).get(port)):
            return found, Origin(policy.source, ("spec", "portLevelMtls", port), policy)
        if found := _explicit_mode(spec.mtls):
            return found, Origin(policy.source, _MTLS, policy)
    return namespace_mode(snapshot, workload.namespace)


def level_ports(snapshot: Snapshot, pod: Pod) -> list[int]:
    """Returns the container ports that `portLevelMtls` names for a pod."""
    policy = workload_policy(snapshot, pod)
    return sorted(policy.spec.port_level_mtls or ()) if policy is not None else []


def namespace_mode(snapshot: Snapshot, namespace: str) -> tuple[Mode, Origin]:
    """Returns the mode that policies without a selector give a namespace, and its origin.

    A client infers a Service's mode from it. PERMISSIVE is the default.
    """
    for level in (namespace, snapshot.root_namespace):
        policy = selection.of_namespace(snapshot, KIND, level)
        if policy is not None and (found := _explicit_mode(policy.spec.mtls)):
            return found, Origin(policy.source, _MTLS, policy)
    return DEFAULT, Origin()


def workload_policy(snapshot: Snapshot, workload: Workload) -> Resource | None:
    """Returns the oldest policy that selects a workload by labels; none in the root namespace."""
    if workload.namespace == snapshot.root_namespace:
        return None
    return next(iter(selection.of_workload(snapshot, KIND, workload)), None)


def _explicit_mode(mtls: MutualTLS | None) -> Mode | None:
    """Returns the mode that is set; None when the level above decides."""
    if mtls is None or mtls.mode is None or mtls.mode == "UNSET":
        return None
    return mtls.mode
