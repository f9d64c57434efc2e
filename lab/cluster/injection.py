"""Which pods get a proxy: Istio's rules for sidecar injection, and the lab's for gateways."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from lab.cluster.programs import PROXY_IMAGE, UnknownImageError, split
from lab.kinds.kubernetes.pod_spec import PodSpec

INJECT = "sidecar.istio.io/inject"


def is_gateway(spec: PodSpec) -> bool:
    """Whether a pod is nothing but a proxy."""
    return any(_plays_proxy(container.image) for container in spec.containers)


def proxy(
    labels: Mapping[str, str], annotations: Mapping[str, str], spec: PodSpec, *, injected: bool
) -> Literal["none", "sidecar", "gateway"]:
    """The proxy of a pod in a mesh; `injected` says whether its namespace asks for sidecars."""
    if is_gateway(spec):
        return "gateway"
    wish = labels.get(INJECT) or annotations.get(INJECT)
    if wish is not None:
        return "sidecar" if wish == "true" else "none"
    # `kube-inject` has put the sidecar among them.
    return "sidecar" if spec.init_containers or injected else "none"


def injects(namespace: Mapping[str, str]) -> bool:
    """Whether a namespace with these labels asks for sidecars."""
    wish = namespace.get("istio-injection")
    return wish == "enabled" or ("istio.io/rev" in namespace and wish != "disabled")


def _plays_proxy(image: str) -> bool:
    try:
        return split(image)[0] == PROXY_IMAGE
    except UnknownImageError:
        return False
