"""IstioOperator: the input of `istioctl install`, as far as it means something in the lab.

A cluster has no such kind since Istio 1.24; the lab reads the file in istioctl's place.
"""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import ip_network
from typing import Any, Literal

from lab.kinds.mesh_config import checks as mesh_config
from lab.kinds.mesh_config.checks import MeshConfig
from lab.resources.checks import never
from lab.resources.fields import declared, ignored, refused
from lab.resources.resource import Check, Kind, Model, Problem

_INJECT = "use a Deployment with gateway injection (image: auto)"
_INSTALLED = "istioctl's business on a cluster; the lab installs nothing"


class Gateway(Model):
    name: str
    enabled: bool = True
    namespace: str | None = refused("the lab's gateway is in istio-system")
    label: dict[str, str] | None = refused("the lab's gateway has the label istio: ingressgateway")
    k8s: dict[str, Any] | None = refused(
        "the lab's gateway has an address of its own (--port)", alias="k8s"
    )


class Component(Model):
    enabled: bool = True
    k8s: dict[str, Any] | None = refused(_INSTALLED, alias="k8s")


class Components(Model):
    base: Component | None = None
    pilot: Component | None = None
    cni: Component | None = None
    ztunnel: Component | None = refused("ambient mode; the lab has sidecars")
    ingress_gateways: list[Gateway] | None = None
    egress_gateways: list[Gateway] | None = None


class Pilot(Model):
    trace_sampling: float | None = None
    env: dict[str, str | bool | int] | None = None


class Values(Model):
    pilot: Pilot | None = None
    global_: dict[str, Any] | None = refused(_INSTALLED, alias="global")
    gateways: dict[str, Any] | None = refused(
        "the lab's gateway has an address of its own (--port)"
    )


class IstioOperatorSpec(Model):
    profile: Literal["default", "demo", "minimal", "empty"] = "default"
    mesh_config: MeshConfig | None = None
    components: Components | None = None
    values: Values | None = None
    hub: str | None = ignored("the lab pulls no images")
    tag: str | int | float | None = ignored("the lab pulls no images")
    revision: str | None = refused("several control planes; the lab is one")
    addon_components: dict[str, Any] | None = None
    unvalidated_values: dict[str, Any] | None = refused(_INSTALLED)
    install_package_path: str | None = refused(_INSTALLED)
    compatibility_version: str | None = refused("the behaviour of another version than the lab's")
    platform: str | None = refused(_INSTALLED)
    namespace: str | None = ignored("the lab's control plane is in istio-system")


class IstioOperator(Model):
    spec: IstioOperatorSpec = IstioOperatorSpec()


PILOT_ENVIRONMENT = ("BLOCKED_CIDRS_IN_JWKS_URIS",)
"""istiod's variables that the lab understands."""


def _known(environment: dict[str, object]) -> Iterator[Problem]:
    known = ", ".join(PILOT_ENVIRONMENT)
    for name, value in environment.items():
        if name not in PILOT_ENVIRONMENT:
            reason = f"not supported by the lab: of istiod's variables it knows {known}"
            yield Problem((name,), reason)
            continue
        for network in filter(None, str(value).split(",")):
            try:
                ip_network(network.strip(), strict=False)
            except ValueError as error:
                yield Problem((name,), str(error))


CHECKS = (
    *declared(IstioOperator),
    Check(
        "spec.addonComponents",
        never,
        'unknown field "addonComponents": Istio removed it in 1.8; Prometheus, Grafana, Kiali and '
        "Zipkin are installed from their own manifests",
    ),
    *mesh_config.CHECKS,
    Check(
        "spec.components.egressGateways[]",
        lambda gateway: not gateway.enabled,
        f"not supported by the lab: set enabled: false, and {_INJECT}",
    ),
    Check(
        "spec.components.ingressGateways[]",
        lambda gateway: gateway.name == "istio-ingressgateway" and gateway.enabled,
        f"not supported by the lab: istio-ingressgateway is there and on; for others {_INJECT}",
    ),
    Check(
        "spec.components.base|pilot.enabled",
        bool,
        "not supported by the lab: it is always on",
    ),
    Check(
        "spec.components.cni",
        lambda component: not component.enabled,
        "not supported by the lab: there are no network namespaces",
    ),
    Check("spec.values.pilot.env", _known),
)

KINDS: tuple[Kind, ...] = (
    Kind(
        group="install.istio.io",
        kind="IstioOperator",
        plural="istiooperators",
        versions=("v1alpha1",),
        body=IstioOperator,
        short_names=("iop",),
        checks=CHECKS,
    ),
)
