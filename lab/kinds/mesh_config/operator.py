"""IstioOperator: the input of `istioctl install`, as far as it means something in the lab.

A cluster has no such kind since Istio 1.24; the lab reads the file in istioctl's place.
"""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import ip_network
from typing import Any, Literal

from lab.kinds.mesh_config import checks as mesh_config
from lab.kinds.mesh_config.checks import MeshConfig
from lab.resources.istio import IstioModel, Number, Text, field_problems, ignored, refused
from lab.resources.resource import Kind, Path, Problem, Resource

_INSTALLED = "istioctl's business on a cluster; the lab installs nothing"


class Gateway(IstioModel):
    name: Text
    enabled: bool = True
    namespace: Text | None = refused("the lab's gateway is in istio-system")
    label: dict[str, str] | None = refused("the lab's gateway has the label istio: ingressgateway")
    k8s: dict[str, Any] | None = refused(
        "the lab's gateway has an address of its own (--port)", alias="k8s"
    )


class Component(IstioModel):
    enabled: bool = True
    k8s: dict[str, Any] | None = refused(_INSTALLED, alias="k8s")


class Components(IstioModel):
    base: Component | None = None
    pilot: Component | None = None
    cni: Component | None = None
    ztunnel: Component | None = refused("ambient mode; the lab has sidecars")
    ingress_gateways: list[Gateway] | None = None
    egress_gateways: list[Gateway] | None = None


class Pilot(IstioModel):
    trace_sampling: Number | None = None
    env: dict[str, Text | bool | int] | None = None


class Values(IstioModel):
    pilot: Pilot | None = None
    global_: dict[str, Any] | None = refused(_INSTALLED, alias="global")
    gateways: dict[str, Any] | None = refused(
        "the lab's gateway has an address of its own (--port)"
    )


class IstioOperatorSpec(IstioModel):
    profile: Literal["default", "demo", "minimal", "empty"] = "default"
    mesh_config: MeshConfig | None = None
    components: Components | None = None
    values: Values | None = None
    hub: Text | None = ignored("the lab pulls no images")
    tag: Text | int | float | None = ignored("the lab pulls no images")
    revision: Text | None = refused("several control planes; the lab is one")
    addon_components: dict[str, Any] | None = None
    unvalidated_values: dict[str, Any] | None = refused(_INSTALLED)
    install_package_path: Text | None = refused(_INSTALLED)
    compatibility_version: Text | None = refused("the behaviour of another version than 1.30")
    platform: Text | None = refused(_INSTALLED)
    namespace: Text | None = ignored("the lab's control plane is in istio-system")


class IstioOperator(IstioModel):
    spec: IstioOperatorSpec = IstioOperatorSpec()


PILOT_ENVIRONMENT = ("BLOCKED_CIDRS_IN_JWKS_URIS",)
"""istiod's variables that the lab understands."""


def validate(resource: Resource) -> Iterator[Problem]:
    """What `istioctl install` says of the file, and what has no meaning in the lab."""
    spec: IstioOperatorSpec = resource.spec
    path: Path = ("spec",)
    yield from field_problems(spec, path)
    if spec.addon_components is not None:
        yield Problem(
            (*path, "addonComponents"),
            'unknown field "addonComponents": Istio removed it in 1.8; Prometheus, Grafana, Kiali '
            "and Zipkin are installed from their own manifests",
        )
    if spec.mesh_config is not None:
        yield from mesh_config.problems(spec.mesh_config, (*path, "meshConfig"))
    pilot = spec.values.pilot if spec.values is not None else None
    for name, value in ((pilot.env or {}) if pilot is not None else {}).items():
        place: Path = (*path, "values", "pilot", "env", name)
        if name not in PILOT_ENVIRONMENT:
            yield Problem(
                place,
                f"not supported by the lab: of istiod's variables it knows "
                f"{', '.join(PILOT_ENVIRONMENT)}",
            )
            continue
        for network in filter(None, str(value).split(",")):
            try:
                ip_network(network.strip(), strict=False)
            except ValueError as error:
                yield Problem(place, str(error))
    components = spec.components
    if components is None:
        return
    where: Path = (*path, "components")
    for index, gateway in enumerate(components.egress_gateways or ()):
        if gateway.enabled:
            yield Problem(
                (*where, "egressGateways", index),
                "not supported by the lab: egress gateways; set enabled: false",
            )
    for index, gateway in enumerate(components.ingress_gateways or ()):
        if gateway.name != "istio-ingressgateway" or not gateway.enabled:
            yield Problem(
                (*where, "ingressGateways", index),
                "not supported by the lab: its one gateway is istio-ingressgateway, and it is on",
            )
    for name in ("base", "pilot"):
        component = getattr(components, name)
        if component is not None and not component.enabled:
            yield Problem((*where, name, "enabled"), "not supported by the lab: it is always on")
    if components.cni is not None and components.cni.enabled:
        yield Problem((*where, "cni"), "not supported by the lab: there are no network namespaces")


KINDS: tuple[Kind, ...] = (
    Kind(
        group="install.istio.io",
        kind="IstioOperator",
        plural="istiooperators",
        versions=("v1alpha1",),
        body=IstioOperator,
        short_names=("iop",),
        validate=validate,
    ),
)
