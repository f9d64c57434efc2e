"""Hosts of the service registry, as the analyses look for them."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from lab import names
from lab.kinds import services
from lab.kinds.service_entry import becomes as service_entry
from lab.kinds.services import Host
from lab.model import Snapshot
from lab.resources.resource import Resource


def registry(snapshot: Snapshot) -> list[Host]:
    """Returns the hosts of all Services and ServiceEntries."""
    found = [services.of_service(service) for service in snapshot.services]
    for entry in snapshot.of("ServiceEntry"):
        found += service_entry.hosts(entry)
    return found


def find(known: Sequence[Host], namespace: str, readers: Collection[str], host: str) -> list[Host]:
    """Returns the definitions of a host that a resource of `namespace` may mean.

    `readers` are the namespaces that it is exported to. A host with a wildcard serves for those
    below it when there is none of the very name.
    """
    name = names.expand(host, namespace)
    clients = {namespace if reader == "." else reader for reader in readers}

    def visible(item: Host, others: Collection[str]) -> bool:
        return any(services.exported(item.export_to, item.namespace, one) for one in others)

    exact = [item for item in known if item.name == name and visible(item, clients)]
    return exact or [
        item
        for item in known
        if item.name.startswith("*")
        and visible(item, {namespace})
        and name.removeprefix("*").endswith(item.name[1:])
    ]


def overlap(first: str, second: str) -> bool:
    """Returns whether two hosts, each possibly with a wildcard, have a name in common."""
    return names.matches(first, second) or names.matches(second, first)


def scopes(resource: Resource) -> set[str]:
    """Returns the namespaces that a resource is exported to; `*` for all."""
    targets = resource.spec.export_to or ["*"]
    if "*" in targets:
        return {"*"}
    return {resource.namespace if target == "." else target for target in targets}
