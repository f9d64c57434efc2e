"""EnvoyFilter: the typed body and what istiod's validation says about it."""

from __future__ import annotations

from lab.manifests.resource import Kind

KINDS: tuple[Kind, ...] = ()
