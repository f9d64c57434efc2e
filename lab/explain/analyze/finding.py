"""One finding: a code and a text, mostly istioctl's, the object, and the place in its manifest."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from lab.model import Json
from lab.resources.resource import Resource

Level = Literal["Error", "Warning", "Info"]

LAB = "lab"
"""The code of the lab's own findings, for which istioctl has none."""

LEVELS: dict[str, Level] = {
    "IST0101": "Error",  # ReferencedResourceNotFound
    "IST0102": "Info",  # NamespaceNotInjected
    "IST0103": "Warning",  # PodMissingProxy
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
    "IST0162": "Warning",  # GatewayPortNotDefinedOnService
    "IST0173": "Error",  # DestinationRuleSubsetNotSelectPods
    "IST0174": "Warning",  # UnknownDestinationRuleHost
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
    """`file:line`; empty for what has no manifest, such as a pod of a Deployment."""
    also: str = ""
    """The `origin` of the other object of a conflict."""

    @property
    def level(self) -> Level:
        return LEVELS[self.code]

    @property
    def origin(self) -> str:
        return f"{self.kind} {'/'.join(filter(None, (self.namespace, self.name)))}"

    def line(self) -> str:
        """Returns the finding as `istioctl analyze` prints it."""
        where = f"{self.origin} {self.place}".rstrip()
        return f"{self.level} [{self.code}] ({where}) {self.text}"

    def json(self) -> Json:
        return {
            "code": self.code,
            "level": self.level,
            "origin": self.origin,
            **({"reference": self.place} if self.place else {}),
            "message": self.text,
        }


def about(code: str, resource: Resource, text: str, *path: str | int) -> Finding:
    """Returns a finding about a field of a resource."""
    place = resource.source.at(*path)
    return Finding(code, resource.kind, resource.namespace, resource.name, text, place)
