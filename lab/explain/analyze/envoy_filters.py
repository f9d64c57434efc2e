"""EnvoyFilters: operations that are ignored, or whose effect depends on the order of filters."""

from __future__ import annotations

from collections.abc import Iterator

from lab.explain.analyze.finding import Finding, about
from lab.kinds.envoy_filter.types import ConfigPatch
from lab.model import Snapshot

_IGNORED = {"ADD": "IST0153", "REMOVE": "IST0154"}
"""Operations that have no effect on routes."""
_OF_ROUTES = ("ROUTE_CONFIGURATION", "HTTP_ROUTE")
_REPLACED = ("NETWORK_FILTER", "HTTP_FILTER", "VIRTUAL_HOST")


def operations(snapshot: Snapshot) -> Iterator[Finding]:
    """Yields patches with an operation that is ignored (IST0152, IST0153, IST0154) or relative
    to others without a priority (IST0151; IST0155 where one of a proxy version has its name)."""
    versioned: set[str] = set()
    for resource in snapshot.of("EnvoyFilter"):
        for index, config in enumerate(resource.spec.config_patches):
            operation, name = config.patch.operation, _name(config)
            code = text = ""
            if operation in _IGNORED and config.apply_to in _OF_ROUTES:
                code = _IGNORED[operation]
                text = (
                    f"The {operation} operation will be ignored when applyTo is set to "
                    "ROUTE_CONFIGURATION, or HTTP_ROUTE."
                )
            elif operation == "REPLACE" and config.apply_to not in _REPLACED:
                code = "IST0152"
                text = "The REPLACE operation is only valid for HTTP_FILTER and NETWORK_FILTER."
            elif operation in _RELATIVE_ONES and not resource.spec.priority:
                code, text = _RELATIVE[name in versioned]
            if code:
                yield about(code, resource, text, "spec", "configPatches", index)
            if config.match.proxy.proxy_version:
                versioned.add(name)


_RELATIVE_ONES = ("REMOVE", "REPLACE", "INSERT_BEFORE", "INSERT_AFTER")
_RELATIVE = {
    False: (
        "IST0151",
        "This EnvoyFilter does not have a priority and has a relative patch operation set which "
        "can cause the EnvoyFilter not to be applied. Using the INSERT_FIRST of ADD option or "
        "setting the priority may help in ensuring the EnvoyFilter is applied correctly.",
    ),
    True: (
        "IST0155",
        "This EnvoyFilter does not have a priority and has a relative patch operation "
        "(NSTERT_BEFORE/AFTER, REPLACE, MERGE, DELETE) and proxyVersion set which can cause the "
        "EnvoyFilter not to be applied during an upgrade. Using the INSERT_FIRST or ADD option or "
        "setting the priority may help in ensuring the EnvoyFilter is applied correctly.",
    ),
}


def _name(config: ConfigPatch) -> str:
    """Returns the name of what a patch adds, else of the filter that it matches."""
    value, listener = config.patch.value, config.match.listener
    if not value:
        return ""
    if "name" in value:
        return str(value["name"])
    return listener.filter_chain.filter.name if listener is not None else ""
