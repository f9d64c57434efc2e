"""The kinds the lab knows, and the names by which people call them."""

from __future__ import annotations

import functools
from collections.abc import Iterable

from lab.kinds.authorization_policy import checks as authorization_policy
from lab.kinds.destination_rule import checks as destination_rule
from lab.kinds.envoy_filter import checks as envoy_filter
from lab.kinds.gateway import checks as gateway
from lab.kinds.kubernetes import apps, core, endpoints, kept_only
from lab.kinds.mesh_config import operator
from lab.kinds.peer_authentication import checks as peer_authentication
from lab.kinds.proxy_config import checks as proxy_config
from lab.kinds.request_authentication import checks as request_authentication
from lab.kinds.service_entry import checks as service_entry
from lab.kinds.sidecar import checks as sidecar
from lab.kinds.telemetry import checks as telemetry
from lab.kinds.virtual_service import checks as virtual_service
from lab.kinds.workload_entry import checks as workload_entry
from lab.manifests.schema import like
from lab.resources.resource import Kind

KINDS: tuple[Kind, ...] = (
    *core.KINDS,
    *apps.KINDS,
    *endpoints.KINDS,
    *kept_only.KINDS,
    *gateway.KINDS,
    *virtual_service.KINDS,
    *destination_rule.KINDS,
    *service_entry.KINDS,
    *workload_entry.KINDS,
    *sidecar.KINDS,
    *peer_authentication.KINDS,
    *request_authentication.KINDS,
    *authorization_policy.KINDS,
    *telemetry.KINDS,
    *proxy_config.KINDS,
    *envoy_filter.KINDS,
    *operator.KINDS,
)
"""All supported kinds, in the order in which `get all` and errors list them."""


@functools.cache
def names() -> dict[str, Kind]:
    """Returns the kinds by every spelling: plural, singular, short, with the group."""
    table: dict[str, Kind] = {}
    for kind in KINDS:
        for name in kind.names:
            table.setdefault(name, kind)
            if kind.group:
                table.setdefault(f"{name}.{kind.group}", kind)
                for version in kind.versions:
                    table.setdefault(f"{name}.{version}.{kind.group}", kind)
    return table


def find(name: str) -> Kind | None:
    """Returns the kind called `po`, `pods`, `Pod`, `virtualservices.networking.istio.io`, ..."""
    return names().get(name.lower())


def of(api_version: str, kind: str) -> Kind | str:
    """Returns the kind of a document, or the reason why there is none."""
    group, _, version = api_version.rpartition("/")
    same_name = [item for item in KINDS if item.kind == kind]
    for item in same_name:
        if item.group == group:
            if version in item.versions:
                return item
            known = ", ".join(f"{group}/{name}".lstrip("/") for name in item.versions)
            return f"{kind} exists as {known}, not {api_version}"
    if same_name:
        group = same_name[0].group
        known = ", ".join(f"{group}/{name}".lstrip("/") for name in same_name[0].versions)
        if api_version.startswith("gateway.networking.k8s.io/"):
            return f"the lab has no Gateway API ({api_version}); {kind} is here that of {group}"
        return f"{kind} exists as {known}, not {api_version}"
    meant = like(kind, [item.kind for item in KINDS], _MISSPELT)
    lists = "`guestbook api-resources` lists what it has"
    return f"the lab has no {kind} ({api_version}){meant}; {lists}"


_MISSPELT = 0.88
"""The likeness of a kind to one misspelt: PersistentVolume and its Claim, two kinds, have 0.87."""


def unknown(name: str, further: Iterable[Kind] = ()) -> str:
    """Returns the text about a name that no kind has, nor one of `further`."""
    known = [word for kind in (*KINDS, *further) for word in kind.names]
    meant = like(name.lower(), known, _MISSPELT)
    return f'the server doesn\'t have a resource type "{name}"{meant}'
