"""Sidecar injection: Istio's rules for which pods get a proxy, and the lab's for gateways."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from lab.cluster.programs import is_proxy
from lab.kinds.kubernetes.pod_spec import PodSpec
from lab.kinds.mesh_config.annotation import GATEWAY_TEMPLATE

INJECT = "sidecar.istio.io/inject"

Proxy = Literal["none", "sidecar", "gateway"]


def is_gateway(spec: PodSpec) -> bool:
    """Returns whether a pod is nothing but a proxy."""
    return any(is_proxy(container.image) for container in spec.containers)


def gateway_problem(labels: Mapping[str, str], annotations: Mapping[str, str]) -> str | None:
    """Returns why the injector gives a pod of the image `auto` no proxy; None when it does."""
    name, value = GATEWAY_TEMPLATE
    if annotations.get(name) != value:
        return f'no image: only a pod with the annotation {name}: "{value}" gets one for it'
    if labels.get(INJECT) == "false":
        return f'no image: the label {INJECT}: "false" keeps the injector from putting one'
    return None


def proxy(
    labels: Mapping[str, str], annotations: Mapping[str, str], spec: PodSpec, *, injected: bool
) -> Proxy:
    """Returns the proxy of a pod in a mesh; `injected` when its namespace asks for sidecars."""
    if is_gateway(spec):
        return "gateway"
    wish = labels.get(INJECT) or annotations.get(INJECT)
    if wish is not None:
        return "sidecar" if wish == "true" else "none"
    # `kube-inject` has put the sidecar among the init containers.
    return "sidecar" if spec.init_containers or injected else "none"


def injects(namespace: Mapping[str, str]) -> bool:
    """Returns whether a namespace with these labels asks for sidecars."""
    wish = namespace.get("istio-injection")
    return wish == "enabled" or ("istio.io/rev" in namespace and wish != "disabled")
