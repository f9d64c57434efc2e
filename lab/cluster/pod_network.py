"""The network of namespaces: each pod has its own, and programs run in it as in a container."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import chain
from pathlib import Path
from typing import ClassVar

from lab.cluster import container_commands, environment, programs, volumes
from lab.cluster.addresses import Pool
from lab.cluster.host_ports import BindError
from lab.cluster.injection import Proxy
from lab.cluster.network import Address, Name, Start, Way
from lab.cluster.process import Command
from lab.cluster.state import State, repository
from lab.kinds.kubernetes.pod_spec import Container
from lab.kinds.services import Endpoint, ready_endpoints
from lab.model import Pod, Service
from lab.names import PROXY
from lab.net import dns, namespaces, netlink, streams, ways
from lab.net.files import Mount, arrange
from lab.net.node import Node, ServicePort, intercept
from lab.net.streams import Streams

_LOCALHOST = "127.0.0.1"
_INBOUND_SOURCE = "127.0.0.6"
"""The address from which a sidecar and its agent ask the application."""

_PODS = "10.244.0.10", "10.244.253.255"
_SERVICES = "10.96.0.20", "10.96.253.255"
"""The first and the last address."""

_LOOK = 0.5
"""Seconds between two looks at where gateways listen; a push looks at once."""

Endpoints = Mapping[Address, tuple[Address, ...]]


@dataclass(slots=True)
class PodNetwork:
    """A node, the networks of its pods, the name server, and the ways in and out."""

    name: ClassVar[str] = "pods"
    folder: Path
    """For the files of pods."""
    node: Node
    name_server: dns.NameServer
    outside: asyncio.Server
    _networks: dict[str, namespaces.Network] = field(default_factory=dict)
    """By pod address."""
    _pods: Pool = field(default_factory=partial(Pool, *_PODS, "pods are running"))
    _services: Pool = field(default_factory=partial(Pool, *_SERVICES, "Services exist"))
    _virtual: dict[Name, str] = field(default_factory=dict)
    _published: dict[Address, asyncio.Server] = field(default_factory=dict)
    _wanted: Endpoints = field(default_factory=dict)
    """The addresses of this machine that lead to pods, whether these listen or not."""
    _behind: Endpoints = field(default_factory=dict)
    """Those with a pod that listens."""
    _publishing: asyncio.Lock = field(default_factory=asyncio.Lock)
    _watch: asyncio.Task[None] | None = None

    def attach(self, proxy: Proxy) -> tuple[str, str]:
        """Makes the pod's network; a sidecar captures what goes in and out."""
        address = self._pods.take()
        network = namespaces.Network()
        self.node.attach(network, address)
        if proxy == "sidecar":
            intercept(network)
        self._networks[address] = network
        return address, _LOCALHOST

    def detach(self, pod: Pod) -> None:
        """Lets go of a pod's network, which ends with its last process."""
        self._pods.release(pod.address)
        self._networks.pop(pod.address).close()

    def cluster_ip(self, service: Name) -> str | None:
        return self._virtual.get(service)

    async def serve(
        self,
        services: Callable[[], Sequence[Service]],
        pods: Callable[[], Iterable[Pod]],
        published: Mapping[Address, tuple[Name, int]],
    ) -> None:
        """Writes the node's rules and the names of now, and listens for clients of gateways."""
        names = [(item.namespace, item.name) for item in services()]
        for name in [name for name in self._virtual if name not in names]:
            self._services.release(self._virtual.pop(name))
        for name in names:
            if name not in self._virtual:
                self._virtual[name] = self._services.take()
        known, running = services(), tuple(pods())
        self.node.serve(tuple(_rules(known, running)))
        self.name_server.zone = zone(known, running)
        self._wanted = _published(known, running, published)
        await self._publish()
        if self._watch is None:
            self._watch = asyncio.create_task(self._look())

    async def _look(self) -> None:
        """Publishes what begins or ends to listen between two changes of the cluster."""
        while True:
            await asyncio.sleep(_LOOK)
            # A port that can't be bound is told by the next round of the control loop.
            with contextlib.suppress(OSError):
                await self._publish()

    async def _publish(self) -> None:
        """Listens on this machine exactly where a pod listens behind it. Raises OSError."""
        async with self._publishing:
            listening = {
                host: netlink.listening(self._networks[host].sockets)
                for host in {host for ends in self._wanted.values() for host, _ in ends}
                if host in self._networks
            }
            self._behind = {
                place: found
                for place, ends in self._wanted.items()
                if (found := tuple(end for end in ends if end[1] in listening.get(end[0], ())))
            }
            for place in [place for place in self._published if place not in self._behind]:
                self._published.pop(place).close()
            failed: dict[int, OSError] = {}
            for place in self._behind:
                if place not in self._published:
                    connect = partial(ways.connect, self.node.network)
                    far = streams.one_of(partial(self._endpoints, place), connect)
                    try:
                        self._published[place] = await streams.listen(*place, far)
                    except OSError as error:
                        failed[place[1]] = error
            if failed:
                raise BindError(failed)

    def _endpoints(self, place: Address) -> tuple[Address, ...]:
        return self._behind.get(place, ())

    async def connect(self, pod: Pod, port: int, way: Way) -> Streams:
        if pod.address not in self._networks:
            raise ConnectionRefusedError("the pod has ended")
        if way == "kubelet":
            return await ways.connect(self.node.network, pod.address, port)
        inside = self._networks[pod.address]
        if way == "agent":
            return await ways.connect(inside, pod.address, port, source=_INBOUND_SOURCE)
        return await ways.connect(inside, _LOCALHOST, port)

    def enter(self, pod: Pod, command: Command) -> Command:
        """Returns the command of a proxy, which may mark what it sends."""
        return self._placed(pod, command, [], command.folder, network_admin=True)

    def start(self, pod: Pod, start: Start) -> Command:
        """Returns the command as the manifest has it, with its volumes where they are mounted."""
        container = start.container
        mounts = [
            Mount(volumes.source(item, start.volumes), Path(item.mount_path), item.read_only)
            for item in container.volume_mounts
        ]
        for path in programs.image_volumes(container.image):
            if path not in {mount.target for mount in mounts}:
                own = start.folder / "volumes" / path.relative_to("/")
                own.mkdir(parents=True, exist_ok=True)
                mounts.append(Mount(own, path))
        env = {**start.base, **start.variables, "GUESTBOOK_ROOT": "/"}
        # The user's own servers are this machine's, which pods know by another name.
        env |= {name: to_host(value) for name, value in start.overrides.items()}
        words = [environment.expand(word, start.variables) for word in start.argv]
        command = Command(words, env, start.folder)
        return self._placed(pod, command, mounts, Path(container.working_dir or start.folder))

    def _placed(
        self,
        pod: Pod,
        command: Command,
        mounts: list[Mount],
        folder: Path,
        *,
        network_admin: bool = False,
    ) -> Command:
        name = command.env.get("HOSTNAME", pod.name)
        root = command.folder / "root"
        root.mkdir(exist_ok=True)
        every = [*mounts, *_own_files(pod, name, command.folder / "etc")]
        kept = (self.folder, repository(), Path(programs.PYTHON).parents[1])
        network = self._networks[pod.address]

        def enter() -> None:
            namespaces.enter(network, name)
            arrange(every, kept, root)
            namespaces.settle(folder, network_admin=network_admin)

        return replace(command, enter=enter)

    def exec(
        self,
        pod: Pod,  # noqa: ARG002
        container: Container,
        argv: Sequence[str],
        running: Command,
    ) -> Command:
        words = container_commands.in_container(argv, _LOCALHOST, running.env)
        if container.name == PROXY:
            # As the proxy's user on a cluster: past the rules of the pod.
            words = [programs.PYTHON, "-m", "lab.net.marked", *words]
        folder = Path(container.working_dir or running.folder)
        return replace(running, argv=words, folder=folder)

    def close(self) -> None:
        if self._watch is not None:
            self._watch.cancel()
        for server in (*self._published.values(), self.outside):
            server.close()
        self.name_server.close()


