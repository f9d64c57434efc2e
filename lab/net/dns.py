"""Cluster DNS: names of Services and pods, and the machine's own resolver for everything else.

Answers are pure functions of a query and a `Zone`; `serve` listens for them, by UDP and TCP.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import socket
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

from lab.net.namespaces import Network
from lab.net.node import DNS, HOST

DOMAIN = "cluster.local"
TTL = 5
"""Seconds, as in kubeadm's configuration of CoreDNS for a change to be seen soon."""

_A, _CNAME, _SRV, _ANY = 1, 5, 33, 255
_NAME_ERROR, _SERVER_FAILURE = 3, 2
_UDP_LIMIT = 512
"""Bytes of an answer that a client without EDNS takes by UDP."""

_TIMEOUT = 3.0
"""Seconds that the machine's resolver gets for an answer."""


@dataclass(frozen=True, slots=True)
class Zone:
    """The names of a cluster, in full, without the dot at the end."""

    addresses: Mapping[str, Sequence[str]] = field(default_factory=dict)
    aliases: Mapping[str, str] = field(default_factory=dict)
    """The names that ExternalName Services stand for."""
    services: Mapping[str, Sequence[tuple[int, str]]] = field(default_factory=dict)
    """SRV: port and target by `_port._tcp.name.namespace.svc.cluster.local`."""


HOST_NAME = "host.lab"
"""The name of the machine's localhost."""


def resolv_conf(namespace: str) -> str:
    """Returns a pod's `/etc/resolv.conf`, as kubelet writes it."""
    search = f"{namespace}.svc.{DOMAIN} svc.{DOMAIN} {DOMAIN}"
    return f"search {search}\nnameserver {DNS}\noptions ndots:5\n"


def question(query: bytes) -> tuple[str, int, int] | None:
    """Returns name and type that a query asks for, and its end; None for what is no query."""
    labels, at = [], 12
    try:
        while length := query[at]:
            labels.append(query[at + 1 : at + 1 + length].decode("ascii", "replace").lower())
            at += length + 1
        return ".".join(labels), struct.unpack_from("!H", query, at + 1)[0], at + 5
    except (IndexError, struct.error):
        return None


def answer(query: bytes, zone: Zone) -> bytes | None:
    """Returns the answer to a query for a cluster's name; None when others know the name."""
    if (asked := question(query)) is None:
        return _failure(query, _SERVER_FAILURE)
    name, kind, end = asked
    records: list[bytes] = []
    known = True
    if name in zone.aliases:
        target = zone.aliases[name]
        records = [_record(_CNAME, _labels(target))]
        if kind == _A:
            # The client asks again for a name that is not of the cluster.
            records += [_record(_A, a, target) for a in _addresses(target, zone)]
    elif name in zone.addresses or name == HOST_NAME:
        if kind in (_A, _ANY):
            records = [_record(_A, address) for address in _addresses(name, zone)]
    elif name in zone.services:
        if kind in (_SRV, _ANY):
            records = [
                _record(_SRV, struct.pack("!HHH", 0, 100, port) + _labels(target))
                for port, target in zone.services[name]
            ]
    elif name == DOMAIN or name.endswith(f".{DOMAIN}"):
        known = _is_parent(name, zone)
    else:
        return None
    code = 0x8580 | (0 if known else _NAME_ERROR)
    head = query[:2] + struct.pack("!HHHHH", code, 1, len(records), 0, 0)
    return head + query[12:end] + b"".join(records)


def _addresses(name: str, zone: Zone) -> list[bytes]:
    found = (HOST,) if name == HOST_NAME else zone.addresses.get(name, ())
    return [socket.inet_aton(address) for address in found]


def _is_parent(name: str, zone: Zone) -> bool:
    """Returns whether names exist below a name: then it has no records, but it exists."""
    tables = (zone.addresses, zone.aliases, zone.services)
    return name == DOMAIN or any(one.endswith(f".{name}") for table in tables for one in table)


def _labels(name: str) -> bytes:
    return b"".join(bytes([len(part)]) + part.encode() for part in name.split(".")) + b"\0"


def _record(kind: int, data: bytes, name: str | None = None) -> bytes:
    # Without a name it is that of the question, which begins at byte 12.
    owner = b"\xc0\x0c" if name is None else _labels(name)
    return owner + struct.pack("!HHIH", kind, 1, TTL, len(data)) + data


