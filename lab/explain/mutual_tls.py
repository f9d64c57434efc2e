"""Conflicts of mutual TLS: a client's proxy sends what the pod's proxy does not take."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Literal

from lab import names
from lab.envoy import tls
from lab.explain.analyze import finding
from lab.kinds import selection
from lab.kinds.mesh_config import annotation
from lab.kinds.peer_authentication import becomes as peer_authentication
from lab.kinds.services import Endpoint
from lab.kinds.visible import Upstream, view
from lab.model import Pod, Snapshot
from lab.resources.resource import Origin

Transport = Literal["mutual TLS", "TLS", "plain text"]
"""The transport of a client; "TLS" is that with certificates from outside the mesh."""


@dataclass(frozen=True, slots=True)
class Conflict:
    """A pod's port that takes no connection of a client's proxy."""

    host: str
    """Empty for the pod's own address."""
    subset: str
    """Empty for the whole host."""
    pod: Pod
    sender: str
    """The client's rule and what it sends."""
    taker: str
    """The server's policy and what it takes."""
    remedy: str
    rule: Origin
    """The DestinationRule's `tls`; without a source there is none."""
    policy: Origin
    """The PeerAuthentication; without a source the pod has no sidecar."""
    partial: bool = False
    """Whether the host, or the subset, has other endpoints that take the client's connections."""

    @property
    def failure(self) -> str:
        """The requests that fail, and the reason."""
        requests = "Some requests" if self.partial else "Requests"
        target = f"subset {self.subset} of {self.host}" if self.subset else self.host
        return f"{requests} to {target} fail: {self.text}"

    @property
    def text(self) -> str:
        return f"{self.sender}, but {self.taker}; {self.remedy}"

    @property
    def origin(self) -> Origin:
        """Returns the place to change: the rule, else the policy."""
        return self.rule if self.rule.source is not None else self.policy


def transport(upstream: Upstream, endpoint: Endpoint) -> Transport:
    """Returns the transport of a client's connections to an endpoint."""
    settings = upstream.policy.tls
    if settings is None and not tls.auto_mtls(upstream):
        return "plain text"
    if tls.speaks_mtls(upstream, endpoint):
        return "mutual TLS"
    return "TLS" if settings is not None and settings.mode in ("SIMPLE", "MUTUAL") else "plain text"


def between(upstream: Upstream, endpoint: Endpoint) -> Conflict | None:
    """Returns the conflict between a client and an endpoint.

    A certificate that the rule itself names (MUTUAL) may be one of the mesh, and an application
    may speak TLS of its own: neither is a conflict.
    """
    pod, settings = endpoint.pod, upstream.policy.tls
    if pod is None or pod.proxy == "gateway" or not upstream.view.snapshot.certificates:
        return None
    sent = transport(upstream, endpoint)
    policy, taker = Origin(), ""
    if pod.proxy == "none":
        if sent == "mutual TLS":
            taker = f"pod {pod.name} has no sidecar"
    else:
        mode, policy = peer_authentication.mode(upstream.view.snapshot, pod, endpoint.port)
        named = settings is not None and settings.mode == "MUTUAL"
        if mode == "STRICT" and sent != "mutual TLS" and not named:
            taker = _takes_tls(policy)
        elif mode == "DISABLE" and sent == "mutual TLS":
            taker = f"{name(policy)} ({policy}) takes plain text alone (DISABLE)"
    if not taker:
        return None
    mode_wanted = "DISABLE" if sent == "mutual TLS" else "ISTIO_MUTUAL"
    remedy = f"set tls.mode {mode_wanted}, or leave tls out"
    if settings is None:
        remedy = f"give the host a DestinationRule with tls.mode {mode_wanted}"
    rule = upstream.policy.origins.get("tls", Origin())
    sender = f"{_sender(upstream, rule)} {sent}"
    return Conflict(upstream.host.name, upstream.subset, pod, sender, taker, remedy, rule, policy)


def without_sidecar(snapshot: Snapshot, pod: Pod, port: int) -> Conflict | None:
    """Returns the conflict between a client without a sidecar and a pod's port."""
    mode, policy = peer_authentication.mode(snapshot, pod, port)
    if pod.proxy != "sidecar" or mode != "STRICT" or not snapshot.certificates:
        return None
    sender = "a client without a sidecar sends plain text"
    remedy = "give it a sidecar, or set mtls.mode PERMISSIVE"
    return Conflict("", "", pod, sender, _takes_tls(policy), remedy, Origin(), policy)


def _takes_tls(policy: Origin) -> str:
    return f"{name(policy)} ({policy}) takes mutual TLS alone (STRICT)"


def name(origin: Origin) -> str:
    """Returns the name of an origin's resource; empty without one."""
    found = origin.resource
    return finding.origin(found.kind, found.namespace, found.name) if found is not None else ""


def _sender(upstream: Upstream, rule: Origin) -> str:
    if rule.resource is not None:
        return f"{name(rule)} sends"
    return f"{_without_automatic(upstream)}, so that a client without tls in a rule sends"


def _without_automatic(upstream: Upstream) -> str:
    """Returns the reason why clients have no automatic mutual TLS, as `tls.auto_mtls` finds it."""
    host = upstream.host
    if not upstream.view.mesh.enable_auto_mtls:
        return "enableAutoMtls is false"
    mode, found = peer_authentication.namespace_mode(upstream.view.snapshot, host.namespace)
    if mode == "DISABLE":
        return f"{name(found)} is DISABLE"
    if host.external:
        return f"{host.name} is MESH_EXTERNAL"
    kind = "headless" if host.headless else "reached by the address that a client asks for"
    return f"{host.name} is {kind} and not all its endpoints have a sidecar"


def conflicts(snapshot: Snapshot) -> Iterator[Conflict]:
    """Yields the conflicts between the proxies and the pods of a mesh.

    Those of a whole host come before those of its subsets.
    """
    if not snapshot.certificates:
        return
    for client in _clients(snapshot):
        for upstream in view(snapshot, client).upstreams():
            # Automatic mutual TLS sends each endpoint what it takes.
            if upstream.policy.tls is None and tls.auto_mtls(upstream):
                continue
            found = [between(upstream, endpoint) for endpoint in upstream.endpoints()]
            for one in found:
                if one is not None:
                    yield replace(one, partial=None in found)


_CLIENT_KINDS = ("Sidecar", "DestinationRule", "ProxyConfig")
"""The kinds that select clients by labels, and make their views differ."""


def _clients(snapshot: Snapshot) -> Iterable[Pod]:
    """Returns one pod with a proxy of each set of pods that have the same view of the mesh."""
    selectors = {
        tuple(labels.items()): labels
        for kind in _CLIENT_KINDS
        for resource in snapshot.of(kind)
        if (labels := selection.labels(resource))
    }.values()
    return {
        (
            pod.namespace,
            pod.proxy,
            pod.annotations.get(annotation.KEY),
            tuple(names.selects(labels, pod.labels) for labels in selectors),
        ): pod
        for pod in snapshot.pods
        if pod.proxy != "none"
    }.values()