async def open_network(state: State) -> PodNetwork:
    """Returns a new network; this process is master of a user namespace (`become_master`)."""
    node = Node()
    folder = state.folder
    return PodNetwork(folder, node, await dns.serve(node.network), await ways.out(node))


def to_host(value: str) -> str:
    """Returns an address of the user's own server as pods reach it."""
    for local in ("localhost", "127.0.0.1"):
        if value == local:
            return dns.HOST_NAME
        for before in ("@", "//"):
            for after in (":", "/"):
                value = value.replace(f"{before}{local}{after}", f"{before}{dns.HOST_NAME}{after}")
    return value


def _own_files(pod: Pod, host_name: str, folder: Path) -> Iterator[Mount]:
    """Yields the files that kubelet writes for a pod, and the one that has programs ask DNS.

    Without it some machines' C library asks a local service, by a socket that has no network.
    """
    folder.mkdir(exist_ok=True)
    names = host_name
    if pod.subdomain:
        names = f"{host_name}.{pod.subdomain}.{pod.namespace}.svc.{dns.DOMAIN}\t{host_name}"
    files = {
        "resolv.conf": dns.resolv_conf(pod.namespace),
        "nsswitch.conf": "passwd: files\ngroup: files\nhosts: files dns\n",
        "hosts": f"127.0.0.1\tlocalhost\n::1\tlocalhost\n{pod.address}\t{names}\n",
        "hostname": f"{host_name}\n",
    }
    for name, text in files.items():
        (folder / name).write_text(text, encoding="utf-8")
        yield Mount(folder / name, Path("/etc") / name)


