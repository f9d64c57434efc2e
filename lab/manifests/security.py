"""The kinds of security.istio.io."""

from __future__ import annotations

from lab.manifests import authorization_policy, peer_authentication, request_authentication
from lab.manifests.resource import Kind

KINDS: tuple[Kind, ...] = (
    *peer_authentication.KINDS,
    *request_authentication.KINDS,
    *authorization_policy.KINDS,
)
