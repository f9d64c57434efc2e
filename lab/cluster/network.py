"""The network of a lab, as the cluster uses it: of pods, of Services, and of this machine.

`pod_network` gives each pod a network namespace; `proxy_network` plays the network on the
loopback range, with programs that go through their sidecar as through an HTTP proxy. Whatever
differs between the two is behind this protocol.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

from lab.cluster import injection
from lab.cluster.process import Command
from lab.kinds.kubernetes.pod_spec import Container
from lab.model import Pod, Service
from lab.net.streams import Streams

Name = tuple[str, str]
"""Namespace and name."""

Address = tuple[str, int]

Way = Literal["kubelet", "agent", "port-forward"]
"""kubelet connects to the pod's address from outside, and so through a sidecar; the agent that
answers its probes to the application at that address, and port-forward to the pod's localhost."""


@dataclass(frozen=True, slots=True)
class Start:
    """A start of a container, as its manifest and its image describe it."""

    container: Container
    argv: Sequence[str]
    variables: Mapping[str, str]
    """Those of the image and of the manifest."""
    overrides: Mapping[str, str]
    """Those that name the user's own servers, in place of the ones above."""
    base: Mapping[str, str]
    """The environment of every process of the pod."""
    volumes: Mapping[str, Path]
    """The folders of the pod's volumes."""
    folder: Path
    """The container's own."""


class Network(Protocol):
    """The network of one lab."""

    @property
    def name(self) -> str:
        """`proxy` or `pods`, as `up --network` takes it and `status` shows it."""
        ...

    def attach(self, proxy: injection.Proxy) -> tuple[str, str]:
        """Returns the address and the inside address of a new pod. Raises NoAddressesError."""
        ...

    def detach(self, pod: Pod) -> None:
        """Takes a pod that has ended off the network."""
        ...

    def cluster_ip(self, service: Name) -> str | None:
        """Returns the virtual address of a Service that is served."""
        ...

    async def serve(
        self,
        services: Callable[[], Sequence[Service]],
        pods: Callable[[], Iterable[Pod]],
        published: Mapping[Address, tuple[Name, int]],
    ) -> None:
        """Leads clients of the Services to their endpoints as they are now.

        `published` leads addresses of this machine to a Service's port. Raises NoAddressesError,
        and OSError for a port that can't be bound.
        """
        ...

    async def connect(self, pod: Pod, port: int, way: Way) -> Streams:
        """Connects to a port of a pod. Raises OSError."""
        ...

    def enter(self, pod: Pod, command: Command) -> Command:
        """Returns the command of a proxy so that it runs in its pod."""
        ...

    def start(self, pod: Pod, start: Start) -> Command:
        """Returns the command of a container, run in its pod."""
        ...

    def exec(
        self, pod: Pod, container: Container, argv: Sequence[str], running: Command
    ) -> Command:
        """Returns a command that is run in a started container (`exec`, a probe or a hook)."""
        ...

    def close(self) -> None:
        """Ends the network; connections of this machine are refused from now on."""
        ...
