"""PeerAuthentication: the typed body and what istiod's validation says about it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import BeforeValidator

from lab.kinds.selection import SECURITY_VERSIONS, WorkloadSelector, selector_problems
from lab.kinds.selection import Selecting as _Selecting
from lab.resources.istio import IstioModel, field_problems
from lab.resources.resource import Kind, Path, Problem, Resource

MtlsMode = Literal["UNSET", "DISABLE", "PERMISSIVE", "STRICT"]


def _port_key(key: object) -> object:
    """A map's key is text in JSON, where YAML may have made a number of it."""
    return int(key) if isinstance(key, str) and key.isdecimal() else key


class MutualTLS(IstioModel):
    mode: MtlsMode | None = None


class PeerAuthenticationSpec(IstioModel):
    selector: WorkloadSelector | None = None
    mtls: MutualTLS | None = None
    port_level_mtls: dict[Annotated[int, BeforeValidator(_port_key)], MutualTLS] | None = None


class PeerAuthentication(IstioModel):
    spec: PeerAuthenticationSpec = PeerAuthenticationSpec()


def validate(resource: Resource) -> Iterator[Problem]:
    """What istiod's webhook says of a PeerAuthentication."""
    spec: PeerAuthenticationSpec = resource.spec
    path: Path = ("spec",)
    ports: Path = (*path, "portLevelMtls")
    yield from field_problems(spec, path)
    yield from selector_problems(_Selecting(selector=spec.selector), path)
    selecting = spec.selector is not None and bool(spec.selector.match_labels)
    if spec.port_level_mtls and not selecting:
        yield Problem(
            ports,
            "portLevelMtls requires a selector: a mesh or namespace policy cannot have port level "
            "mTLS",
        )
    if spec.port_level_mtls is not None and not spec.port_level_mtls:
        yield Problem(ports, "port level mTLS, if defined, must have at least one element")
    for port in spec.port_level_mtls or ():
        if not 1 <= port <= 65535:
            yield Problem((*ports, port), "port must be in range 1..65535")
    if selecting and resource.namespace == "istio-system":
        yield Problem(
            (*path, "selector"),
            "a policy with a selector is ignored in the root namespace; put it into the workload's",
            "warning",
        )


KINDS: tuple[Kind, ...] = (
    Kind(
        group="security.istio.io",
        kind="PeerAuthentication",
        plural="peerauthentications",
        versions=SECURITY_VERSIONS,
        body=PeerAuthentication,
        short_names=("pa",),
        validate=validate,
    ),
)