def _rules(services: Iterable[Service], pods: Sequence[Pod]) -> Iterator[ServicePort]:
    for service in services:
        if service.cluster_ip is None:
            continue
        for port in service.ports:
            ends = ready_endpoints(service, port, pods)
            found = tuple((end.address, end.port) for end in ends)
            yield ServicePort(service.cluster_ip, port.port, found)


def _published(
    services: Iterable[Service], pods: Sequence[Pod], others: Mapping[Address, tuple[Name, int]]
) -> Endpoints:
    """Returns the addresses of this machine that lead to pods."""
    found: dict[Address, tuple[Address, ...]] = {}
    for pod in pods:
        for port, places in pod.published.items():
            for place in places:
                found[place] = (*found.get(place, ()), (pod.address, port))
    for place, (name, number) in others.items():
        found[place] = tuple(
            (end.address, end.port)
            for service in services
            if (service.namespace, service.name) == name
            for port in service.ports
            if port.port == number
            for end in ready_endpoints(service, port, pods)
        )
    return found


def zone(services: Iterable[Service], pods: Sequence[Pod]) -> dns.Zone:
    """Returns the names of Services and their endpoints, as cluster DNS has them."""
    addresses: dict[str, list[str]] = {}
    targets: dict[str, list[tuple[int, str]]] = {}
    aliases: dict[str, str] = {}
    for service in services:
        if service.external_name:
            aliases[service.host] = service.external_name
            continue
        ends = {port.name: ready_endpoints(service, port, pods) for port in service.ports}
        if service.cluster_ip is not None:
            addresses[service.host] = [service.cluster_ip]
        else:
            addresses[service.host] = []
            for end in chain.from_iterable(ends.values()):
                for name in (service.host, _end_name(end, service)):
                    found = addresses.setdefault(name, [])
                    if end.address not in found:
                        found.append(end.address)
        for port in service.ports:
            if port.name and service.cluster_ip is not None:
                targets[f"_{port.name}._tcp.{service.host}"] = [(port.port, service.host)]
            elif port.name:
                targets[f"_{port.name}._tcp.{service.host}"] = [
                    (end.port, _end_name(end, service)) for end in ends[port.name]
                ]
    return dns.Zone(addresses=addresses, aliases=aliases, services=targets)


def _end_name(end: Endpoint, service: Service) -> str:
    """Returns an endpoint's name below a headless Service: its host name, else its address."""
    return f"{end.host_name or end.address.replace('.', '-')}.{service.host}"
