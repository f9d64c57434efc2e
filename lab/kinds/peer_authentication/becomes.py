"""PeerAuthentication: whether a port of a pod takes mutual TLS, plain text or both."""

from __future__ import annotations

from typing import Literal

from lab.kinds import selection
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
    own = explicit_mode(spec) or inherited
    entry = (spec.port_level_mtls or {}).get(port)
    return _named(entry) or own


def namespace_mode(snapshot: Snapshot, namespace: str) -> Mode:
    """Returns the mode that clients infer for a Service: of policies without a selector only."""
    for place in (namespace, snapshot.root_namespace):
        policy = selection.of_namespace(snapshot, KIND, place)
        if policy is not None and (found := explicit_mode(policy.spec)):
            return found
    return DEFAULT


def workload_policy(snapshot: Snapshot, pod: Pod) -> Resource | None:
    """Returns the oldest policy that selects a pod by labels; none in the root namespace."""
    if pod.namespace == snapshot.root_namespace:
        return None
    return next(iter(selection.of_workload(snapshot, KIND, pod)), None)


def deciding_policy(snapshot: Snapshot, pod: Pod, port: int) -> Resource | None:
    """The policy `mode` follows, for an explanation; None when nothing but the default applies."""
    policy = workload_policy(snapshot, pod)
    if policy is not None:
        entry = (policy.spec.port_level_mtls or {}).get(port)
        if explicit_mode(policy.spec) or _named(entry):
            return policy
    for namespace in dict.fromkeys((pod.namespace, snapshot.root_namespace)):
        found = selection.of_namespace(snapshot, KIND, namespace)
        if found is not None and explicit_mode(found.spec):
            return found
    return None


def explicit_mode(spec: PeerAuthenticationSpec) -> Mode | None:
    """Returns the mode that a policy sets; None when the level above decides."""
    return _named(spec.mtls)


def _named(mtls: MutualTLS | None) -> Mode | None:
    if mtls is None or mtls.mode is None or mtls.mode == "UNSET":
        return None
    return mtls.mode
