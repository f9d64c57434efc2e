"""One finding: a code and a text, mostly istioctl's, the object, and the place in its manifest."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, get_args

from lab.model import Json
from lab.resources.resource import Resource, object_name

Level = Literal["Error", "Warning", "Info"]
LEVELS: tuple[Level, ...] = get_args(Level)
"""The levels, worst first."""

LAB = "lab"
"""The code of the lab's own findings, for which istioctl has none."""

CODES: dict[str, Level] = {
    "IST0002": "Warning",  # Deprecated
    "IST0101": "Error",  # ReferencedResourceNotFound
    "IST0102": "Info",  # NamespaceNotInjected
    "IST0103": "Warning",  # PodMissingProxy
    "IST0107": "Warning",  # MisplacedAnnotation
    "IST0108": "Warning",  # UnknownAnnotation
    "IST0109": "Error",  # ConflictingMeshGatewayVirtualServiceHosts
    "IST0110": "Error",  # ConflictingSidecarWorkloadSelectors
    "IST0111": "Error",  # MultipleSidecarsWithoutWorkloadSelectors
    "IST0112": "Error",  # VirtualServiceDestinationPortSelectorRequired
    "IST0118": "Info",  # PortNameIsNotUnderNamingConvention
    "IST0123": "Warning",  # NamespaceMultipleInjectionLabels
    "IST0127": "Warning",  # NoMatchingWorkloadsFound
    "IST0128": "Warning",  # NoServerCertificateVerificationDestinationLevel
    "IST0129": "Warning",  # NoServerCertificateVerificationPortLevel
    "IST0130": "Warning",  # VirtualServiceUnreachableRule
    "IST0131": "Info",  # VirtualServiceIneffectiveMatch
    "IST0132": "Warning",  # VirtualServiceHostNotFoundInGateway
    "IST0133": "Warning",  # SchemaWarning
    "IST0134": "Warning",  # ServiceEntryAddressesRequired
    "IST0135": "Info",  # DeprecatedAnnotation
    "IST0137": "Warning",  # DeploymentConflictingPorts
    "IST0138": "Warning",  # GatewayDuplicateCertificate
    "IST0140": "Warning",  # IngressRouteRulesNotAffected
    "IST0144": "Warning",  # InvalidApplicationUID
    "IST0145": "Error",  # ConflictingGateways
    "IST0149": "Error",  # JwtClaimBasedRoutingWithoutRequestAuthN
    "IST0150": "Warning",  # ExternalNameServiceTypeInvalidPortName
    "IST0151": "Warning",  # EnvoyFilterUsesRelativeOperation
    "IST0152": "Error",  # EnvoyFilterUsesReplaceOperationIncorrectly
    "IST0153": "Error",  # EnvoyFilterUsesAddOperationIncorrectly
    "IST0154": "Error",  # EnvoyFilterUsesRemoveOperationIncorrectly
    "IST0155": "Warning",  # EnvoyFilterUsesRelativeOperationWithProxyVersion
    "IST0157": "Warning",  # InvalidTelemetryProvider
    "IST0159": "Error",  # ConflictingTelemetryWorkloadSelectors
    "IST0160": "Error",  # MultipleTelemetriesWithoutWorkloadSelectors
    "IST0161": "Error",  # InvalidGatewayCredential
    "IST0162": "Warning",  # GatewayPortNotDefinedOnService
    "IST0173": "Error",  # DestinationRuleSubsetNotSelectPods
    "IST0174": "Warning",  # UnknownDestinationRuleHost
    "IST0177": "Warning",  # ConflictingServiceEntryProtocol
    LAB: "Warning",
}
"""The codes that the lab gives; those of istioctl have istioctl's level."""


@dataclass(frozen=True, slots=True)
class Finding:
    """A fault that no single manifest shows."""

    code: str
    kind: str
    namespace: str
    """Empty of an object without one, such as a Namespace."""
    name: str
    text: str
    """In the words of istioctl, if the code is; a hint of the lab's own is in parentheses."""
    place: str = ""
    """`file:line`, or an object and its field; empty for a pod of a Deployment."""
    also: str = ""
    """The `origin` of the other object of a conflict."""
    certain: bool = False
    """Whether it is a fault for certain, where others of its code may be of a moment."""

    @property
    def level(self) -> Level:
        return CODES[self.code]

    @property
    def origin(self) -> str:
        return origin(self.kind, self.namespace, self.name)

    @property
    def _reference(self) -> str:
        """The place without the object, which `origin` names."""
        own = object_name(self.kind, self.namespace, self.name)
        return self.place.removeprefix(own).removeprefix(":")

    def line(self) -> str:
        """Returns the finding as `istioctl analyze` prints it."""
        where = f"{self.origin} {self._reference}".rstrip()
        return f"{self.level} [{self.code}] ({where}) {self.text}"

    def is_as_bad_as(self, level: Level) -> bool:
        return LEVELS.index(self.level) <= LEVELS.index(level)

    def json(self) -> Json:
        return {
            "code": self.code,
            "level": self.level,
            "origin": self.origin,
            **({"reference": self._reference} if self._reference else {}),
            "message": self.text,
        }


def origin(kind: str, namespace: str, name: str) -> str:
    """Returns the name of an object as istioctl prints it."""
    return f"{kind} {namespace}/{name}" if namespace else f"{kind} {name}"


def about(code: str, resource: Resource, text: str, *path: str | int) -> Finding:
    """Returns a finding about a field of a resource."""
    place = resource.source.at(*path)
    return Finding(code, resource.kind, resource.namespace, resource.name, text, place)


def shown(labels: Mapping[str, str]) -> str:
    """Returns the labels of a selector as istioctl prints them."""
    return ",".join(f"{key}={value}" for key, value in sorted(labels.items()))
