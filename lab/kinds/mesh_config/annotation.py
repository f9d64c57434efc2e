"""The annotation `proxy.istio.io/config`: a pod's own part of the mesh's `defaultConfig`."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping
from typing import Any

import yaml
from pydantic import ValidationError

from lab.kinds.mesh_config.checks import ProxyConfig
from lab.resources.checks import fields
from lab.resources.fields import declared
from lab.resources.resource import Check, Problem, Resource

KEY = "proxy.istio.io/config"


def merged(mesh: Mapping[str, Any], annotations: Mapping[str, str]) -> dict[str, Any]:
    """Returns a mesh configuration with a pod's own `defaultConfig`.

    A field of the annotation replaces the mesh's as a whole, as in istiod: `tracing` with a
    sampling alone has no other of the mesh's settings.
    """
    text = annotations.get(KEY, "")
    if not text:
        return dict(mesh)
    known = {name: value for name, value in _read(text).items() if name in _names()}
    return {**mesh, "defaultConfig": {**mesh.get("defaultConfig", {}), **known}}


def problems(annotations: Mapping[str, str]) -> Iterator[Problem]:
    """Checks the annotation: Istio injects no proxy where it can't read it."""
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
    return value


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
