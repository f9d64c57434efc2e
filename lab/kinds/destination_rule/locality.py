"""DestinationRule: the choice among endpoints by locality and by labels.

A workload's locality is a region, a zone and a subzone, each of which may be missing. The lab's
node has none; a label gives one to a pod (`services.locality`), a field to an entry.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from lab.kinds import services
from lab.kinds.destination_rule.types import LoadBalancer, LocalityLbSetting
from lab.kinds.services import Endpoint
from lab.model import Json
from lab.xds import given


@dataclass(frozen=True, slots=True)
class Group:
    """Endpoints of one locality and one priority, of which 0 is the highest."""

    locality: str
    endpoints: list[Endpoint]
    priority: int
    weight: int


def settings(balancer: LoadBalancer, *, ejects: bool) -> Json:
    """Returns the fields of `common_lb_config`; `ejects`: with outlier detection."""
    if (zones := balancer.zone_aware_lb_setting) is not None:
        off = {"value": 0} if zones.enabled is False else None
        size = None if zones.min_cluster_size is None else str(zones.min_cluster_size)
        return {"zone_aware_lb_config": given(routing_enabled=off, min_cluster_size=size)}
    setting = balancer.locality_lb_setting
    if setting is None or setting.enabled is False:
        return {}
    weighted = setting.distribute or (ejects and (setting.failover or setting.failover_priority))
    return {"locality_weighted_lb_config": {}} if weighted else {}


def groups(
    balancer: LoadBalancer,
    labels: Mapping[str, str],
    endpoints: Sequence[Endpoint],
    *,
    ejects: bool,
) -> list[Group]:
    """Returns a cluster's endpoints in groups, as a client with these labels prefers them."""
    zones = balancer.zone_aware_lb_setting
    setting = zones or balancer.locality_lb_setting or LocalityLbSetting()
    labels = services.with_topology(labels)
    own = "/".join(labels.get(name, "") for name in services.TOPOLOGY)
    places: dict[str, list[Endpoint]] = {}
    for endpoint in endpoints:
        places.setdefault(endpoint.locality, []).append(endpoint)
    found = [_group(place, places[place]) for place in sorted(places)]
    if setting.enabled is False or (zones is None and not ejects and not _shares(setting)):
        return found
    if isinstance(setting, LocalityLbSetting) and setting.distribute:
        return _distributed(found, setting, own)
    if setting.failover_priority:
        wanted = setting.failover_priority
        found = [part for group in found for part in _by_labels(group, wanted, labels)]
    if zones is None and setting.failover_priority and not setting.failover:
        return _ranked(found, [(group.priority, 0) for group in found])
    targets = {rule.from_: rule.to for rule in reversed(setting.failover)}
    ranks = [
        (
            group.priority,
            _distance(own, group, targets.get(_parts(own)[0]), regions=zones is not None),
        )
        for group in found
    ]
    return _ranked(found, ranks)


def _shares(setting: object) -> bool:
    return isinstance(setting, LocalityLbSetting) and bool(setting.distribute)


def _group(place: str, endpoints: list[Endpoint], priority: int = 0) -> Group:
    return Group(place, endpoints, priority, sum(one.weight for one in endpoints))


def _parts(locality: str) -> list[str]:
    return [*locality.split("/"), "", ""][:3]


def _ranked(found: list[Group], ranks: list[tuple[int, int]]) -> list[Group]:
    """Returns the groups with priorities from 0 upwards, by their ranks; the highest first."""
    order = sorted(set(ranks))
    ranked = [
        replace(group, priority=order.index(rank)) for group, rank in zip(found, ranks, strict=True)
    ]
    return sorted(ranked, key=lambda group: group.priority)


def _distance(own: str, group: Group, target: str | None, *, regions: bool) -> int:
    """Returns the distance of a group from a client; `target`: the region it fails over to."""
    mine, theirs = _parts(own), _parts(group.locality)
    if mine[0] != theirs[0]:
        near = theirs[0] == target if regions else target in (None, theirs[0])
        return 3 if near else 4
    if regions or mine == theirs:
        return 0
    return 1 if mine[1] == theirs[1] else 2


def _by_labels(group: Group, wanted: Sequence[str], client: Mapping[str, str]) -> list[Group]:
    """Returns a group in parts, by the number of labels that each shares with the client.

    Of endpoints in other networks, where the network is the first label, the others count too.
    """
    parts: dict[int, list[Endpoint]] = {}
    for endpoint in group.endpoints:
        rank = 0
        for index, text in enumerate(wanted):
            name, *values = text.split("=")
            own = values[0] if len(values) == 1 else client.get(name, "")
            if own == endpoint.labels.get(name, ""):
                continue
            if index == 0 and text == services.NETWORK:
                rank = len(wanted)
                continue
            rank += len(wanted) - index
            break
        parts.setdefault(rank, []).append(endpoint)
    return [_group(group.locality, parts[rank], rank) for rank in sorted(parts)]


def _distributed(found: list[Group], setting: LocalityLbSetting, own: str) -> list[Group]:
    """Returns the groups with the shares of the first rule for the client's locality."""
    rule = next((one for one in setting.distribute if _within(own, one.from_)), None)
    if rule is None:
        return found
    shared: dict[str, Group] = {}
    for place, share in rule.to.items():
        chosen = [one for one in found if _within(one.locality, place)]
        total = sum(one.weight for one in chosen)
        for one in chosen:
            weight = math.ceil(one.weight * share / total)
            shared.setdefault(one.locality, replace(one, weight=weight))
    return [shared.get(one.locality, replace(one, endpoints=[])) for one in found]


def _within(locality: str, pattern: str) -> bool:
    (region, *rest), (wanted, *inner) = _parts(locality), _parts(pattern)
    return wanted in ("*", region) and all(
        pair[1] in ("*", "", pair[0]) for pair in zip(rest, inner, strict=True)
    )
