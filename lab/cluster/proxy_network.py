"""The network on the loopback range: addresses 127.77, 127.78 and 127.79, and proxy variables.

Nothing captures packets here. A program's HTTP goes to its sidecar as to an HTTP proxy, its TCP to
the addresses that stand for Services in its environment and its command lines.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import ClassVar

from lab.cluster import container_commands, environment, programs, volumes
from lab.cluster.addresses import Slice, bindable, take_slice
from lab.cluster.host_ports import BindError
from lab.cluster.injection import Proxy
from lab.cluster.network import Address, Name, Start, Way
from lab.cluster.process import Command
from lab.cluster.state import State
from lab.kinds.kubernetes import service as service_kind
from lab.kinds.kubernetes.pod_spec import Container
from lab.kinds.services import ready_endpoints
from lab.model import Pod, Service
from lab.names import HEALTH_PORT, OUTBOUND_PORT, PROXY, inside
from lab.net import streams
from lab.net.streams import Streams

ROOT = "GUESTBOOK_ROOT"
"""The variable with the folder that stands for a container's root."""


@dataclass(slots=True)
class ProxyNetwork:
    """A slice of the loopback range, with a forwarder for each port of a Service."""

    name: ClassVar[str] = "proxy"
    addresses: Slice
    _services: Callable[[], Sequence[Service]] = tuple
    _pods: Callable[[], Iterable[Pod]] = tuple
    _virtual: dict[Name, str] = field(default_factory=dict)
    """Virtual addresses, also for headless Services: no DNS here would follow their pods."""
    _listeners: dict[Address, asyncio.Server] = field(default_factory=dict)

    def attach(self, proxy: Proxy) -> tuple[str, str]:  # noqa: ARG002
        address = self.addresses.pods.take()
        return address, inside(address)

    def detach(self, pod: Pod) -> None:
        self.addresses.pods.release(pod.address)

    def cluster_ip(self, service: Name) -> str | None:
        return self._virtual.get(service)

    async def serve(
        self,
        services: Callable[[], Sequence[Service]],
        pods: Callable[[], Iterable[Pod]],
        published: Mapping[Address, tuple[Name, int]],
    ) -> None:
        """Listens on the addresses of all Services, and releases those that are gone."""
        self._services, self._pods = services, pods
        ports = {
            (item.namespace, item.name): item.ports for item in services() if not item.external_name
        }
        for name in ports:
            if name not in self._virtual:
                self._virtual[name] = self.addresses.services.take()
        for name in [name for name in self._virtual if name not in ports]:
            self.addresses.services.release(self._virtual.pop(name))
        wanted = {
            (address, bindable(address, port.port)): (name, port.port)
            for name, address in self._virtual.items()
            for port in ports[name]
        }
        wanted |= published
        for place in [place for place in self._listeners if place not in wanted]:
            self._listeners.pop(place).close()
        failed: dict[int, OSError] = {}
        for place, (name, number) in wanted.items():
            if place not in self._listeners:
                far = streams.one_of(self._endpoints(name, number), asyncio.open_connection)
                try:
                    self._listeners[place] = await streams.listen(*place, far)
                except OSError as error:
                    failed[place[1]] = error
        if failed:
            raise BindError(failed)

    def _endpoints(self, name: Name, port: int) -> Callable[[], list[Address]]:
        def ready() -> list[Address]:
            return [
                (endpoint.address, endpoint.port)
                for service in self._services()
                if (service.namespace, service.name) == name
                for item in service.ports
                if item.port == port
                for endpoint in ready_endpoints(service, item, self._pods())
            ]

        return ready

    async def connect(self, pod: Pod, port: int, way: Way) -> Streams:
        address = _application(pod)
        # A gateway's Envoy listens on the pod's address, but for its own health check.
        gateway = pod.proxy == "gateway" and port in pod.ports.values() and port != HEALTH_PORT
        if gateway or way == "kubelet":
            address = pod.address
        return await asyncio.open_connection(address, port)

    def enter(self, pod: Pod, command: Command) -> Command:  # noqa: ARG002
        return command

    def start(self, pod: Pod, start: Start) -> Command:
        """Returns the command with addresses for Services' names, and paths below a folder.

        The folder stands for the container's root.
        """
        mounts, root = start.container.volume_mounts, start.folder / "root"
        volumes.link(start.container, start.volumes, root)
        address = _application(pod)
        env = dict(start.base)
        for name, value in start.variables.items():
            reached = environment.redirect(name, value, lambda *at: self.resolve(pod, *at))
            env[name] = volumes.rewrite(reached, mounts, root)
        env |= start.overrides
        env |= {"HOST": address, ROOT: str(root)}
        if any(mount.mount_path.rstrip("/") == "/tmp" for mount in mounts):  # noqa: S108
            env["TMPDIR"] = str(root / "tmp")
        if pod.proxy != "none":
            proxy = f"http://{pod.inside_address}:{OUTBOUND_PORT}"
            env |= {
                "http_proxy": proxy,
                "https_proxy": proxy,
                "no_proxy": f"localhost,127.0.0.1,{pod.inside_address}",
            }
        # Python is the machine's, also where the container mounts something above it, as /tmp.
        words = [
            word
            if word == programs.PYTHON
            else volumes.rewrite(environment.expand(word, start.variables), mounts, root)
            for word in start.argv
        ]
        work = start.container.working_dir
        folder = Path(volumes.rewrite(work, mounts, root)) if work else start.folder
        return Command(words, env, folder if folder.is_dir() else start.folder)

    def resolve(self, pod: Pod, host: str, port: int | None) -> tuple[str, int | None] | None:
        """Returns the address by which a pod's environment reaches `host:port`.

        None leaves the name as it is: it is no Service's, or the sidecar resolves it, as it does
        for HTTP, which goes through it as through an HTTP proxy.
        """
        service = service_kind.named(host, pod.namespace, self._services())
        if service is None:
            return None
        chosen = [item for item in service.ports if port in (None, item.port)]
        if not chosen:
            return None
        if pod.proxy != "none":
            tcp = all(item.protocol in ("TCP", "TLS") for item in chosen)
            return (pod.inside_address, port) if tcp else None
        address = self._virtual.get((service.namespace, service.name))
        if address is None:
            return None
        return address, None if port is None else bindable(address, port)

    def exec(
        self, pod: Pod, container: Container, argv: Sequence[str], running: Command
    ) -> Command:
        caller = container_commands.Caller(
            pod=pod,
            proxy_container=container.name == PROXY,
            services=self._services(),
            pods=tuple(self._pods()),
        )
        mounts, root = container.volume_mounts, Path(running.env.get(ROOT, "/"))
        words = [volumes.rewrite(word, mounts, root) for word in argv]
        return replace(running, argv=container_commands.executed(words, caller, running.env))

    def close(self) -> None:
        for server in self._listeners.values():
            server.close()
        self.addresses.guard.close()


async def open_network(state: State) -> ProxyNetwork:
    """Returns the network of a free slice. Raises NoAddressesError."""
    return ProxyNetwork(take_slice(str(state.folder)))


def _application(pod: Pod) -> str:
    """Returns the address that the applications of a pod bind."""
    return pod.inside_address if pod.proxy != "none" else pod.address