def _failure(query: bytes, code: int) -> bytes:
    return query[:2].ljust(2, b"\0") + struct.pack("!HHHHH", 0x8180 | code, 0, 0, 0, 0)


def _truncated(reply: bytes) -> bytes:
    """Returns an answer for UDP: one that is too long has the client ask again by TCP."""
    if len(reply) <= _UDP_LIMIT:
        return reply
    flags = struct.unpack_from("!H", reply, 2)[0] | 0x0200
    asked = question(reply)
    end = asked[2] if asked else 12
    return reply[:2] + struct.pack("!HHHHH", flags, 1, 0, 0, 0) + reply[12:end]


@dataclass(slots=True)
class NameServer(asyncio.DatagramProtocol):
    """The name server of a lab."""

    zone: Zone = field(default_factory=Zone)
    upstream: tuple[tuple[str, int], ...] = ()
    """The machine's own name servers, with their port."""
    _transport: asyncio.DatagramTransport | None = None
    _server: asyncio.Server | None = None
    _asking: set[asyncio.Task[None]] = field(default_factory=set)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.DatagramTransport, transport)

    def datagram_received(self, data: bytes, address: tuple[str, int]) -> None:
        reply = answer(data, self.zone)
        if reply is not None:
            self._send(_truncated(reply), address)
            return
        task = asyncio.ensure_future(self._ask(data, address))
        self._asking.add(task)
        task.add_done_callback(self._asking.discard)

    def _send(self, reply: bytes, address: tuple[str, int]) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.sendto(reply, address)

    async def _ask(self, data: bytes, address: tuple[str, int]) -> None:
        """Hands a query to the machine's resolver, byte for byte."""
        loop = asyncio.get_running_loop()
        for server in self.upstream:
            with socket.socket(_family(server[0]), socket.SOCK_DGRAM) as sock:
                sock.setblocking(False)
                with contextlib.suppress(OSError, TimeoutError):
                    await loop.sock_connect(sock, server)
                    await loop.sock_sendall(sock, data)
                    async with asyncio.timeout(_TIMEOUT):
                        self._send(await loop.sock_recv(sock, 65535), address)
                    return
        self._send(_failure(data, _SERVER_FAILURE), address)

    async def stream(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answers queries that come by TCP, each with its length before it."""
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            while True:
                data = await reader.readexactly(int.from_bytes(await reader.readexactly(2), "big"))
                reply = answer(data, self.zone) or await self._ask_by_tcp(data)
                writer.write(len(reply).to_bytes(2, "big") + reply)
                await writer.drain()
        writer.close()

    async def _ask_by_tcp(self, data: bytes) -> bytes:
        for server in self.upstream:
            with contextlib.suppress(OSError, TimeoutError, asyncio.IncompleteReadError):
                async with asyncio.timeout(_TIMEOUT):
                    reader, writer = await asyncio.open_connection(*server)
                    try:
                        writer.write(len(data).to_bytes(2, "big") + data)
                        length = int.from_bytes(await reader.readexactly(2), "big")
                        return await reader.readexactly(length)
                    finally:
                        writer.close()
        return _failure(data, _SERVER_FAILURE)

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()
        if self._server is not None:
            self._server.close()


def _family(address: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in address else socket.AF_INET


def name_servers(text: str) -> tuple[str, ...]:
    """Returns the name servers of a `resolv.conf`."""
    return tuple(re.findall(r"(?m)^\s*nameserver\s+(\S+)", text))


def host_name_servers() -> tuple[str, ...]:
    """Returns the machine's name servers, none where it has no resolver."""
    with contextlib.suppress(OSError):
        return name_servers(Path("/etc/resolv.conf").read_text(encoding="utf-8"))
    return ()


async def serve(node: Network) -> NameServer:
    """Starts the name server on the node; the machine's resolver is asked from the machine."""
    server = NameServer(upstream=tuple((host, 53) for host in host_name_servers()))
    loop = asyncio.get_running_loop()
    datagrams = node.socket(socket.SOCK_DGRAM)
    datagrams.bind((DNS, 53))
    await loop.create_datagram_endpoint(lambda: server, sock=datagrams)
    listener = node.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind((DNS, 53))
    server._server = await asyncio.start_server(server.stream, sock=listener)
    return server
