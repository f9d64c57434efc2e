"""Istio's annotations of a pod; `proxy.istio.io/config` is its part of `defaultConfig`."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator, Mapping
from typing import Any

import yaml
from pydantic import ValidationError

from lab.kinds.mesh_config.checks import ProxyConfig, metadata_problems
from lab.resources.checks import fields
from lab.resources.document import without_nulls
from lab.resources.fields import declared
from lab.resources.resource import Check, Problem, Resource

KEY = "proxy.istio.io/config"

GATEWAY_TEMPLATE = ("inject.istio.io/templates", "gateway")
"""The annotation with which the injector makes a pod a gateway."""


_READ = (
    KEY,
    "sidecar.istio.io/inject",
    "sidecar.istio.io/rewriteAppHTTPProbers",
    "sidecar.istio.io/status",
)
_IMAGE = "the lab's sidecar is Envoy alone, of no image"
_RESOURCES = "the lab has no resources to limit"
_AGENT = "the lab has Envoy alone, without an agent"
_STATISTICS = "in the lab Envoy keeps all its statistics"
_TRAFFIC = "all of a pod's traffic goes through its sidecar in the lab"
_NO_EFFECT = (
    (r"sidecar\.istio\.io/proxy(CPU|Memory)(Limit)?", _RESOURCES),
    (r"sidecar\.istio\.io/(proxyImage(Type)?|userVolume(Mount)?)", _IMAGE),
    (r"(inject|proxy)\.istio\.io/(templates|overrides)", _IMAGE),
    (r"sidecar\.istio\.io/(stats[A-Z]\w+|extraStatTags)", _STATISTICS),
    (r"sidecar\.istio\.io/((agent|component)LogLevel|logLevel)", _AGENT),
    (r"sidecar\.istio\.io/(bootstrapOverride|discoveryAddress|nativeSidecar)", _AGENT),
    (r"(readiness\.)?status\.sidecar\.istio\.io/\w+", _AGENT),
    (r"sidecar\.istio\.io/interceptionMode", _TRAFFIC),
    (r"traffic\.sidecar\.istio\.io/(in|ex)clude\w+", _TRAFFIC),
    (r"traffic\.sidecar\.istio\.io/kubevirtInterfaces", _TRAFFIC),
)
"""Istio's annotations of a pod that change nothing in the lab, with the reason."""
_OF_PODS = re.compile(r"(.*\.)?sidecar\.istio\.io/.*|(proxy|inject)\.istio\.io/.*")


def _unread(key: str, value: str) -> str | None:
    """Returns the remark about an annotation of Istio's that the lab does not read."""
    if key in _READ or not _OF_PODS.fullmatch(key) or (key, value) == GATEWAY_TEMPLATE:
        return None
    for pattern, reason in _NO_EFFECT:
        if re.fullmatch(pattern, key):
            return f"no effect in the lab: {reason}"
    return "the lab remarks: Istio has no such annotation"


def proxy_config(annotations: Mapping[str, str]) -> dict[str, Any]:
    """Returns a pod's own part of `defaultConfig`, without the fields that Istio lacks."""
    found = _read(annotations.get(KEY, ""))
    return {name: value for name, value in found.items() if name in _names()}


def problems(annotations: Mapping[str, str]) -> Iterator[Problem]:
    """Checks the annotations: Istio injects no proxy where it can't read its configuration."""
    for key, value in annotations.items():
        if remark := _unread(key, value):
            yield Problem((key,), remark, "warning")
    try:
        found = _read(annotations.get(KEY, ""))
        ProxyConfig.model_validate({name: found[name] for name in found if name in _names()})
    except ValidationError as error:
        for item in error.errors():
            where = ".".join(map(str, item["loc"]))
            yield Problem((KEY,), f"could not parse proxy config: {where}: {item['msg']}")
        return
    except (yaml.YAMLError, TypeError) as error:
        yield Problem((KEY,), f"could not parse proxy config: {error}")
        return
    for name in found:
        if name not in _names():
            yield Problem((KEY,), f"{name}: Istio passes over a field that it lacks", "warning")
    for problem in metadata_problems(found.get("proxyMetadata", {})):
        where = f"proxyMetadata.{problem.path[0]}"
        yield Problem((KEY,), f"{where}: {problem.reason}", problem.severity)
    for check in declared(ProxyConfig):
        if found.get(check.where) is True and check.where == "holdApplicationUntilProxyStarts":
            continue  # The lab does so in any case.
        if _has(found, check.where.split(".")):
            text = check.text
            if check.severity == "warning":
                text = f"no effect in the lab: {text}"
            yield Problem((KEY,), f"{check.where}: {text}", check.severity)


@functools.lru_cache(maxsize=64)
def _read(text: str) -> dict[str, Any]:
    value = yaml.load(text, yaml.CSafeLoader) or {}
    if not isinstance(value, dict):
        raise TypeError("it is no mapping")
    return dict(without_nulls(value))


@functools.cache
def _names() -> frozenset[str]:
    return frozenset(name for _, name in fields(ProxyConfig))


def _has(value: object, steps: list[str]) -> bool:
    for step in steps:
        if not isinstance(value, dict) or step not in value:
            return False
        value = value[step]
    return True


def _of_pod(pod: Resource) -> Iterator[Problem]:
    for problem in problems(pod.annotations):
        path = ("metadata", "annotations", *problem.path)
        yield Problem(path, problem.reason, problem.severity)


CHECKS = (Check("", _of_pod),)
"""Of a Pod."""

TEMPLATE_CHECKS = (Check("spec.template.metadata.annotations", problems),)
"""Of a workload's template."""
