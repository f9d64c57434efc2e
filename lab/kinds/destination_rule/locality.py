"""DestinationRule: the choice among endpoints by locality and by labels, in a mesh of one locality.

Its proxies and endpoints have no locality, so that none is nearer than another: `failover` between
regions changes nothing, `distribute` is about the one place that `*` means, and `failoverPriority`
compares the other labels.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from lab.kinds.destination_rule.types import LoadBalancer, LocalityLbSetting
from lab.kinds.services import Endpoint
from lab.model import Json
from lab.xds import given


def settings(balancer: LoadBalancer, *, ejects: bool) -> Json:
    """Returns the fields of `common_lb_config`; `ejects`: with outlier detection."""
    if (zones := balancer.zone_aware_lb_setting) is not None:
        off = {"value": 0} if zones.enabled is False else None
        size = None if zones.min_cluster_size is None else str(zones.min_cluster_size)
        return {"zone_aware_lb_config": given(routing_enabled=off, min_cluster_size=size)}
    setting = _enabled(balancer)
    if setting is None:
        return {}
    weighted = setting.distribute or (ejects and (setting.failover or setting.failover_priority))
    return {"locality_weighted_lb_config": {}} if weighted else {}


def _enabled(balancer: LoadBalancer) -> LocalityLbSetting | None:
    setting = balancer.locality_lb_setting
    return None if setting is None or setting.enabled is False else setting


def weight(balancer: LoadBalancer) -> int | None:
    """Returns the share of the one locality: 0 if none is for it, None without `distribute`."""
    if balancer.zone_aware_lb_setting is not None:
        return None
    setting = _enabled(balancer)
    for rule in setting.distribute if setting is not None else ():
        if _anywhere(rule.from_):
            return next((share for place, share in rule.to.items() if _anywhere(place)), 0)
    return None


def _anywhere(pattern: str) -> bool:
    return pattern.startswith("*") and set(pattern.split("/")) <= {"*", ""}


def by_priority(
    balancer: LoadBalancer,
    client: Mapping[str, str],
    endpoints: Sequence[Endpoint],
    *,
    ejects: bool,
) -> list[list[Endpoint]]:
    """Returns the endpoints in groups, those first that share the most labels with the client."""
    wanted = _priorities(balancer, ejects=ejects)
    groups: dict[int, list[Endpoint]] = {}
    for endpoint in endpoints:
        agreed = 0
        for text in wanted:
            name, *values = text.split("=")
            own = values[0] if len(values) == 1 else client.get(name, "")
            if own != endpoint.labels.get(name, ""):
                break
            agreed += 1
        groups.setdefault(-agreed, []).append(endpoint)
    return [groups[rank] for rank in sorted(groups)]


def _priorities(balancer: LoadBalancer, *, ejects: bool) -> list[str]:
    if (zones := balancer.zone_aware_lb_setting) is not None:
        return [] if zones.enabled is False else zones.failover_priority
    setting = _enabled(balancer)
    if setting is None or setting.distribute or not ejects:
        return []
    return setting.failover_priority
