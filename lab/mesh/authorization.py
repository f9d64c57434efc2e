"""AuthorizationPolicy: the RBAC filters of a pod."""

from __future__ import annotations

from lab.mesh.model import Json, Pod, Snapshot


def http_filters(snapshot: Snapshot, pod: Pod) -> list[Json]:
    return []


def network_filters(snapshot: Snapshot, pod: Pod) -> list[Json]:
    return []
